"""The network against a literal reimplementation of the paper's equations in double precision."""

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.alignment import KINDS, CrossFrameAttention
from mana_dist.model.mana import MemoryAttention, parameter_count
from tests.ops.definitions import softmax_literal

SMALL = ModelConfig(channels=6, encoder_blocks=1, decoder_blocks=2, frames=3, window=3, memory_slots=5)
ATTENTIONS = tuple(KINDS)
ALIKE = ("one_hot", "softmax_window", "dense")  # with the same parameters


def random_model(config: ModelConfig) -> Mana:
    """All parameters random, the zero-initialised ones too, in double precision."""
    generator = torch.Generator().manual_seed(0)
    model = Mana(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


class Literal:
    """Each layer by its definition: loops over pixels, taps and channels; weights looked up by name."""

    def __init__(self, model: Mana) -> None:
        self.config = model.config
        self.weights: dict[str, Tensor] = dict(model.named_parameters())

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        side = weight.shape[-1]
        reach = side // 2
        height, width = x.shape[1:]
        rows = []
        for y in range(height):
            for col in range(width):
                total = bias
                for dy in range(-reach, reach + 1):
                    for dx in range(-reach, reach + 1):
                        if 0 <= y + dy < height and 0 <= col + dx < width:
                            total = total + weight[:, :, dy + reach, dx + reach] @ x[:, y + dy, col + dx]
                rows.append(total)
        return torch.stack(rows, 1).view(-1, height, width)

    def block(self, x: Tensor, name: str) -> Tensor:
        return x + self.conv(self.conv(x, f"{name}.conv1").clamp(min=0), f"{name}.conv2")

    def encode(self, frame: Tensor) -> Tensor:
        x = leaky(self.conv(frame, "stem"))
        for index in range(self.config.encoder_blocks):
            x = self.block(x, f"encoder.{index}")
        return x

    def normalise(self, x: Tensor) -> Tensor:
        # 32 groups, or the largest divisor of C below that: for C < 33 every channel is its own group.
        groups = next(g for g in range(32, 0, -1) if x.shape[0] % g == 0)
        split = x.reshape(groups, -1)
        mean = split.mean(1, keepdim=True)
        variance = ((split - mean) ** 2).mean(1, keepdim=True)
        scaled = ((split - mean) / torch.sqrt(variance + 1e-5)).view(x.shape)
        return (
            scaled * self.weights["attention.norm.weight"][:, None, None]
            + self.weights["attention.norm.bias"][:, None, None]
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.config.attention == "one_hot":
            return self.one_hot(query, key, value)
        window = None if self.config.attention == "dense" else self.config.window
        return softmax_literal(query[None], key[None, None], value[None, None], window)[0, 0]

    def one_hot(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        _, height, width = query.shape
        reach = self.config.window // 2
        picked = []
        for y in range(height):
            for x in range(width):
                inside = [
                    (y + dy, x + dx)
                    for dy in range(-reach, reach + 1)
                    for dx in range(-reach, reach + 1)
                    if 0 <= y + dy < height and 0 <= x + dx < width
                ]
                scores = [query[:, y, x] @ key[:, i, j] for i, j in inside]
                best = max(range(len(scores)), key=lambda n: scores[n].item())
                picked.append(scores[best] * value[:, inside[best][0], inside[best][1]])
        return torch.stack(picked, 1).view(-1, height, width)

    def read_memory(self, query: Tensor) -> Tensor:
        bank = self.weights["memory.bank"]
        _, height, width = query.shape
        out = []
        for y in range(height):
            for x in range(width):
                scores = torch.exp(query[:, y, x] @ bank)
                out.append((scores / scores.sum()) @ bank.T)
        return torch.stack(out, 1).view(-1, height, width)

    def shuffle(self, x: Tensor, side: int) -> Tensor:
        channels, height, width = x.shape[0] // side**2, x.shape[1], x.shape[2]
        out = x.new_zeros(channels, side * height, side * width)
        for i in range(side):
            for j in range(side):
                out[:, i::side, j::side] = x[side * i + j :: side**2]
        return out

    def bilinear(self, frame: Tensor) -> Tensor:
        (_, height, width), scale = frame.shape, self.config.scale
        out = []
        for y in range(scale * height):
            for x in range(scale * width):
                sy = min(max((y + 0.5) / scale - 0.5, 0), height - 1)
                sx = min(max((x + 0.5) / scale - 0.5, 0), width - 1)
                y0, x0 = math.floor(sy), math.floor(sx)
                y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
                fy, fx = sy - y0, sx - x0
                top = (1 - fx) * frame[:, y0, x0] + fx * frame[:, y0, x1]
                bottom = (1 - fx) * frame[:, y1, x0] + fx * frame[:, y1, x1]
                out.append((1 - fy) * top + fy * bottom)
        return torch.stack(out, 1).view(3, scale * height, scale * width)

    def __call__(self, frames: Tensor) -> Tensor:
        features = [self.encode(frame) for frame in frames]
        middle = self.config.frames // 2
        query = self.conv(self.normalise(features[middle]), "attention.to_query")
        matched = []
        for feature in features:
            normalised = self.normalise(feature)
            key, value = self.conv(normalised, "attention.to_key"), self.conv(normalised, "attention.to_value")
            matched.append(self.attend(query, key, value))
        x = features[middle] + self.conv(torch.cat(matched), "attention.project")
        if self.config.memory_slots:
            x = x + self.conv(self.read_memory(query), "memory.project")
        for index in range(self.config.decoder_blocks):
            x = self.block(x, f"decoder.{index}")
        if self.config.scale == 4:
            x = leaky(self.shuffle(self.conv(x, "upsampler.expand1"), 2))
        x = leaky(self.shuffle(self.conv(x, "upsampler.expand2"), 3 if self.config.scale == 3 else 2))
        x = leaky(self.conv(x, "upsampler.refine"))
        return self.bilinear(frames[middle]) + self.conv(x, "upsampler.to_rgb")


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


@pytest.mark.parametrize(
    ("attention", "slots", "scale"),
    [*((attention, slots, 4) for attention in ALIKE for slots in (5, 0)), ("one_hot", 5, 2), ("one_hot", 0, 3)],
)
def test_output_and_gradients_equal_the_literal_network(attention: str, slots: int, scale: int) -> None:
    config = dataclasses.replace(SMALL, memory_slots=slots, attention=attention, scale=scale)
    model = random_model(config)
    frames = torch.rand(1, 3, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    frames.requires_grad_()
    inputs = [frames, *model.parameters()]

    expected = Literal(model)(frames[0])
    expected_grads = torch.autograd.grad(expected.square().sum(), inputs)
    output = model(frames)
    grads = torch.autograd.grad(output.square().sum(), inputs)

    torch.testing.assert_close(output[0], expected, rtol=1e-10, atol=1e-10)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        # Of a softmax, the gradient of the key's bias is zero but for rounding.
        largest = max(float(expected_grad.abs().max()), 0.1)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-8, atol=1e-8 * largest)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("way", ["bf16 weights, as in training", "autocast, as in inference"])
def test_the_memory_is_read_in_fp32_in_every_precision(way: str, sharpness: float) -> None:
    """Against equation 3 in fp64, of the same rounded inputs; in bf16, Y was 0.6 to 1.9 % apart."""
    generator = torch.Generator().manual_seed(0)
    query = (torch.randn(2, 64, 12, 10, generator=generator) * sharpness).bfloat16()
    memory = MemoryAttention(ModelConfig())
    with torch.no_grad():
        memory.bank.copy_(torch.randn(memory.bank.shape, generator=generator))
    if way.startswith("bf16"):
        memory.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=way.startswith("autocast")):
        reading = memory.read(query)
        assert memory(query).dtype == torch.bfloat16  # projected as all else is
    bank = memory.bank.detach().double().requires_grad_()
    logits = torch.einsum("bchw,cn->bhwn", query.double(), bank)
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    expected = torch.einsum("bhwn,cn->bchw", weights / weights.sum(-1, keepdim=True), bank)
    assert (reading - expected).norm() < 1e-5 * expected.norm()
    target = torch.randn(expected.shape, generator=generator).double()
    (reading * target).sum().backward()
    (expected * target).sum().backward()
    # The gradient is bf16 where the weights are: rounded once, so by 2^-9 at most.
    assert memory.bank.grad is not None
    assert bank.grad is not None
    assert (memory.bank.grad - bank.grad).norm() < 2**-9 * bank.grad.norm()


def test_memory_reading_equals_equation_3() -> None:
    model = random_model(SMALL)
    frame = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    literal = Literal(model)
    expected = literal.conv(literal.normalise(literal.encode(frame[0])), "attention.to_query")
    reading, query = model.memory_reading(frame)
    torch.testing.assert_close(query[0], expected)
    torch.testing.assert_close(reading[0], literal.read_memory(expected))


@pytest.mark.parametrize("attention", ALIKE)
def test_paper_settings_have_14_3_million_parameters(attention: str) -> None:
    # By hand: stem 3,584; encoder 1,475,840; norm and QKV 25,024; projections 57,472 + 8,320; bank 16,384;
    # decoder 11,806,720; upsampler 590,336 + 295,168 + 36,928 + 1,731.
    assert parameter_count(ModelConfig(attention=attention)) == 14_317_507


def test_all_attentions_start_from_the_same_weights() -> None:
    """So that trainings which differ in it alone can be compared, and weights carried from one to the other."""
    states = []
    for attention in ALIKE:
        torch.manual_seed(0)
        states.append(Mana(dataclasses.replace(SMALL, attention=attention)).state_dict())
    for state in states:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(tensor, states[0][name]) for name, tensor in state.items())


def test_starts_as_if_without_attention() -> None:
    """Both projections start at zero (paper section 3.4)."""
    model = Mana(SMALL)
    frames = torch.rand(1, 3, 3, 6, 6)
    before = model(frames)
    with torch.no_grad():
        assert isinstance(model.attention, CrossFrameAttention)
        for layer in (model.attention.to_query, model.attention.to_key, model.attention.to_value):
            layer.weight.normal_()
        assert model.memory is not None
        model.memory.bank.normal_()
    assert torch.equal(model(frames), before)


def test_other_weights_start_the_same_whatever_the_memory() -> None:
    """So that a sweep over N can share stage 1."""
    torch.manual_seed(0)
    with_memory = Mana(ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, memory_slots=16)).state_dict()
    torch.manual_seed(0)
    without = Mana(ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, memory_slots=0)).state_dict()
    assert all(torch.equal(with_memory[name], tensor) for name, tensor in without.items())


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (2, 17)])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_any_size_and_any_odd_number_of_frames(height: int, width: int, frames: int, attention: str) -> None:
    small = ModelConfig(channels=4, encoder_blocks=1, decoder_blocks=1, window=5, memory_slots=3)
    model = Mana(dataclasses.replace(small, frames=frames, attention=attention))
    for batch in (1, 2):
        assert model(torch.rand(batch, frames, 3, height, width)).shape == (batch, 3, 4 * height, 4 * width)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_embeddings_computed_once_give_the_same_frame(attention: str) -> None:
    model = random_model(dataclasses.replace(SMALL, attention=attention))
    frames = torch.rand(2, 3, 3, 5, 4, dtype=torch.float64)
    each = [model.embed(frames[:, t]) for t in range(3)]
    keys, values = torch.stack([e.key for e in each], 1), torch.stack([e.value for e in each], 1)
    torch.testing.assert_close(model.reconstruct(frames[:, 1], each[1].feature, keys, values), model(frames))


