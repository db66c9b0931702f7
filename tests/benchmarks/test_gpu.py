"""The script for a lent GPU, dry on the CPU: with torch alone, what it trains, and what becomes of parts that fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.gpu import clips
from benchmarks.gpu.__main__ import PARTS, Part, main
from benchmarks.gpu.clips import Batches, Windows
from benchmarks.gpu.task import Task
from benchmarks.plain_training import PlainStage
from benchmarks.processes import ended
from benchmarks.report import markdown, read_part
from mana_dist.config import Config, RunConfig
from mana_dist.data.feed import augment
from mana_dist.data.order import SampleOrder, augmentation
from mana_dist.metrics import psnr
from mana_dist.model import Mana
from mana_dist.model.mana import initial_weights
from mana_dist.registry import model_folder
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import ADAM_BETAS, Stage, stages
from tests.train.test_averaging import COURSE, EMA, KEPT, RATES
from tests.train.test_engine import MODEL, begun_average, global_batch, plain_loop, stage

ROOT = Path(__file__).parents[2]
# All that the product needs beside torch and NumPy, and pytest.
ABSENT = (
    *("ray", "deepspeed", "mlflow", "av", "cv2", "pyarrow", "yaml", "jsonargparse", "safetensors", "scipy", "pytest"),
    *("smart_open", "lpips", "torchvision", "PIL", "scenedetect", "hypothesis", "h5py"),
)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a dry run where nothing but torch and NumPy is installed has written, and its output."""
    out = tmp_path_factory.mktemp("gpu")
    program = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # importing one raises ImportError from now on
from benchmarks.gpu.__main__ import main
sys.exit(main(["--device", "cpu", "--small", "--out", {str(out)!r}]))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_a_dry_run_does_every_part_with_torch_alone(dry_run: tuple[Path, str]) -> None:
    out, printed = dry_run
    found = json.loads((out / "results.json").read_text())
    assert [part["part"] for part in found["parts"]] == list(PARTS)
    assert not any(part["error"] for part in found["parts"])
    assert all(check["passed"] for part in found["parts"] for check in part["checks"])
    page = (out / "results.md").read_text()
    assert page in printed
    assert "the authors' arithmetic" in page


def test_what_it_trains_is_a_model_of_the_product(dry_run: tuple[Path, str]) -> None:
    out, _ = dry_run
    loaded = model_folder.load_identified(str(out / "model"))
    weights = torch.load(out / ".weights.pt", weights_only=True)
    assert loaded.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.model.state_dict().items())
    assert sum(stage.stop - stage.start for stage in stages(loaded.config)) == 2
    start = initial_weights(loaded.config.model, loaded.config.run.seed)
    assert any(not torch.equal(tensor, start[name]) for name, tensor in weights.items())


def test_its_settings_come_back_as_they_were(tmp_path: Path) -> None:
    from benchmarks.gpu.training import with_steps, write_model

    config = with_steps(Config(model=MODEL, run=RunConfig(clip_gradients=1e-5, precision="fp32")), 1000)
    write_model(tmp_path, initial_weights(MODEL, 0), config)
    loaded = model_folder.load(str(tmp_path))[1]
    assert (loaded.model, loaded.schedule, loaded.run) == (config.model, config.schedule, config.run)


@pytest.mark.parametrize("planned", [stage(1), stage(2), stage(3), COURSE])
def test_its_fp32_step_is_the_one_that_the_engine_is_tested_against(planned: Stage) -> None:
    weights, moments, losses, norms, _ = plain_loop(planned.number, rates=RATES if planned is COURSE else (1e-3,) * 4)
    config = Config(model=MODEL, run=RunConfig(precision="fp32"))
    trained = PlainStage(config, planned, initial_weights(MODEL, 0), {}, 0, torch.device("cpu"))
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        assert trained.step(*global_batch(step)).item() == pytest.approx(loss, rel=1e-6)
        assert trained.gradient_norm.item() == pytest.approx(norm, rel=1e-6)
    torch.testing.assert_close(trained.weights(), dict(weights), rtol=0, atol=1e-7)
    torch.testing.assert_close(trained.moments(), moments, rtol=1e-5, atol=1e-9)


def test_its_average_is_the_engines() -> None:
    config = Config(model=MODEL, run=RunConfig(precision="fp32", ema=EMA))
    start = initial_weights(MODEL, 0)
    before = begun_average(start)
    trained = PlainStage(config, COURSE, start, {}, 0, torch.device("cpu"), average=before)
    for step, share in enumerate(KEPT):
        trained.step(*global_batch(step))
        weights = trained.weights()
        before = {name: share * tensor + (1 - share) * weights[name] for name, tensor in before.items()}
    torch.testing.assert_close(trained.average(), before, rtol=1e-5, atol=1e-6)


