"""A short real training, whose result is a model of the product; resuming in its middle; bf16 against fp32."""

import hashlib
import json
import math
import re
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.clips import Batches, Footage, Windows, made_up, read
from benchmarks.gpu.task import Task, deterministic, exact_fp32
from benchmarks.networks import NETWORKS, TOY
from benchmarks.plain_training import PlainStage
from mana_dist import config as configuration
from mana_dist import published_keys
from mana_dist.config import Config, DataConfig, RunConfig, ScheduleConfig, StageConfig
from mana_dist.model import Mana
from mana_dist.model.mana import initial_weights
from mana_dist.train.schedule import Stage, stages


@dataclass
class State:
    """A training between two steps, as the product's checkpoints have it.

    Attributes:
        step: global steps done.
        weights: all parameters by name, fp32.
        moments: Adam's, by ``<moment>.<parameter>``; empty between stages.
        average: the moving average of the weights; empty without ``run.ema``.
    """

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> dict[str, Tensor]:
        """The weights to score and to keep as a model."""
        return self.average or self.weights


def start(config: Config) -> State:
    """Return the state before the first step."""
    return State(0, initial_weights(config.model, config.run.seed), {})


def advance(
    config: Config,
    state: State,
    batches: Batches,
    device: torch.device,
    stop: int,
    after: Callable[[int, Stage, Tensor, PlainStage], None] = lambda *_: None,
) -> State:
    """Train up to global step ``stop``: the product's stages, steps and order of samples.

    Args:
        config: the training.
        state: where it stands.
        batches: what it trains on.
        device: where it trains.
        stop: global steps to reach.
        after: called after each step with the steps done, the stage, the loss (on the device) and the trained stage.
    """
    for stage in stages(config):
        last = min(stage.stop, stop)
        if state.step >= last:
            continue
        trained = PlainStage(config, stage, state.weights, state.moments, state.step, device, average=state.average)
        for step in range(state.step, last):
            after(step + 1, stage, trained.step(*batches.batch(step)), trained)
        # The next stage starts a new Adam.
        moments = trained.moments() if last < stage.stop else {}
        state = State(last, trained.weights(), moments, trained.average())
    return state


def _footage(task: Task) -> Footage:
    if task.data is not None:
        before = time.perf_counter()
        footage = read(task.data)
        task.report.note(
            f"{footage.source}: {len(footage.training.lr)} samples, read in {time.perf_counter() - before:.1f} s"
        )
        return footage
    samples, frames, side = (6, TOY.frames, 12) if task.small else (96, 7, 64)
    footage = made_up(samples, frames, side)
    task.report.note(f"no file of real clips: {samples} samples of {footage.source}")
    return footage


def training_config(task: Task, footage: Footage) -> Config:
    """Return the training of the script, its stages' lengths still to be set."""
    side = min(footage.training.lr.shape[2:4])
    run = RunConfig(precision="fp32" if task.device == "cpu" else "bf16", zero_stage=0)
    if task.small:
        return Config(model=TOY, data=DataConfig(batch_size=2, crop=min(8, side), shuffle_groups=1), run=run)
    return Config(model=NETWORKS["small"], data=DataConfig(batch_size=16, crop=min(48, side)), run=run)


def with_steps(config: Config, steps: int) -> Config:
    """Return ``config`` with ``steps`` in its stages, by the tiny preset's rates and proportions."""
    second, third = steps // 10, steps * 3 // 10
    schedule = ScheduleConfig(
        stage1=StageConfig(steps=steps - second - third, lr=1e-3),
        stage2=StageConfig(steps=second, lr=1e-2),
        stage3=StageConfig(steps=third, lr=3e-4),
    )
    return replace(config, schedule=schedule)


