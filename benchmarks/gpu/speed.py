"""Times on the device: the attention, training steps with their share of the peak, frames of a video."""

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention import IMPLEMENTATIONS, make_call
from benchmarks.gpu.task import Task, exact_fp32
from benchmarks.model import STAGE, frame_calls, noise_batch
from benchmarks.networks import NETWORKS, TOY
from benchmarks.plain_training import PlainStage
from benchmarks.released import ReleasedMana
from benchmarks.timing import peak_extra_bytes, timed
from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.mana import initial_weights
from mana_dist.train.objective import StageObjective
from mana_dist.train.planning.costs import device_peak, sample_cost


def operator(task: Task) -> None:
    """Every implementation of attention at the size of one crop and of a batch, fp32 and bf16."""
    budget = 0.05 if task.small else 0.6
    batches = (1,) if task.small else (1, 16)
    shape = (3, 8, 12, 12) if task.small else (7, 64, 64, 64)
    for batch in batches:
        for bf16 in (False, True):
            reference: tuple[float, float, float] | None = None
            for name in IMPLEMENTATIONS:
                kind = f"{name}, batch {batch}, {'bf16' if bf16 else 'fp32'}"

                def measure(name: str = name, kind: str = kind, batch: int = batch, bf16: bool = bf16) -> None:
                    nonlocal reference
                    call = functools.partial(
                        make_call, name=name, shape=(batch, *shape), window=3 if task.small else 9, bf16=bf16
                    )
                    forward = timed(call(task.device, backward=False), task.device, budget=budget).seconds
                    both = timed(call(task.device, backward=True), task.device, budget=budget).seconds
                    memory = 0.0
                    if task.device == "cuda":
                        memory = peak_extra_bytes(functools.partial(call, backward=True), "cuda")
                    reference = reference or (forward, both, memory)
                    task.report.row(f"{kind}, forward", forward * 1e3, "ms", reference[0] / forward, "unfold")
                    task.report.row(f"{kind}, with backward", both * 1e3, "ms", reference[1] / both, "unfold")
                    if memory:
                        task.report.row(
                            f"{kind}, memory", memory / 2**20, "MiB", reference[2] / memory, "less than unfold"
                        )

                task.attempt(kind, measure)
    task.attempt("layouts", functools.partial(_layouts, task, (batches[-1], *shape), budget))


def _layouts(task: Task, shape: tuple[int, ...], budget: float) -> None:
    """The same call on tensors whose channels are not innermost, and what the network really hands over."""
    times = {}
    for name in ("innermost", "outermost"):
        call: Any = make_call(task.device, "fused", shape, 3 if task.small else 9, backward=False, bf16=True)
        if name == "outermost":
            query, key, value, window = call.args
            call = functools.partial(call.func, query.contiguous(), key.contiguous(), value.contiguous(), window)
        times[name] = timed(call, task.device, budget=budget).seconds
        task.report.row(f"fused, bf16, channels {name}", times[name] * 1e3, "ms")
    model = Mana(TOY if task.small else NETWORKS["small"]).to(task.device, torch.bfloat16)
    with torch.no_grad():
        embedded = model.embed(torch.rand(2, 3, 32, 32, device=task.device))
    strides = {name: tensor.stride() for name, tensor in embedded._asdict().items()}
    task.report.check(
        "the network's keys and values have their channels innermost, as the kernels are fast with",
        embedded.key.stride(1) == 1 and embedded.value.stride(1) == 1,
        str(strides),
    )


def _config(model: ModelConfig, precision: str) -> Config:
    run = RunConfig(precision="bf16" if precision == "bf16" else "fp32")
    return Config(model=model, data=DataConfig(batch_size=16, crop=64), run=run)


def _batch(model: ModelConfig, size: int, crop: int, device: str) -> tuple[Tensor, Tensor]:
    lr, hr = noise_batch(model, size, crop)
    return lr.to(device), hr.to(device)


def _networks(task: Task) -> dict[str, ModelConfig]:
    return {"toy": TOY} if task.small else dict(reversed(NETWORKS.items()))


def steps(task: Task) -> None:
    """A training step of each network: time, samples a second, and the share of the device's peak (MFU)."""
    size, crop, budget = (2, 8, 0.05) if task.small else (16, 64, 2.0)
    device = torch.device(task.device)
    for name, model in _networks(task).items():
        for precision in ("bf16", "fp32"):

            def measure(name: str = name, model: ModelConfig = model, precision: Any = precision) -> None:
                config = _config(model, precision)
                batch = _batch(model, size, crop, task.device)
                cost = sample_cost(model, STAGE, crop, precision)
                peak = device_peak(device, precision)

                def time_it(what: str, layout: torch.memory_format = torch.contiguous_format) -> float:
                    stage = PlainStage(config, STAGE, initial_weights(model, 0), {}, 0, device)
                    stage.model.to(memory_format=layout)  # type: ignore[call-overload]
                    seconds = timed(lambda: stage.step(*batch), task.device, budget=budget).seconds
                    share = cost.flops * size / seconds / peak.flops
                    text = f"{name}, {precision}{what}, step of {size} x {crop}x{crop}"
                    task.report.row(text, seconds * 1e3, "ms", share, f"of the peak, {peak}")
                    return seconds

                seconds = time_it("")
                task.report.row(f"{name}, {precision}, training", size / seconds, "samples/s")
                if name == "tiny" or task.small:
                    return
                time_it(", weights channels-last", torch.channels_last)
                torch.backends.cudnn.benchmark = True
                try:
                    time_it(", cuDNN chooses by timing")
                finally:
                    torch.backends.cudnn.benchmark = False

            task.attempt(f"step of {name}, {precision}", measure)
    model = TOY if task.small else NETWORKS["paper"]
    task.attempt("the authors' arithmetic", functools.partial(_against_released, task, model, size, crop, budget))


