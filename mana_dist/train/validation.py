"""Validation during training: PSNR and SSIM of whole frames, divided among the workers."""

import time

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mana_dist import pictures
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.data.feed import centre_frames
from mana_dist.data.manifest import load_manifest
from mana_dist.data.row_groups import RowGroups
from mana_dist.metrics import psnr, ssim
from mana_dist.model import Mana
from mana_dist.model.inference import to_frame, to_tensor
from mana_dist.train.tracking.events import Validated


class Validation:
    """A fixed, evenly spaced choice of validation samples; each worker holds and computes every R-th.

    Args:
        uri: the validation dataset's folder.
        frames: T of the model.
        samples: number of samples.
        rank: this worker's rank.
        world_size: number of workers.
    """

    def __init__(self, uri: str, frames: int, samples: int, rank: int, world_size: int) -> None:
        with RowGroups(uri, load_manifest(uri), least=1, budget=0) as groups:
            places = [(group, row) for group, rows in enumerate(groups.rows) for row in range(rows)]
            chosen = np.unique(np.linspace(0, len(places) - 1, min(samples, len(places))).round().astype(int))
            mine = ((groups[places[index][0]], places[index][1]) for index in chosen[rank::world_size])  # one by one
            self._samples = [(centre_frames(group.lr[row], frames).copy(), group.hr[row].copy()) for group, row in mine]
        self._count = len(chosen)
        self._bicubic = [_scores(bicubic_upsample(lr[frames // 2]), hr) for lr, hr in self._samples]

    def run(self, model: Mana, step: int, device: torch.device) -> Validated:
        """Return the model's scores, and a picture of rank 0's first sample; collective."""
        before = time.perf_counter()
        sums, picture = self._measure(model, device)
        sums = sums.to(device)
        dist.all_reduce(sums)
        means = [float(value) / self._count for value in sums]
        return Validated(step, means[0], means[1], means[2], means[3], picture, time.perf_counter() - before)

    def psnr(self, model: Mana, device: torch.device) -> tuple[float, float]:
        """Return the mean PSNR of the model and of bicubic; for one worker that holds all samples."""
        sums, _ = self._measure(model, device)
        return float(sums[0]) / self._count, float(sums[2]) / self._count

    def _measure(self, model: Mana, device: torch.device) -> tuple[Tensor, NDArray[np.uint8]]:
        """Return the sums of the model's and bicubic's scores over this worker's samples, and the first's picture."""
        sums = torch.zeros(4, dtype=torch.float64)
        picture = np.zeros((1, 1, 3), dtype=np.uint8)
        for index, (lr, hr) in enumerate(self._samples):
            output = to_frame(_forward(model, to_tensor(lr)[None].to(device)))
            sums += torch.tensor([*_scores(output, hr), *self._bicubic[index]], dtype=torch.float64)
            if index == 0:
                centre = lr[lr.shape[0] // 2]
                picture = _picture(centre, output, hr)
        return sums, picture


@torch.inference_mode()
def _forward(model: Mana, frames: Tensor) -> Tensor:
    return model(frames)


def _picture(lr: NDArray[np.uint8], output: NDArray[np.uint8], hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return LR, bicubic, output and HR side by side, cut to the region where bicubic differs most from HR."""
    bicubic = bicubic_upsample(lr)
    region = pictures.most_different_region(bicubic, hr)
    return pictures.side_by_side(region.of_lr(lr), *(region.of(frame) for frame in (bicubic, output, hr)))


def _scores(output: NDArray[np.uint8], hr: NDArray[np.uint8]) -> tuple[float, float]:
    return psnr(output, hr), ssim(output, hr)
