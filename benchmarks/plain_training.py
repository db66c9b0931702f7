"""One stage of the training with torch alone: what StageEngine computes on one device, without DeepSpeed and Ray.

Schedule, losses, start, trained parameters and optimizer settings are the product's, and so is the state: fp32 tensors
by parameter name. So a run of this is a training of the product, and its weights are a model of it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mana_dist.config import Config
from mana_dist.model import Mana
from mana_dist.train import averaging
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import ADAM_BETAS, Stage, learning_rate

MOMENTS = ("exp_avg", "exp_avg_sq")


class PlainStage:
    """Trains one stage with a fresh Adam; in bf16, Adam updates fp32 masters that the weights are rounded from.

    Args:
        config: the network, the precision, the clipping and the moving average.
        stage: what to train.
        weights: all parameters by name, fp32.
        moments: Adam's moments as :meth:`moments` gives them; empty at a stage's start.
        step: the global step that comes next.
        device: where to train.
        network: Mana, or a variant with the same parameters.
        average: the moving average as :meth:`average` gives it; it begins with the weights where it is left out.

    Attributes:
        objective: the network with the stage's loss.
        gradient_norm: L2 norm of the last step's gradient before clipping, a scalar on the device.
    """

    def __init__(
        self,
        config: Config,
        stage: Stage,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        step: int,
        device: torch.device,
        network: type[Mana] = Mana,
        average: Mapping[str, Tensor] | None = None,
    ) -> None:
        model = network(config.model)
        model.load_state_dict(weights)
        model.checkpoint_activations = config.run.checkpoint_activations
        self._initial = weights
        self._most = config.run.clip_gradients
        self._stage = stage
        self._step = step
        self._device = device
        is_rounded = config.run.precision == "bf16"
        self.objective = StageObjective(model, stage).to(device, torch.bfloat16 if is_rounded else torch.float32)
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters: dict[str, Tensor] = dict(self._trained)
        if is_rounded:
            self._masters = {
                name: weights[name].detach().to(device, torch.float32, copy=True) for name in self._trained
            }
        self._adam = torch.optim.Adam(self._masters.values(), lr=stage.lr, betas=ADAM_BETAS)
        self._ema = config.run.ema
        frozen = {name: tensor.to(device) for name, tensor in weights.items() if name not in self._masters}
        self._followed = self._masters | frozen
        self._average = {
            name: (average or weights)[name].detach().to(device, torch.float32, copy=True) for name in self._followed
        }
        self.gradient_norm = torch.zeros((), device=device)
        for name, master in self._masters.items() if moments else ():
            # Adam makes its state at the first step; the moments need it now.
            self._adam.state[master] = {
                "step": torch.tensor(float(step - stage.start)),
                **{kind: moments[f"{kind}.{name}"].to(device, copy=True) for kind in MOMENTS},
            }

    @property
    def model(self) -> Mana:
        """The network."""
        return self.objective.model

    def step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Make one optimizer step on a whole batch, (B, T, 3, h, w) and (B, 3, 4h, 4w) uint8; give its mean loss."""
        for parameter in self._trained.values():
            parameter.grad = None
        loss: Tensor = self.objective(lr.to(self._device), hr.to(self._device))
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in self._trained.items():
            if self._masters[name] is not parameter and parameter.grad is not None:
                self._masters[name].grad = parameter.grad.to(torch.float32)
        self.gradient_norm = torch.nn.utils.get_total_norm(
            [master.grad for master in self._masters.values() if master.grad is not None]
        )
        if self._most:
            torch.nn.utils.clip_grads_with_norm_(self._masters.values(), self._most, self.gradient_norm)
        for group in self._adam.param_groups:
            group["lr"] = learning_rate(self._stage, self._step)
        self._adam.step()
        self._step += 1
        with torch.no_grad():
            for name, parameter in self._trained.items():
                if self._masters[name] is not parameter:
                    parameter.copy_(self._masters[name])
        if self._ema:
            averaging.update(list(self._average.values()), list(self._followed.values()), self._ema, self._step)
        return loss.detach()

    def weights(self) -> dict[str, Tensor]:
        """Return all parameters by name, fp32 on the CPU: the masters of the trained ones, the frozen unchanged."""
        return {name: _on_cpu(self._masters.get(name, start)) for name, start in self._initial.items()}

    def average(self) -> dict[str, Tensor]:
        """Return the moving average of all parameters by name, fp32 on the CPU; nothing where ``run.ema`` is 0."""
        return {name: _on_cpu(self._average[name]) for name in self._initial} if self._ema else {}

    def moments(self) -> dict[str, Tensor]:
        """Return Adam's moments as ``<moment>.<parameter>``, fp32 on the CPU; the stage must have made a step."""
        return {
            f"{kind}.{name}": _on_cpu(self._adam.state[master][kind])
            for name, master in self._masters.items()
            for kind in MOMENTS
        }


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
