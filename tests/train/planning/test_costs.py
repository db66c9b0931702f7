"""The arithmetic of a training's cost, against sums by hand and against what torch really keeps."""

import dataclasses
from typing import Literal

import pytest
import torch

from mana_dist.model import Mana, ModelConfig
from mana_dist.train.objective import StageObjective
from mana_dist.train.planning.costs import Peak, device_peak, memory, sample_cost, trained_parameters
from mana_dist.train.schedule import Stage

MODEL = ModelConfig(channels=16, encoder_blocks=2, decoder_blocks=3, frames=3, window=5, memory_slots=6)
SOFTMAX, DENSE, NO_MEM = (
    dataclasses.replace(MODEL, attention="softmax_window"),
    dataclasses.replace(MODEL, attention="dense"),
    dataclasses.replace(MODEL, memory_slots=0),
)


def stage(number: int) -> Stage:
    return Stage(number, 0, 1, 1e-4)


def forward_flops(config: ModelConfig, pixels: int) -> int:
    """Operations of a plain forward pass without the one-hot attention, layer by layer: two for each multiply-add."""
    c, inner, slots = config.channels, config.channels // 2, config.memory_slots
    block = 2 * 9 * c * c
    encoder = config.frames * (9 * 3 * c + config.encoder_blocks * block + 2 * c * inner)
    memory = 2 * inner * slots + inner * c if slots else 0
    attentions = c * inner + config.frames * inner * c + memory
    decoder = config.decoder_blocks * block
    upsampler = 9 * c * 4 * c + 4 * 9 * c * 2 * c + 16 * 9 * (inner * inner + inner * 3)
    return 2 * pixels * (encoder + attentions + decoder + upsampler)


@pytest.mark.parametrize("config", [MODEL, ModelConfig(), SOFTMAX, DENSE, NO_MEM])
def test_a_training_step_costs_three_forward_passes(config: ModelConfig) -> None:
    """Backward is twice forward, but for the first layer, whose input needs no gradient."""
    crop = 24
    stem_input = 2 * crop**2 * config.frames * 9 * 3 * config.channels
    cost = sample_cost(config, stage(3), crop, "fp32")
    assert cost.flops == 3 * forward_flops(config, crop**2) - stem_input + attention_flops(config, crop)


def test_the_papers_training_sample() -> None:
    """0.6 TFLOP for a sample of 64x64 (STACK.md), in which the attention is little."""
    assert sample_cost(ModelConfig(), stage(1), 64, "fp32").flops == pytest.approx(0.6e12, rel=0.02)


def test_stage_2_encodes_one_frame_and_trains_the_bank_alone() -> None:
    crop, c, inner, slots = 24, MODEL.channels, MODEL.channels // 2, MODEL.memory_slots
    block = 2 * 9 * c * c
    forward = 9 * 3 * c + MODEL.encoder_blocks * block + c * inner + 2 * inner * slots
    # Backward: the bank's gradient twice, and that of the softmax's output.
    backward = 3 * inner * slots
    assert sample_cost(MODEL, stage(2), crop, "fp32").flops == 2 * crop**2 * (forward + backward)


def pairs_inside(crop: int, reach: int) -> int:
    return sum(
        1
        for y in range(crop)
        for x in range(crop)
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if 0 <= y + dy < crop and 0 <= x + dx < crop
    )