def test_checkpointed_activations_give_the_same_gradients() -> None:
    model = random_model(SMALL)
    frames = torch.rand(1, 3, 3, 5, 4, dtype=torch.float64)
    grads = []
    for flag in (False, True):
        model.checkpoint_activations = flag
        grads.append(torch.autograd.grad(model(frames).square().sum(), list(model.parameters())))
    for plain, checkpointed in zip(*grads, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_bf16_is_near_fp32(attention: str) -> None:
    torch.manual_seed(0)
    model = Mana(dataclasses.replace(SMALL, attention=attention))
    with torch.no_grad():
        if attention != "none":
            torch.nn.init.normal_(model.attention.project.weight, std=0.1)
        frames = torch.rand(1, 3, 3, 8, 9)
        exact = model(frames)
        assert (model.bfloat16()(frames) - exact).abs().max() < 0.02


def test_bf16_keeps_all_256_levels_of_the_upsampled_frame() -> None:
    model = Mana(SMALL)
    with torch.no_grad():
        model.upsampler.to_rgb.weight.zero_()
        model.upsampler.to_rgb.bias.zero_()  # type: ignore[union-attr]
    levels = torch.arange(256.0).view(1, 1, 1, 16, 16).expand(1, 3, 3, -1, -1) / 255
    assert torch.equal(model.bfloat16()(levels), model.float()(levels))


@pytest.mark.parametrize("shape", [(1, 5, 3, 4, 4), (1, 3, 1, 4, 4), (3, 3, 4, 4)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"frames must be \(B, 3, 3, H, W\)"):
        Mana(SMALL)(torch.rand(shape))


@pytest.mark.parametrize(
    "setting",
    [{"window": 8}, {"frames": 4}, {"channels": 7}, {"scale": 5}, {"memory_slots": -1}, {"encoder_blocks": -1}],
)
def test_settings_that_make_no_network_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        ModelConfig(**setting)


def test_an_unknown_attention_is_refused_and_the_nearest_named() -> None:
    named = "one of one_hot, softmax_window, dense.*, got softmax; did you mean softmax_window"
    with pytest.raises(ValueError, match=named):
        ModelConfig(attention="softmax")


def test_imports_torch_alone() -> None:
    """The model runs on any GPU box and inside any serving stack."""
    banned = ["ray", "deepspeed", "mlflow", "pyarrow", "av", "smart_open", "lpips", "jsonargparse", "yaml", "cv2"]
    script = f"import sys, mana_dist.model, mana_dist.ops; print([m for m in {banned} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
