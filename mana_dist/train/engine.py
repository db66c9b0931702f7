"""One stage's DeepSpeed engine, with its whole state in and out as plain fp32 tensors.

State enters and leaves by parameter name and in full, whatever the ZeRO stage, the number of workers or the precision,
so that a checkpoint written under one setting continues under any other.
"""

import contextlib
import functools
import logging
import sys
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mana_dist.config import RunConfig
from mana_dist.data.feed import Batch
from mana_dist.model import Mana, ModelConfig
from mana_dist.train import averaging
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import ADAM_BETAS, Stage, learning_rate

MOMENTS = ("exp_avg", "exp_avg_sq")


class StageEngine:
    """Trains one stage: a fresh Adam and a fresh engine (DeepSpeed ignores later changes of what is trained).

    All methods are collective: every worker calls them, in the same order.

    Args:
        model_config: the network.
        run: ZeRO stage, precision, micro batch, clipping and moving average.
        stage: what to train.
        weights: all parameters by name, fp32.
        moments: Adam's moments as :meth:`moments` gives them; empty at a stage's start.
        step: the global step that comes next.
        device: where to train.
        average: the moving average as :meth:`average` gives it; it begins with the weights where it is left out.

    Attributes:
        gradient_norm: L2 norm of the global batch's gradient over all trained parameters in the last step, before
            clipping; a scalar on the device, the same on all workers. Where it is not finite, DeepSpeed may skip the
            step.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        run: RunConfig,
        stage: Stage,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        step: int,
        device: torch.device,
        average: Mapping[str, Tensor] | None = None,
    ) -> None:
        deepspeed = _import_deepspeed()
        self._fragments = deepspeed.utils
        self._initial = weights
        self._stage = stage
        self._step = step
        self._device = device
        self._micro_batch = run.micro_batch
        # Without ZeRO, sums, norm and clipping are torch's: DeepSpeed would make them of gradients rounded to bf16.
        self._plain = run.zero_stage == 0
        self._most = run.clip_gradients
        self.gradient_norm = torch.zeros((), device=device)
        model = Mana(model_config)
        model.load_state_dict(weights)
        model.checkpoint_activations = run.checkpoint_activations
        if run.compile:
            for part in (model.encoder, model.decoder, model.upsampler):
                part.compile()
        objective = StageObjective(model, stage).to(device)
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.Adam(self._trained.values(), lr=stage.lr, betas=ADAM_BETAS)
        self._engine, *_ = deepspeed.initialize(
            model=objective,
            optimizer=optimizer,
            model_parameters=list(self._trained.values()),
            config=_deepspeed_config(run),
        )
        if self._plain:
            for parameter in self._trained.values():
                parameter.grad_dtype = torch.float32
        self._masters = self._find_masters(run)
        # Without ZeRO, DeepSpeed's bf16 optimizer makes Adam's state by an empty step, which Adam then counts.
        self._adam.state.clear()
        self._ema = run.ema
        self._frozen: list[Tensor] = []
        self._averages: list[Tensor] = []
        if run.ema:
            self._frozen = [tensor.to(device) for name, tensor in weights.items() if name not in self._trained]
            self._averages = self._averages_of(average or weights)
        if run.arithmetic == "bf16" or run.ema:
            # DeepSpeed makes the fp32 masters of weights that it has rounded already.
            self._set_masters(weights)
        if moments:
            self._restore(moments, step - stage.start)

    def step(self, batch: Batch, batch_size: int) -> Tensor:
        """Make one optimizer step, in as many forward and backward passes as ``run.micro_batch`` needs.

        Args:
            batch: this worker's share of the global batch; workers' shares differ by one sample at most.
            batch_size: samples of the global batch.

        Returns:
            This worker's part of the global batch's mean loss (the parts sum to it), a scalar on the device.
        """
        size = len(batch.lr)
        share = size / batch_size
        parts = micro_batches(size, batch_size, dist.get_world_size(), self._micro_batch)
        total = torch.zeros((), device=self._device)
        for number, part in enumerate(parts):
            self._engine.set_gradient_accumulation_boundary(number == len(parts) - 1)
            # ZeRO communicates in every pass, so all workers make equally many; one without samples left computes its
            # first one again, with weight 0.
            rows = part or range(1)
            chosen = slice(rows.start, rows.stop)
            loss = self._engine(batch.lr[chosen].to(self._device), batch.hr[chosen].to(self._device))
            loss = loss * (share * (len(part) / size))
            # DeepSpeed averages gradients over workers; the parts must be summed.
            self._engine.backward(loss * dist.get_world_size())
            total += loss.detach()
        norm = self._clip() if self._plain else None
        for group in self._adam.param_groups:
            group["lr"] = learning_rate(self._stage, self._step)
        self._engine.step()
        self._step += 1
        if self._ema:
            averaging.update(self._averages, [*self._partitions(), *self._frozen], self._ema, self._step)
        if norm is None:
            norm = torch.as_tensor(self._engine.get_global_grad_norm())
        self.gradient_norm = norm.detach().to(self._device, torch.float32)
        return total

    def _clip(self) -> Tensor:
        """Clip the gradients that the next step takes, and return their norm before that."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._trained.values() if p.grad is not None])
        if self._most:
            torch.nn.utils.clip_grads_with_norm_(self._trained.values(), self._most, norm)
        return norm

    def weights(self) -> dict[str, Tensor]:
        """Return all parameters by name, fp32 on the CPU: master copies of the trained ones, the frozen unchanged."""
        full = {name: tensor.detach().cpu() for name, tensor in self._initial.items()}
        for name, parameter in self._trained.items():
            if self._masters:
                value = self._masters[name].detach()
            else:
                value = self._fragments.safe_get_full_fp32_param(parameter)
            full[name] = _on_cpu(value)
        return full

    @torch.no_grad()
    def average(self) -> dict[str, Tensor]:
        """Return the moving average of all parameters by name, fp32 on the CPU; nothing where ``run.ema`` is 0."""
        if not self._ema:
            return {}
        partitions = self._partitions()
        weights = [partition.clone() for partition in partitions]
        # Let the masters be the average for as long as they are read.
        torch._foreach_copy_(partitions, self._averages[: len(partitions)])
        full = self.weights()
        torch._foreach_copy_(partitions, weights)
        frozen = (name for name in self._initial if name not in self._trained)
        averages = map(_on_cpu, self._averages[len(partitions) :])
        return full | dict(zip(frozen, averages, strict=True))

    def moments(self) -> dict[str, Tensor]:
        """Return Adam's moments as ``<moment>.<parameter>``, fp32 on the CPU; the stage must have made a step."""
        moments = {}
        for name, parameter in self._trained.items():
            for moment in MOMENTS:
                if self._masters:
                    value = self._adam.state[self._masters[name]][moment]
                else:
                    value = self._fragments.safe_get_full_optimizer_state(parameter, moment)
                moments[f"{moment}.{name}"] = _on_cpu(value)
        return moments

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.destroy()

    def _find_masters(self, run: RunConfig) -> dict[str, Tensor] | None:
        """Return the fp32 tensors that Adam updates, by parameter; None where ZeRO has cut them into partitions."""
        if run.zero_stage > 0:
            return None
        if run.arithmetic == "fp32":
            return dict(self._trained)
        wrapped = self._engine.optimizer
        rounded = [p for group in wrapped.fp16_groups for p in group]  # the name is historical: bf16 here
        masters = [p for group in wrapped.fp32_groups for p in group]
        master_of = {id(low): high for low, high in zip(rounded, masters, strict=True)}
        return {name: master_of[id(parameter)] for name, parameter in self._trained.items()}

    @property
    def _adam(self) -> torch.optim.Optimizer:
        """The Adam inside DeepSpeed's wrappers."""
        wrapped = self._engine.optimizer
        return wrapped if isinstance(wrapped, torch.optim.Adam) else wrapped.optimizer

    def _set_masters(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained.items():
            self._set_master(name, parameter, values[name].to(self._device))

    def _averages_of(self, average: Mapping[str, Tensor]) -> list[Tensor]:
        """Return an average as the tensors that steps update: as Adam has the trained ones, then the frozen ones."""
        self._set_masters(average)
        frozen = [average[name] for name in self._initial if name not in self._trained]
        return [
            *(partition.detach().clone() for partition in self._partitions()),
            *(tensor.to(self._device, copy=True) for tensor in frozen),
        ]

    def _partitions(self) -> list[Tensor]:
        """Return the fp32 tensors that this worker's Adam updates."""
        if self._masters:
            return list(self._masters.values())
        wrapped = self._engine.optimizer
        if hasattr(wrapped, "fp32_partitioned_groups_flat"):  # ZeRO 3
            return list(wrapped.fp32_partitioned_groups_flat)
        return [p for group in self._adam.param_groups for p in group["params"]]

    def _set_master(self, name: str, parameter: nn.Parameter, value: Tensor) -> None:
        if self._masters:
            self._masters[name].data.copy_(value)
        elif hasattr(parameter, "ds_id"):
            self._fragments.safe_set_local_fp32_param(parameter, _zero3_partition(value))
        else:
            self._fragments.safe_set_full_fp32_param(parameter, value)

    def _restore(self, moments: Mapping[str, Tensor], steps_done: int) -> None:
        wrapped = self._engine.optimizer
        for partition in self._partitions():
            # Adam makes its state at the first step; the moments need it now.
            self._adam.state[partition] = {
                "step": torch.tensor(float(steps_done)),
                **{moment: torch.zeros_like(partition) for moment in MOMENTS},
            }
        if hasattr(wrapped, "_lazy_init_hp_params_optimizer_state"):
            wrapped._lazy_init_hp_params_optimizer_state()
        for name, parameter in self._trained.items():
            for moment in MOMENTS:
                value = moments[f"{moment}.{name}"].to(self._device)
                if self._masters:
                    self._adam.state[self._masters[name]][moment].copy_(value)
                elif hasattr(parameter, "ds_id"):
                    self._fragments.safe_set_local_optimizer_state(parameter, _zero3_partition(value), moment)
                else:
                    self._fragments.safe_set_full_optimizer_state(parameter, value, moment)


def micro_batches(share: int, batch_size: int, world_size: int, most: int) -> list[range]:
    """Cut a worker's share of a batch into passes, as many as every other worker makes, near-equal in size.

    Args:
        share: samples of this worker: ``batch_size / world_size`` rounded down or up.
        batch_size: samples of all workers.
        world_size: number of workers.
        most: samples to a pass; 0 for the whole share at once.

    Returns:
        The samples of each pass, in order. The last may be empty, where another worker has one sample more.
    """
    largest_share = -(-batch_size // world_size)
    passes = -(-largest_share // most) if most else 1
    # Cut as the largest share is, so that no pass is larger than there.
    bounds = [min(largest_share * number // passes, share) for number in range(passes + 1)]
    return [range(bounds[number], bounds[number + 1]) for number in range(passes)]


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.cpu().clone(memory_format=torch.contiguous_format)


def _zero3_partition(value: Tensor) -> Tensor:
    """Return this rank's piece of a tensor under ZeRO 3.

    DeepSpeed's own setter of whole tensors fails where the workers do not divide the number of elements.
    """
    world_size = dist.get_world_size()
    length = -(-value.numel() // world_size)
    padded = F.pad(value.flatten(), (0, length * world_size - value.numel()))
    return padded.narrow(0, dist.get_rank() * length, length)


def _deepspeed_config(run: RunConfig) -> dict[str, Any]:
    """Return DeepSpeed's settings. Whatever the precision, gradients are summed in fp32, over passes and workers."""
    zero = {"data_types": {"grad_accum_dtype": "fp32"}, "gradient_clipping": run.clip_gradients}
    return (zero if run.zero_stage else {}) | {
        # Only DeepSpeed's own bookkeeping (samples/s) reads it: shares may differ by a sample between workers.
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": run.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": run.arithmetic == "bf16"},
        "communication_data_type": "fp32",
        "steps_per_print": 2**62,
    }


@functools.cache
def _import_deepspeed() -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed's autotuner imports MLflow where there is one, which takes longer than all the rest of DeepSpeed.
    needless = "mlflow" not in sys.modules
    if needless:
        sys.modules["mlflow"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        import deepspeed  # takes seconds, and needs no import to describe a stage
        import deepspeed.ops
        from deepspeed.runtime import bf16_optimizer, compiler
    finally:
        if needless:
            del sys.modules["mlflow"]
    # ZeRO imports Muon to see that Adam is another optimizer, and Muon's import starts torch's compiler, for seconds.
    # Not compiled, it would still work.
    compile_, compiler.compile = compiler.compile, lambda *_, **__: lambda function: function
    try:
        with contextlib.suppress(ImportError):
            import deepspeed.runtime.zero.muon.original_muon
    finally:
        compiler.compile = compile_

    # DeepSpeed would compile its shared-memory reduction for 40 s at first use on CPU; gloo does not need it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # It would print the memory in use, always, and collect garbage several times before, for a second in all.
    bf16_optimizer.see_memory_usage = lambda *_, **__: None
    return deepspeed