def test_its_bf16_step_adds_to_fp32_masters() -> None:
    config = Config(model=MODEL, run=RunConfig(precision="bf16", clip_gradients=0.02))
    start = initial_weights(MODEL, 0)
    trained = PlainStage(config, stage(3), start, {}, 0, torch.device("cpu"))
    # The oracle: rounded weights give a gradient, Adam's first step is lr times its sign, nearly.
    model = Mana(MODEL)
    model.load_state_dict(start)
    objective = StageObjective(model.to(torch.bfloat16), stage(3))
    objective(*global_batch(0)).backward()
    gradients = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    masters = {name: start[name].clone().requires_grad_() for name in gradients}
    for name, master in masters.items():
        master.grad = gradients[name] * (0.02 / (norm + 1e-6))
    torch.optim.Adam(masters.values(), lr=stage(3).lr, betas=ADAM_BETAS).step()

    trained.step(*global_batch(0))

    torch.testing.assert_close(trained.gradient_norm, norm)
    for name, master in masters.items():
        torch.testing.assert_close(trained.weights()[name], master.detach(), rtol=0, atol=1e-6)
        assert torch.equal(dict(trained.model.named_parameters())[name], trained.weights()[name].bfloat16())


def test_batches_are_those_of_the_product() -> None:
    windows = Windows(noise(20, 5, 10, 12, 3), noise(20, 40, 48, 3), ("one",) * 20)
    batches = Batches(windows, 3, 4, 6, 7, torch.device("cpu"), shuffle_groups=1)
    order = SampleOrder(np.array([clips.CHUNK, 20 - clips.CHUNK]), 4, 1, 7)
    seen = set()
    for step in range(20):
        lr, hr = batches.batch(step)
        for slot in range(4):
            group, row = order.sample(step, slot)
            index = group * clips.CHUNK + row
            drawn = augmentation(7, 4 * step + slot, 10, 12, 6)
            expected = augment(windows.lr[index][1:4], windows.hr[index], drawn, 6)
            assert np.array_equal(lr[slot].movedim(1, -1).numpy(), expected[0])
            assert np.array_equal(hr[slot].movedim(0, -1).numpy(), expected[1])
            seen.add(drawn[2:])
    assert len(seen) == 8  # every flip and turn


def test_psnr_is_that_of_the_metrics() -> None:
    from benchmarks.gpu.training import psnr as on_the_device
    from mana_dist.model.inference import super_resolve_window

    torch.manual_seed(0)
    model = Mana(MODEL).eval()
    windows = Windows(noise(3, 5, 8, 9, 3), noise(3, 32, 36, 3), ("one",) * 3)
    frames = [super_resolve_window(model, lr[1:4]) for lr in windows.lr]
    expected = np.mean([psnr(frame, hr) for frame, hr in zip(frames, windows.hr, strict=True)])
    assert on_the_device(model, windows)[0] == pytest.approx(expected, abs=1e-6)


def test_packed_pixels_come_back(tmp_path: Path) -> None:
    footage = clips.Footage(
        Windows(noise(19, 3, 8, 9, 3), noise(19, 32, 36, 3), ("a",) * 19),
        Windows(noise(2, 3, 8, 9, 3), noise(2, 32, 36, 3), ("b", "c")),
        "noise",
    )
    clips.write(tmp_path / "clips.npz", footage)
    again = clips.read(tmp_path / "clips.npz")
    assert again.source == "noise"
    for one, other in ((again.training, footage.training), (again.validation, footage.validation)):
        assert np.array_equal(one.lr, other.lr)
        assert np.array_equal(one.hr, other.hr)
        assert one.clips == other.clips


def test_a_part_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(task: Task) -> None:
        task.report.row("before", 1.0, "s")
        raise RuntimeError("out of order")

    def wrong(task: Task) -> None:
        task.attempt("two is three", lambda: torch.testing.assert_close(2, 3), must_hold=True)
        task.report.check("still here", passed=True)

    monkeypatch.setattr("benchmarks.gpu.__main__.PARTS", {"first": Part(breaks, 1), "second": Part(wrong, 1)})
    code = main(["--device", "cpu", "--small", "--out", str(tmp_path), "--only", "first", "second"])
    assert code == 1
    first, second = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert first["error"] == "RuntimeError: out of order"
    assert first["rows"][0]["name"] == "before"
    assert [check["passed"] for check in second["checks"]] == [False, True]
    assert "**failed**, first: RuntimeError: out of order" in (tmp_path / "results.md").read_text()


def test_a_part_that_hangs_or_dies_leaves_what_it_had(tmp_path: Path) -> None:
    program = "import time; time.sleep(60)"
    assert ended([sys.executable, "-c", program], 0.5).startswith("ended after")
    dies = "import os, sys; print('illegal address', file=sys.stderr, flush=True); os.abort()"
    assert "illegal address" in ended([sys.executable, "-c", dies], 30)
    assert ended([sys.executable, "-c", ""], 30) == ""
    (tmp_path / "left").write_text('{"note": "begun"}\n{"row": {"na')
    result = read_part(tmp_path / "left", "part", 1.0, "ended after 1 s")
    assert result.notes == ["begun"]
    assert not result.passed
    assert "ended after 1 s" in markdown("title", [result])


def test_without_a_gpu_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path)]) == 2
    assert "--device cpu --small" in capsys.readouterr().err
