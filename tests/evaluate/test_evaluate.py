"""The evaluation command against scores computed by hand, and every way in which its input can be wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from mana_dist import inference, metrics, model_folder
from mana_dist.config import Config
from mana_dist.data.degradation import Degradation, bicubic_upsample, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.__main__ import main
from mana_dist.evaluate.clips import find_clips
from mana_dist.model import Mana, ModelConfig

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4))
KEYS = {"psnr_rgb", "ssim_rgb", "lpips", "psnr_y", "ssim_y", "frames"}


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test waits for, or depends on, the network."""

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("offline")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.urlopen", offline)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("model"))
    model_folder.save(folder, Mana(CONFIG.model).state_dict(), CONFIG)
    return folder


def frames_of(length: int, seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth texture that moves a pixel per frame."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 8, width // 4 + 8, 3)).astype(np.uint8)
    texture = bicubic_upsample(coarse)
    return np.stack([texture[number : number + height, number : number + width] for number in range(length)])


def write_folder(folder: Path, frames: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:04}.png")
    return folder


def evaluate(out: Path, *arguments: str) -> dict[str, Any]:
    main([*arguments, "--out", str(out), "--device", "cpu"])
    report: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return report


def test_means_over_frames_then_clips_equal_scores_by_hand(tmp_path: Path, model: str) -> None:
    clips = {"a": frames_of(4, 1), "b": frames_of(2, 2)}
    for name, frames in clips.items():
        write_folder(tmp_path / "data" / name, frames)
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "data"), "--method", "bicubic", model)
    network = model_folder.load(model)[0]
    for method in ("bicubic", model):
        per_clip = []
        for row, (name, frames) in zip(report["methods"][method]["clips"], clips.items(), strict=True):
            lr = degrade(frames, Degradation.BI)
            outputs = bicubic_upsample(lr) if method == "bicubic" else list(inference.super_resolve(network, lr))
            pairs = list(zip(outputs, frames, strict=True))
            assert row["name"] == name
            assert row["frames"] == len(frames)
            expected = [peak_signal_noise_ratio(hr, frame, data_range=255) for frame, hr in pairs]
            assert row["psnr_rgb"] == pytest.approx(np.mean(expected))
            assert row["ssim_y"] == pytest.approx(np.mean([metrics.ssim_y(frame, hr) for frame, hr in pairs]))
            per_clip.append(row["psnr_rgb"])
        mean = report["methods"][method]["mean"]
        assert mean.keys() == KEYS
        assert mean["psnr_rgb"] == pytest.approx(np.mean(per_clip))  # clips count alike, whatever their length
        assert mean["frames"] == 6


def test_protocol_names_every_choice_and_why_lpips_is_missing(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(3, 0))
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", "--degradation", "BD", "--frames", "1:"]
    report = evaluate(tmp_path / "out", *arguments)
    protocol = report["protocol"]
    assert protocol["degradation"] == "BD"
    assert protocol["degradation_version"] == Degradation.BD.version
    assert protocol["frames"] == "1:"
    assert protocol["border_crop"] == 0
    assert "untagged: BT.709 from 720 lines" in protocol["colour"]
    assert protocol["padding"] == "reflection"
    assert protocol["lpips"].startswith("not available: ")
    assert "offline" in protocol["lpips"]
    assert report["methods"]["bicubic"]["mean"]["lpips"] is None
    assert report["methods"]["bicubic"]["mean"]["frames"] == 2


def test_degradation_changes_the_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(2, 0))
    reports = [
        evaluate(tmp_path / name, "--data", str(tmp_path / "clip"), "--method", "bicubic", "--degradation", name)
        for name in ("BI", "BD")
    ]
    first, second = (report["methods"]["bicubic"]["mean"]["psnr_rgb"] for report in reports)
    assert abs(first - second) > 0.1


