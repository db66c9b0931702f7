"""The costs of a training by arithmetic: floating-point operations, memory for activations, and a device's peak.

Operations are counted by torch's FlopCounterMode over one training step on fake tensors, which allocate and compute
nothing; the attentions of :mod:`mana_dist.ops` bring their own formulas to that counter.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.precision import Precision
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import Stage

# Dense bf16 TFLOP/s from the makers' data sheets; the first entry contained in a device's name counts. TF32, in which
# torch computes fp32 convolutions, has half of it.
_DATA_SHEETS = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
)


@dataclass(frozen=True)
class SampleCost:
    """One sample's share of a training step.

    Attributes:
        flops: floating-point operations of convolutions, matrix products and attention, forward and backward; two for
            each multiply-add, and recomputed activations not counted.
        activation_bytes: what the forward pass keeps for the backward pass.
    """

    flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Peak:
    """The peak rate of a device.

    Attributes:
        flops: floating-point operations a second.
        source: origin of the figure.
    """

    flops: float
    source: str

    def __str__(self) -> str:
        return f"{self.flops / 1e12:.3g} TFLOP/s ({self.source})"


def sample_cost(
    model_config: ModelConfig, stage: Stage, crop: int, precision: Precision, *, checkpoint_activations: bool = False
) -> SampleCost:
    """Return the cost of training a sample of ``crop`` x ``crop`` LR pixels in a stage."""
    storages: dict[int, torch.UntypedStorage] = {}  # saved for the backward pass, views of one storage counted once

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            storages[id(storage)] = storage  # kept, so that no other takes its place in memory
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss(model_config, stage, crop, precision, checkpoint_activations)
    kept = sum(storage.nbytes() for storage in storages.values())
    if checkpoint_activations and not stage.trains_memory_only:
        # Checkpointed blocks keep their inputs; while one is computed again, it has two tensors more.
        element = 2 if precision == "bf16" else 4
        with torch.device("meta"):
            all_encoded = model_config.encoder_blocks and Mana(model_config).attention.encodes_neighbours
        images = model_config.frames if all_encoded else 1
        kept += 2 * images * model_config.channels * crop**2 * element
    # torch's formulas for its fused attentions count the scores again that their backward pass computes again.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        _loss(model_config, stage, crop, precision, checkpoint_activations=False).backward()
    return SampleCost(counter.get_total_flops(), kept)


def _loss(
    model_config: ModelConfig, stage: Stage, crop: int, precision: Precision, checkpoint_activations: bool
) -> Tensor:
    with FakeTensorMode():
        model = Mana(model_config)
        for parameter in model.parameters():  # Module.to would swap tensors, which fake ones refuse
            parameter.data = parameter.data.to(torch.bfloat16 if precision == "bf16" else torch.float32)
        model.checkpoint_activations = checkpoint_activations
        lr = torch.empty(1, model_config.frames, 3, crop, crop, dtype=torch.uint8)
        hr = torch.empty(1, 3, model_config.scale * crop, model_config.scale * crop, dtype=torch.uint8)
        loss: Tensor = StageObjective(model, stage)(lr, hr)
    return loss


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: weights in the precision of the computation.
        gradients: gradients of the trained parameters.
        optimizer: Adam's moments, fp32 master copies where they are not the weights themselves, and the moving average.
        activations: what one forward pass keeps for the backward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum; buffers for communication and the allocator's waste come on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory(
    parameters: int,
    trained: int,
    zero_stage: int,
    precision: Precision,
    workers: int,
    activation_bytes: int,
    *,
    averaged: bool = False,
) -> Memory:
    """Return the memory that a device needs, as DeepSpeed lays it out.

    Stage 1 spreads the optimizer over the workers, 2 the gradients too, 3 the weights too.

    Args:
        parameters: number of the network's parameters.
        trained: number of those that the stage trains.
        zero_stage: DeepSpeed ZeRO stage.
        precision: precision of the weights; gradients are summed in fp32, and the optimizer is fp32, always.
        workers: number of workers that ZeRO spreads over.
        activation_bytes: activations of one pass on one worker.
        averaged: whether there is a moving average of the weights.
    """
    element = 2 if precision == "bf16" else 4
    # fp32 without ZeRO updates the weights themselves; all else has fp32 copies to update.
    states = 2 if precision == "fp32" and zero_stage == 0 else 3

    def share(size: int, least_stage: int) -> int:
        return -(-size // workers) if zero_stage >= least_stage else size

    return Memory(
        weights=share(element * parameters, 3),
        gradients=share(4 * trained, 2),
        # Of what is frozen, the average needs an fp32 copy to follow, on every worker.
        optimizer=share(4 * (states + averaged) * trained, 1) + 8 * (parameters - trained) * averaged,
        activations=activation_bytes,
    )


def trained_parameters(model_config: ModelConfig, stage: Stage) -> int:
    """Return the number of parameters that a stage trains."""
    with torch.device("meta"):
        model = Mana(model_config)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if stage.trains(name))


def device_peak(device: torch.device, precision: Precision) -> Peak:
    """Return the device's peak at a precision: from its data sheet if listed here, else by timing a matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for model, tflops in _DATA_SHEETS:
            if model in name:
                flops = tflops * 1e12 if precision == "bf16" else tflops * 0.5e12
                return Peak(flops, "data sheet" if precision == "bf16" else "data sheet, TF32")
    return Peak(_measured(device, precision), "a matrix product measured here")


def _measured(device: torch.device, precision: Precision, seconds: float = 0.15) -> float:
    """Return the rate of the fastest of several matrix products, FLOP/s."""
    # On CPUs a product takes milliseconds, so that some run undisturbed by other work of the machine.
    side = 8192 if device.type == "cuda" else 512
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones((side, side), device=device, dtype=dtype)
    b = torch.ones_like(a)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        _synchronise(device)
        before = time.perf_counter()
        torch.mm(a, b)
        _synchronise(device)
        best = min(best, time.perf_counter() - before)
    return 2 * side**3 / best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
