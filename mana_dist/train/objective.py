"""The losses of the schedule's stages (paper section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mana_dist.model import Mana
from mana_dist.train.schedule import Stage

EPSILON = 1e-3
"""Charbonnier's: where the distance turns from a parabola into L1."""


class StageObjective(nn.Module):
    """The network with the loss of a stage, as one module, so that DeepSpeed wraps both.

    Parameters that the stage does not train are frozen.
    """

    def __init__(self, model: Mana, stage: Stage) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(stage.trains(name))

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Return the stage's mean loss over a batch.

        Args:
            lr: (B, T, 3, h, w) uint8.
            hr: (B, 3, sh, sw) uint8, s the model's scale, the ground truth of the centre frames.

        Returns:
            Scalar, fp32: mean |O - G|, or Charbonnier's distance, with both in [0, 1] (stages 1 and 3), or mean |Y - Q|
            (stage 2).
        """
        # uint8 until here, so that no mixed-precision wrapper rounds the frames.
        frames = lr.to(torch.float32) / 255
        if self.stage.trains_memory_only:
            reading, query = self.model.memory_reading(frames[:, frames.shape[1] // 2])
            return F.l1_loss(reading.float(), query.float())
        output, truth = self.model(frames).float(), hr.to(torch.float32) / 255
        if self.stage.loss == "charbonnier":
            return ((output - truth).square() + EPSILON**2).sqrt().mean()
        return F.l1_loss(output, truth)
