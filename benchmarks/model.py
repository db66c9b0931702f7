"""The whole network: against the authors' arithmetic, in training, and on frames of a video. Torch alone."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.networks import NETWORKS, TOY
from benchmarks.plain_training import PlainStage
from benchmarks.released import ReleasedMana
from benchmarks.report import Row
from benchmarks.timing import timed
from benchmarks.turns import Way, in_turns
from mana_dist.config import Config, RunConfig
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.mana import initial_weights
from mana_dist.model.precision import Precision
from mana_dist.train.schedule import Stage

STAGE = Stage(1, 0, 1_000_000, 1e-4)


def paper_rows(small: bool) -> Iterator[Row]:
    """Forward and training step on one window of 64x64 against the authors' arithmetic."""
    config, crop = (TOY, 8) if small else (NETWORKS["paper"], 64)
    for what, make, rounds in (("forward", make_forward, 5), ("training step", make_step, 3)):
        ready = functools.partial(make, config=config, size=1, crop=crop)
        theirs = "the authors' arithmetic, fp32"
        ways = {
            theirs: Way(functools.partial(ready, precision="fp32", network=ReleasedMana), keeps_memory=False),
            "fp32": Way(functools.partial(ready, precision="fp32")),
            "bf16": Way(functools.partial(ready, precision="bf16")),
        }
        seconds = in_turns(ways, rounds=1 if small else rounds)
        for name, taken in seconds.items():
            yield Row(f"{what}, {name}", taken * 1e3, "ms", seconds[theirs] / taken, theirs)


def training_rows(small: bool) -> Iterator[Row]:
    """Samples a second of two networks, as before bf16 and kept memory and as now; batches of 8 crops of 32x32."""
    networks = {"toy": TOY} if small else {name: NETWORKS[name] for name in ("tiny", "small")}
    size, crop = (2, 8) if small else (8, 32)
    for network, config in networks.items():
        ready = functools.partial(make_step, config=config, size=size, crop=crop)
        before = "fp32, freed memory given back"
        ways = {
            before: Way(functools.partial(ready, precision="fp32"), keeps_memory=False),
            "fp32": Way(functools.partial(ready, precision="fp32")),
            "bf16": Way(functools.partial(ready, precision="bf16")),
        }
        seconds = in_turns(ways, rounds=1 if small else 4)
        parameters = sum(weights.numel() for weights in initial_weights(config, 0).values())
        for name, taken in seconds.items():
            label = f"{network} ({parameters:,} parameters), {name}"
            yield Row(label, size / taken, "samples/s", seconds[before] / taken, before)


def frame_rows(small: bool) -> Iterator[Row]:
    """A frame of a video at 960x540 by the paper's network, fp32: each frame encoded once, or each window anew."""
    config, height, width = (TOY, 8, 8) if small else (NETWORKS["paper"], 135, 240)
    model = Mana(config).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    stream, slide = frame_calls(model, torch.rand(1, config.frames, 3, height, width))
    plain, streamed = (timed(call, "cpu", least_runs=2, budget=1, warm_up=1).seconds for call in (slide, stream))
    yield Row("sliding window", plain * 1e3, "ms")
    yield Row("streaming", streamed * 1e3, "ms", plain / streamed, "sliding window")


def make_forward(
    config: ModelConfig, size: int, crop: int, precision: Precision, network: type[Mana] = Mana
) -> Callable[[], Tensor]:
    """Prepare a forward pass, ours as :mod:`mana_dist.model.inference` does it."""
    model = network(config).eval()
    if network is Mana:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frames = torch.rand(size, config.frames, 3, crop, crop)

    def forward() -> Tensor:
        rounded = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        with torch.inference_mode(), rounded:
            output: Tensor = model(frames)
        return output

    return forward


def make_step(
    config: ModelConfig, size: int, crop: int, precision: Precision, network: type[Mana] = Mana
) -> Callable[[], Tensor]:
    """Prepare a training step: in bf16 with fp32 masters."""
    run = RunConfig(precision=precision)
    stage = PlainStage(
        Config(model=config, run=run), STAGE, initial_weights(config, 0), {}, 0, torch.device("cpu"), network
    )
    return functools.partial(stage.step, *noise_batch(config, size, crop))


def noise_batch(config: ModelConfig, size: int, crop: int) -> tuple[Tensor, Tensor]:
    """Make a batch, (B, T, 3, h, w) and (B, 3, 4h, 4w) uint8."""
    generator = torch.Generator().manual_seed(0)
    lr = torch.randint(0, 256, (size, config.frames, 3, crop, crop), dtype=torch.uint8, generator=generator)
    hr = torch.randint(0, 256, (size, 3, 4 * crop, 4 * crop), dtype=torch.uint8, generator=generator)
    return lr, hr


def frame_calls(model: Mana, video: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Prepare one more frame of ``video``, (1, T, 3, h, w): embed the newest and reconstruct; the whole window anew."""
    size = model.config.frames
    with torch.no_grad():
        held = [model.embed(video[:, t]) for t in range(size)]

    @torch.no_grad()
    def stream() -> Tensor:
        newest = [*held[:-1], model.embed(video[:, -1])]
        key, value = torch.stack([e.key for e in newest], 1), torch.stack([e.value for e in newest], 1)
        return model.reconstruct(video[:, size // 2], newest[size // 2].feature, key, value)

    @torch.no_grad()
    def slide() -> Tensor:
        output: Tensor = model(video)
        return output

    return stream, slide