def attention_flops(config: ModelConfig, crop: int) -> int:
    """The cross-frame attention's operations, forward and backward, by hand.

    One-hot: a product for each pair and a scaling of the winner; backward three products and a scaling of the winner.
    Softmax: two products for each pair forward and four backward; and, where torch makes no matrix, one of output and
    gradient.
    """
    pairs = crop**4 if config.attention == "dense" else pairs_inside(crop, config.window // 2)
    pair, pixel = {"one_hot": (2, 8), "softmax_window": (12, 2), "dense": (12, 0)}[config.attention]
    return config.frames * (config.channels // 2) * (pair * pairs + pixel * crop**2)


def kept_for_backward(config: ModelConfig, number: int, crop: int, dtype: torch.dtype) -> int:
    """What a real forward pass on the CPU keeps, by the distinct addresses of the saved tensors' memory."""
    model = Mana(config).to(dtype)
    objective = StageObjective(model, stage(number))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    lr = torch.zeros(1, config.frames, 3, crop, crop, dtype=torch.uint8)
    hr = torch.zeros(1, 3, 4 * crop, 4 * crop, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        objective(lr, hr)
    return sum(size for address, size in found.items() if address not in weights)


@pytest.mark.parametrize("attention", ["one_hot", "softmax_window", "dense"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_activations_are_what_torch_keeps(
    number: int, precision: Literal["fp32", "bf16"], dtype: torch.dtype, attention: str
) -> None:
    config = dataclasses.replace(MODEL, attention=attention)
    expected = kept_for_backward(config, number, 16, dtype)
    # torch's fake kernel of the dense attention keeps its output in another layout, and so a copy of it.
    rel = 0.04 if attention == "dense" else 0.02
    assert sample_cost(config, stage(number), 16, precision).activation_bytes == pytest.approx(expected, rel=rel)


def test_checkpointing_keeps_less_and_costs_the_same_useful_work() -> None:
    """Only the input of a block's two saved tensors stays; the block that is computed again has both besides."""
    deep = ModelConfig(channels=16, encoder_blocks=5, decoder_blocks=20, frames=3, window=5)
    feature = 16 * 16**2 * 4
    plain = sample_cost(deep, stage(1), 16, "fp32")
    checkpointed = sample_cost(deep, stage(1), 16, "fp32", checkpoint_activations=True)
    assert checkpointed.flops == plain.flops
    saved = (5 * 3 + 20) * feature - 2 * 3 * feature
    assert plain.activation_bytes - checkpointed.activation_bytes == saved


def test_memory_of_the_zero_stages() -> None:
    """ZeRO's table (Rajbhandari et al. 2020, figure 1) has 2 + 2 + 12 bytes a parameter in mixed precision.

    Gradients that are summed in fp32 have two bytes more, spread over the workers from stage 2 on.
    """
    count, workers = 7_500_000_000, 64
    more = 2 * count / 1e9
    totals = [memory(count, count, zero, "bf16", workers, 0).total / 1e9 for zero in range(4)]
    expected = [120 + more, 31.4 + more, 16.6 + more / workers, 1.9 + more / workers]
    assert totals == pytest.approx(expected, abs=0.06)


def test_memory_in_fp32_and_of_what_is_frozen() -> None:
    plain = memory(1000, 10, 0, "fp32", 1, 5)
    assert (plain.weights, plain.gradients, plain.optimizer, plain.activations) == (4000, 40, 80, 5)
    assert memory(1000, 10, 1, "fp32", 1, 5).optimizer == 120  # ZeRO updates a copy
    # A moving average of all, and a copy of the frozen ones that it follows.
    assert memory(1000, 10, 1, "fp32", 1, 5, averaged=True).optimizer == 120 + 4 * 1000 + 4 * 990


def test_trained_parameters_by_stage() -> None:
    model = Mana(MODEL)
    assert model.memory is not None
    of_memory = sum(p.numel() for p in model.memory.parameters())
    everything = sum(p.numel() for p in model.parameters())
    assert [trained_parameters(MODEL, stage(number)) for number in (1, 2, 3)] == [
        everything - of_memory,
        model.memory.bank.numel(),
        everything,
    ]


def test_a_cpus_peak_is_measured_and_said_to_be() -> None:
    peak = device_peak(torch.device("cpu"), "fp32")
    assert 1e9 < peak.flops < 1e14
    assert "measured here" in str(peak)


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", "989 TFLOP/s (data sheet)"),
        ("NVIDIA H100 PCIe", "bf16", "756 TFLOP/s (data sheet)"),
        ("NVIDIA A100-SXM4-80GB", "fp32", "156 TFLOP/s (data sheet, TF32)"),
        ("NVIDIA L40S", "bf16", "362 TFLOP/s (data sheet)"),
    ],
)
def test_gpus_with_a_data_sheet(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: Literal["fp32", "bf16"], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert str(device_peak(torch.device("cuda"), precision)) == expected


def test_a_peak_in_words() -> None:
    assert str(Peak(6.5e10, "here")) == "0.065 TFLOP/s (here)"