def training(task: Task) -> None:
    """Train for as long as there is time, and write the curve and the model."""
    footage, device = _footage(task), torch.device(task.device)
    config = training_config(task, footage)
    batches = Batches(
        footage.training,
        config.model.frames,
        config.data.batch_size,
        config.data.crop,
        config.run.seed,
        device,
        config.data.shuffle_groups,
    )
    steps = 2 if task.small else _steps_in(task, config, batches, device)
    config = with_steps(config, steps)
    if task.small:  # a step for each of two stages
        config = replace(
            config, schedule=replace(config.schedule, stage1=StageConfig(steps=1), stage3=StageConfig(steps=1))
        )
    total = stages(config)[-1].stop
    losses: list[tuple[int, Tensor]] = []
    scores: list[tuple[float, float]] = []
    every = max(1, total // 12)

    def after(step: int, stage: Stage, loss: Tensor, trained: PlainStage) -> None:
        if not stage.trains_memory_only:
            losses.append((step, loss))
        if step % every == 0 and step < total:
            scores.append((step, psnr(trained.model, footage.validation)[0]))

    begun = time.perf_counter()
    state = advance(config, start(config), batches, device, total, after)
    task.synchronize()
    seconds = time.perf_counter() - begun
    curve = [
        (step, loss) for (step, _), loss in zip(losses, torch.stack([one for _, one in losses]).tolist(), strict=True)
    ]
    write_model(task.out / "model", state.model, config)
    torch.save(state.model, task.out / ".weights.pt")
    model = Mana(config.model).to(device).eval()
    model.load_state_dict(state.model)
    with exact_fp32():
        ours, bicubic = psnr(model, footage.validation)
    scores.append((total, ours))
    task.report.curve("L1 loss by step (stages 1 and 3)", curve)
    task.report.curve("PSNR on the validation clips by step", scores)
    task.report.row("training, validation included", total * config.data.batch_size / seconds, "samples/s")
    task.report.row("steps", total, "")
    task.report.row(f"PSNR, {len(footage.validation.lr)} validation windows", ours, "dB")
    task.report.row("bicubic (torch's, a = -0.5)", bicubic, "dB")
    task.report.check("every loss is finite", all(math.isfinite(loss) for _, loss in curve))
    if not task.small:
        tenth = max(1, len(curve) // 10)
        first, last = (sum(loss for _, loss in part) / len(part) for part in (curve[:tenth], curve[-tenth:]))
        task.report.check("the loss falls", last < first, f"from {first:.5f} to {last:.5f}")
        task.report.check(
            "better than bicubic on clips it has not seen", ours > bicubic, f"by {ours - bicubic:+.3f} dB"
        )
    digest = hashlib.sha256((task.out / "model" / "model.safetensors").read_bytes()).hexdigest()
    task.report.note(f"the model is in {task.out / 'model'}, SHA-256 {digest}")


def _steps_in(task: Task, config: Config, batches: Batches, device: torch.device) -> int:
    """The steps that fit: by the pace of 40, of which the first half warms up."""
    config = with_steps(config, 10_000)
    clock: list[float] = []

    def after(step: int, *_: object) -> None:
        if step % 20 == 0:
            task.synchronize()
            clock.append(time.perf_counter())

    advance(config, start(config), batches, device, 40, after)
    pace = (clock[1] - clock[0]) / 20
    return max(50, int(0.8 * task.seconds_left / pace))


def resume(task: Task) -> None:
    """Stop a training in the middle of a stage, and go on from a file: the same as one that was not stopped."""
    footage, device = made_up(8, TOY.frames if task.small else 7, 12 if task.small else 48), torch.device(task.device)
    steps = 4 if task.small else 60
    config = with_steps(training_config(task, footage), steps)
    if task.small:
        config = replace(
            config, schedule=replace(config.schedule, stage1=StageConfig(steps=2), stage2=StageConfig(steps=2))
        )
    total = stages(config)[-1].stop

    def batches() -> Batches:
        data = config.data
        return Batches(
            footage.training, config.model.frames, data.batch_size, data.crop, 0, device, data.shuffle_groups
        )

    def compare(name: str, exactly: bool) -> None:
        whole = advance(config, start(config), batches(), device, total)
        again = advance(config, start(config), batches(), device, total)
        path = task.out / "resume.pt"
        worst = 0.0
        for stop in (total // 4, total // 2, total - 1):
            torch.save(vars(advance(config, start(config), batches(), device, stop)), path)
            state = State(**torch.load(path, weights_only=True))
            resumed = advance(config, state, batches(), device, total)
            worst = max(worst, _difference(whole.weights, resumed.weights))
        path.unlink()
        twice = _difference(whole.weights, again.weights)
        bound = 0.0 if exactly else max(1e-3, 4 * twice)
        task.report.check(
            f"{name}: stopped and resumed, the same weights",
            worst <= bound,
            f"differ by {worst:.2g}; allowed {bound:.2g}",
        )
        task.report.check(f"{name}: run twice, the same weights", not exactly or twice == 0, f"differ by {twice:.2g}")

    with deterministic():
        task.attempt("resume, deterministic algorithms", lambda: compare("deterministic, bit by bit", exactly=True))
    if task.device == "cuda":
        task.attempt("resume as a training runs", lambda: compare("as a training runs", exactly=False))


def _difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of two sets of weights; infinite where one is not finite."""
    differences = [float((one[name] - other[name]).abs().max()) for name in one if one[name].numel()]
    return max(value if math.isfinite(value) else math.inf for value in differences)


def precision(task: Task) -> None:
    """What TF32 and bf16 change in the result of the trained model (or of one just begun) on the validation clips."""
    footage, device = _footage(task), torch.device(task.device)
    config = training_config(task, footage)
    weights, kind = initial_weights(config.model, 0), "a model that has not been trained"
    kept = task.out / ".weights.pt"
    if kept.exists():
        weights, kind = torch.load(kept, weights_only=True), "the model trained here"
    task.report.note(f"of {kind}")
    model = Mana(config.model).to(device).eval()
    model.load_state_dict(weights)
    with exact_fp32():
        exact, _ = psnr(model, footage.validation)
    task.report.row("PSNR, fp32", exact, "dB")
    ways = {"fp32 by TF32": lambda: psnr(model, footage.validation)[0]}

    def autocast() -> float:
        with torch.autocast(task.device, torch.bfloat16):
            return psnr(model, footage.validation)[0]

    ways["bf16 by autocast"] = autocast
    ways["bf16 weights"] = lambda: psnr(
        Mana(config.model).to(device, torch.bfloat16).eval(), footage.validation, weights
    )[0]
    for name, way in ways.items():

        def measure(name: str = name, way: Callable[[], float] = way) -> None:
            found = way()
            task.report.row(f"PSNR, {name}, minus fp32", found - exact, "dB")
            task.report.check(f"{name} within 0.01 dB of fp32", abs(found - exact) <= 0.01, f"{found - exact:+.5f} dB")

        task.attempt(name, measure)


@torch.no_grad()
def psnr(model: Mana, windows: Windows, weights: Mapping[str, Tensor] | None = None) -> tuple[float, float]:
    """Return the mean PSNR of the model and of bicubic over all windows, RGB, quantised to 8 bits first."""
    if weights is not None:
        model.load_state_dict(weights)
    device, ours, bicubic = model.stem.weight.device, 0.0, 0.0
    first = (windows.lr.shape[1] - model.config.frames) // 2
    for lr, hr in zip(windows.lr, windows.hr, strict=True):
        frames = torch.from_numpy(lr[first : first + model.config.frames]).to(device).movedim(-1, -3)[None] / 255
        truth = torch.from_numpy(hr).to(device).movedim(-1, -3)[None].double()
        # With antialiasing torch's cubic kernel has a = -0.5, MATLAB's; enlarged, nothing else changes.
        plain = F.interpolate(frames[:, model.config.frames // 2], scale_factor=4, mode="bicubic", antialias=True)
        ours += _psnr(model(frames), truth)
        bicubic += _psnr(plain, truth)
    return ours / len(windows.lr), bicubic / len(windows.lr)


def _psnr(image: Tensor, truth: Tensor) -> float:
    quantised = image.float().clamp(0, 1).mul(255).add(0.5).floor().double()
    return 10 * math.log10(255**2 / max(float((quantised - truth).square().mean()), 1e-12))


def write_model(folder: Path, weights: Mapping[str, Tensor], config: Config) -> None:
    """Write what :mod:`mana_dist.registry.model_folder` loads, without its libraries: safetensors, and YAML as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(published_keys.shared(configuration.to_mapping(config)), indent=1)
    # To YAML 1.1 a number without a dot, 1e-05, is a word.
    (folder / "config.yaml").write_text(re.sub(r"(?<=: )(-?\d+)e(?=[-+]?\d)", r"\1.0e", text) + "\n")
    header, data, offset = {}, [], 0
    for name, tensor in weights.items():
        raw = tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(raw)]}
        data.append(raw)
        offset += len(raw)
    begin = json.dumps(header).encode()
    begin += b" " * (-len(begin) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(begin)) + begin + b"".join(data))