def _against_released(task: Task, model: ModelConfig, size: int, crop: int, budget: float) -> None:
    """Forward and training step against the authors' arithmetic in fp32 and contiguous memory."""
    lr, hr = _batch(model, size, crop, task.device)
    frames = lr.to(torch.float32) / 255
    times: dict[str, tuple[float, float]] = {}
    for name, kind, dtype in (
        ("authors' arithmetic, fp32", ReleasedMana, torch.float32),
        ("ours, fp32", Mana, torch.float32),
        ("ours, bf16", Mana, torch.bfloat16),
    ):
        torch.manual_seed(0)
        objective = StageObjective(kind(model), STAGE).to(task.device, dtype)
        optimizer = torch.optim.Adam(p for p in objective.parameters() if p.requires_grad)

        def step(objective: StageObjective = objective, optimizer: torch.optim.Adam = optimizer) -> None:
            optimizer.zero_grad()
            objective(lr, hr).backward()
            optimizer.step()

        @torch.no_grad()
        def forward(objective: StageObjective = objective) -> None:
            objective.model(frames)

        times[name] = (
            timed(forward, task.device, budget=budget).seconds,
            timed(step, task.device, budget=budget).seconds,
        )
        first = times["authors' arithmetic, fp32"]
        for what, seconds, reference in zip(("forward", "step"), times[name], first, strict=True):
            task.report.row(f"{name}: {what}", seconds * 1e3, "ms", reference / seconds, "the authors' arithmetic")
        del objective, optimizer


def compiled(task: Task) -> None:
    """A step with ``run.compile``: what it gains, and how long compiling takes."""
    if task.device != "cuda":
        task.report.note("left out without a GPU: it does not pay on a CPU (docs/benchmarks.md)")
        return
    for name in ("small", "paper"):

        def measure(name: str = name) -> None:
            model = NETWORKS[name]
            batch = _batch(model, 16, 64, task.device)
            stage = PlainStage(_config(model, "bf16"), STAGE, initial_weights(model, 0), {}, 0, torch.device("cuda"))
            plain = timed(lambda: stage.step(*batch), "cuda", budget=1).seconds
            for part in (stage.model.encoder, stage.model.decoder, stage.model.upsampler):
                part.compile()
            import time

            begun = time.perf_counter()
            stage.step(*batch)
            task.synchronize()
            task.report.row(f"{name}: compiling", time.perf_counter() - begun, "s")
            seconds = timed(lambda: stage.step(*batch), "cuda", budget=1).seconds
            task.report.row(f"{name}, bf16, compiled, step", seconds * 1e3, "ms", plain / seconds, "as it is")

        task.attempt(f"torch.compile of {name}", measure)


def frames(task: Task) -> None:
    """One more frame of a video, each frame embedded once, against the whole window anew; equal to rounding."""
    sizes = ((12, 16),) if task.small else ((135, 240), (180, 320))
    budget = 0.05 if task.small else 1.0
    for name, model_config in _networks(task).items():
        for dtype in (torch.bfloat16, torch.float32):
            for height, width in sizes:

                def measure(
                    name: str = name,
                    config: ModelConfig = model_config,
                    dtype: torch.dtype = dtype,
                    height: int = height,
                    width: int = width,
                ) -> None:
                    _frame(task, name, config, dtype, height, width, budget)

                task.attempt(f"a frame by {name}, {dtype}, {width}x{height}", measure)


def _frame(
    task: Task, name: str, config: ModelConfig, dtype: torch.dtype, height: int, width: int, budget: float
) -> None:
    size = config.frames
    torch.manual_seed(0)
    model = Mana(replace(config)).to(task.device, dtype).eval()
    with torch.no_grad():  # else the attention, which starts at zero, would not show in the output
        model.attention.project.weight.normal_(std=0.01)
        video = torch.rand(1, size, 3, height, width, device=task.device)
    stream, slide = frame_calls(model, video)
    label = f"{name}, {str(dtype).removeprefix('torch.')}, {4 * width}x{4 * height}"
    with exact_fp32():
        difference = (stream().float() - slide().float()).abs().mean().item()
    # The mean: where two scores differ by rounding alone, another position may win, which shows in a few pixels.
    bound = 1e-5 if dtype == torch.float32 else 0.01
    task.report.check(
        f"{label}: streaming gives the window's frame", difference < bound, f"mean difference {difference:.2g}"
    )
    streamed = timed(stream, task.device, least_runs=3, budget=budget).seconds
    plain = timed(slide, task.device, least_runs=3, budget=budget).seconds
    task.report.row(f"{label}: streaming", 1 / streamed, "frames/s", plain / streamed, "the whole window anew")