def test_frame_range_of_a_video_is_that_of_its_frames_alone(tmp_path: Path, model: str) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:  # lossless, so that a folder of its frames gives the same numbers
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for frame in frames_of(8, 3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    write_folder(tmp_path / "held_out", frames_of(8, 3)[5:8])
    video = evaluate(tmp_path / "1", "--data", str(path), "--method", model, "--frames", "5:8")
    folder = evaluate(tmp_path / "2", "--data", str(tmp_path / "held_out"), "--method", model)
    assert video["methods"][model]["mean"] == folder["methods"][model]["mean"]


def test_frames_that_do_not_divide_by_four_are_cropped(tmp_path: Path) -> None:
    whole = frames_of(2, 4, 50, 67)
    write_folder(tmp_path / "odd", whole)
    write_folder(tmp_path / "even", np.ascontiguousarray(whole[:, :48, :64]))
    odd, even = (
        evaluate(tmp_path / f"out-{n}", "--data", str(tmp_path / n), "--method", "bicubic") for n in ("odd", "even")
    )
    assert odd["methods"]["bicubic"]["mean"] == even["methods"]["bicubic"]["mean"]


def test_perfect_frames_are_valid_json(tmp_path: Path) -> None:
    write_folder(tmp_path / "flat", np.full((2, 48, 64, 3), 90, np.uint8))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "flat"), "--method", "bicubic")
    mean = report["methods"]["bicubic"]["mean"]
    assert (mean["psnr_rgb"], mean["ssim_rgb"]) == (None, 1)
    assert "null" in report["protocol"]["infinite_psnr"]


def test_clips_are_found_at_any_depth(tmp_path: Path) -> None:
    sequences = tmp_path / "vim" / "sequences"
    for name in ("00001/0001", "00001/0002", ".hidden/0001"):
        write_folder(sequences / name, frames_of(2, 0))
    for start in (tmp_path / "vim", sequences):
        clips = find_clips([str(start)])
        assert [(clip.name, clip.uri) for clip in clips] == [
            (name, str(sequences / "00001" / name)) for name in ("0001", "0002")
        ]


def test_files_and_console(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "clip", frames_of(3, 0))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic", model)
    names = ["metrics.json", "report.md", "side_by_side.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    said = capsys.readouterr().out
    markdown = (tmp_path / "out" / "report.md").read_text()
    gain = report["methods"][model]["mean"]["psnr_rgb"] - report["methods"]["bicubic"]["mean"]["psnr_rgb"]
    for text in (said, markdown):
        assert f"{report['methods'][model]['mean']['psnr_rgb']:.2f}" in text
        assert f"{gain:+.2f}" in text
    for name in names:
        assert str(tmp_path / "out" / name) in said
    assert "* degradation: BI" in markdown
    with Image.open(tmp_path / "out" / "side_by_side.png") as picture:
        assert picture.width > 4 * 240  # LR, bicubic, the model, HR


@pytest.mark.skipif("MANA_TEST_LPIPS" not in os.environ, reason="MANA_TEST_LPIPS names no trunk file")
def test_lpips_with_a_trunk_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(2, 0))
    trunk = os.environ["MANA_TEST_LPIPS"]
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", "--lpips-trunk", trunk]
    report = evaluate(tmp_path / "out", *arguments)
    assert 0 < report["methods"]["bicubic"]["mean"]["lpips"] < 1
    assert trunk in report["protocol"]["lpips"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere", "--method", "bicubic"], "--data nowhere: no such file or folder"),
        (["--data", "empty", "--method", "bicubic"], "holds neither frames.* nor does any folder in it"),
        (["--data", "clip", "--method", "nowhere"], "model nowhere: no such folder"),
        (["--data", "clip", "--method", "bicubic", "bicubic"], "--method names bicubic twice"),
        (["--data", "clip", "clip", "--method", "bicubic"], "--data names clip twice"),
        (["--data", "clip", "--method", "bicubic", "--frames", "9:"], "has 3 frames, so none from 9 on"),
        (["--data", "clip", "--method", "bicubic", "--frames", "3-5"], "frame range '3-5'"),
        (["--data", "clip", "--method", "bicubic", "--degradation", "BX"], "--degradation: invalid choice"),
        (
            ["--data", "clip", "--method", "bicubic", "--lpips-trunk", "nowhere"],
            "--lpips-trunk nowhere: cannot be read",
        ),
        (["--data", "small", "--method", "bicubic"], "smaller than SSIM's 11x11"),
        (["--data", "text.mp4", "--method", "bicubic"], "not a video that can be read"),
        (["--data", "clip", "--method", "bicubic", "--out", "/proc/x"], "--out: cannot write to /proc/x"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "clip", frames_of(3, 0))
    write_folder(tmp_path / "small", frames_of(1, 0)[:, :8, :8])
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match=message):
        main(["--out", "out", *arguments])
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_exit_code_2_with_one_line_and_before_torch_is_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mana_dist.evaluate", "--data", "clip"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert said == [
        "error: the following arguments are required: --method, --out; see python -m mana_dist.evaluate --help"
    ]
    assert " torch\n" not in done.stderr
