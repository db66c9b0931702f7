"""The evaluation command against scores computed by hand, and every way in which its input can be wrong."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from mana_dist import metrics
from mana_dist.data.degradation import BD, BI, bicubic_upsample, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.__main__ import main
from mana_dist.model import inference
from mana_dist.registry import model_folder
from mana_dist.video import READER_VERSION
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder
from tests.video.videos import write_video
from tests.web_server import web_server

KEYS = {"psnr_rgb", "ssim_rgb", "lpips", "psnr_y", "ssim_y", "flicker", "frames"}


def test_means_over_frames_then_clips_equal_scores_by_hand(tmp_path: Path, model: str) -> None:
    clips = {"a": frames_of(4, 1), "b": frames_of(2, 2)}
    for name, frames in clips.items():
        write_folder(tmp_path / "data" / name, frames)
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "data"), "--method", "bicubic", model)
    network = model_folder.load(model)[0]
    for method in ("bicubic", model):
        per_clip = []
        for row, (name, frames) in zip(report["methods"][method]["clips"], clips.items(), strict=True):
            lr = degrade(frames, BI)
            outputs = bicubic_upsample(lr) if method == "bicubic" else list(inference.super_resolve(network, lr))
            pairs = list(zip(outputs, frames, strict=True))
            assert row["name"] == name
            assert row["frames"] == len(frames)
            expected = [peak_signal_noise_ratio(hr, frame, data_range=255) for frame, hr in pairs]
            assert row["psnr_rgb"] == pytest.approx(np.mean(expected))
            assert row["ssim_y"] == pytest.approx(np.mean([metrics.ssim_y(frame, hr) for frame, hr in pairs]))
            per_clip.append(row["psnr_rgb"])
        mean = report["methods"][method]["mean"]
        assert mean.keys() == KEYS | ({"neighbour_gain", "match_error"} if method == model else set())
        assert mean["psnr_rgb"] == pytest.approx(np.mean(per_clip))  # clips count alike, whatever their length
        assert mean["frames"] == 6


def test_protocol_names_every_choice_and_why_lpips_is_missing(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(3, 0))
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", "--degradation", "BD", "--frames", "1:"]
    report = evaluate(tmp_path / "out", *arguments)
    protocol = report["protocol"]
    assert protocol["degradation"] == "BD"
    assert protocol["degradation_version"] == BD.version
    assert protocol["frames"] == "1:"
    assert protocol["border_crop"] == 0
    assert "untagged: BT.709 from 720 lines" in protocol["colour"]
    assert protocol["reader"] == READER_VERSION
    assert protocol["padding"] == "reflection"
    assert protocol["lpips"].startswith("not available: ")
    assert "offline" in protocol["lpips"]
    assert report["methods"]["bicubic"]["mean"]["lpips"] is None
    assert report["methods"]["bicubic"]["mean"]["frames"] == 2


def test_both_degradations_and_the_bicubic_method_are_given_in_words(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(1))
    definitions = {}
    for name in ("BI", "BD"):
        arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", "--degradation", name]
        protocol = evaluate(tmp_path / name, *arguments)["protocol"]
        definitions[name] = protocol["degradation_definition"]
        for part in ("MATLAB's imresize", "a = -0.5", "by 4", "edge pixel repeated", "uint8, halves up"):
            assert part in protocol["bicubic"]
    for part in ("MATLAB's imresize", "a = -0.5", "antialiased", "edge pixel repeated", "uint8, halves up"):
        assert part in definitions["BI"]
    for part in ("Gaussian 13x13", "sigma 1.6", "(4i, 4j)", "edge pixel not repeated", "uint8, halves up"):
        assert part in definitions["BD"]


def test_protocol_names_the_source_of_each_methods_frames(tmp_path: Path, model: str) -> None:
    clip = write_folder(tmp_path / "clip", frames_of(1))
    arguments = ["--data", str(clip), "--method", "bicubic", model, f"frames:truth={clip}/."]
    bicubic, trained, truth = evaluate(tmp_path / "out", *arguments)["protocol"]["models"]
    assert (bicubic["name"], bicubic["uri"], bicubic["sha256"]) == ("bicubic", "", "")
    assert (truth["name"], truth["uri"], truth["sha256"]) == ("truth", str(clip), "")
    weights = (Path(model) / "model.safetensors").read_bytes()
    assert trained == {
        "name": model,
        "uri": model,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "attention": "one_hot",
        "memory_slots": 4,
        "window": 3,
        "frames": 3,
    }
    written = (tmp_path / "out" / "report.html").read_text()
    assert hashlib.sha256(weights).hexdigest() in written


def test_options_that_are_given_twice_add_up(tmp_path: Path, model: str) -> None:
    for seed, name in enumerate("ab"):
        write_folder(tmp_path / name, frames_of(1, seed))
    arguments = ["--data", str(tmp_path / "a"), "--method", "bicubic", "--data", str(tmp_path / "b"), "--method", model]
    report = evaluate(tmp_path / "out", *arguments)
    assert [entry["name"] for entry in report["protocol"]["datasets"]] == ["a", "b"]
    assert list(report["methods"]) == ["bicubic", model]
    with pytest.raises(UserError, match="@a and @b cannot both move"):
        evaluate(tmp_path / "out", *arguments, *["--promote-if", "psnr_y > @a", "--promote-if", "lpips < @b"])


@pytest.mark.parametrize("again", ["{}/", "{}/.", "file://{}", "{}/../{name}", "label={}"])
def test_a_model_is_itself_however_its_folder_is_written(tmp_path: Path, model: str, again: str) -> None:
    write_folder(tmp_path / "clip", frames_of(1))
    other = again.format(model, name=Path(model).name)
    with pytest.raises(UserError, match=f"--method names {model} twice, the second time as"):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", model, other)


@pytest.mark.parametrize("key", ["--data", "--method", "--out"])
def test_empty_names_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "clip", frames_of(1))
    arguments = {"--data": "clip", "--method": "bicubic", "--out": "out"} | {key: ""}
    with pytest.raises(UserError, match=f"{key} '': an empty name"):
        main([part for entry in arguments.items() for part in entry])
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]


def test_a_home_folder_and_a_relative_one_are_meant_as_a_shell_means_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "clip", frames_of(1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["--data", "clip", "--method", "bicubic", "--out", "~/results", "--workers", "1", "--device", "cpu"])
    assert {"metrics.json", "report.html"} <= {path.name for path in (tmp_path / "results").iterdir()}
    assert not (tmp_path / "~").exists()


def test_a_console_without_arrows_gets_the_table_nonetheless(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(1))
    command = ["--data", "clip", "--method", "bicubic", "--out", "out", "--workers", "1", "--device", "cpu"]
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "TORCH_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:9",
    }
    trunk = ["--lpips-trunk", os.environ["MANA_TEST_LPIPS"]] if "MANA_TEST_LPIPS" in os.environ else []
    done = subprocess.run(
        [sys.executable, "-m", "mana_dist.evaluate", *command, *trunk],
        cwd=tmp_path, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"PSNR (dB) ?" in done.stdout
    assert "PSNR (dB) ↑" in (tmp_path / "out" / "report.md").read_text()


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


def test_cropping_is_said_beside_the_numbers_and_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "odd", frames_of(2, 4, 50, 67))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "odd"), "--method", "bicubic")
    assert report["methods"]["bicubic"]["clips"][0]["notes"] == ["cropped from 67x50 to 64x48"]
    assert "multiples of 4" in report["protocol"]["size"]
    assert "clip 1/1 odd: 2 frames" in (said := capsys.readouterr().out)
    assert "cropped from 67x50 to 64x48" in said


def test_perfect_frames_are_valid_json(tmp_path: Path) -> None:
    write_folder(tmp_path / "flat", np.full((2, 48, 64, 3), 90, np.uint8))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "flat"), "--method", "bicubic")
    mean = report["methods"]["bicubic"]["mean"]
    assert (mean["psnr_rgb"], mean["ssim_rgb"]) == (None, 1)
    assert "null" in report["protocol"]["infinite_psnr"]


def test_files_and_console(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "clip", frames_of(3, 0))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic", model)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"metrics.json", "report.md", "report.html", "side_by_side.png"} <= names
    said = capsys.readouterr().out
    markdown = (tmp_path / "out" / "report.md").read_text()
    gain = report["methods"][model]["mean"]["psnr_rgb"] - report["methods"]["bicubic"]["mean"]["psnr_rgb"]
    for text in (said, markdown):
        assert f"{report['methods'][model]['mean']['psnr_rgb']:.2f}" in text
        assert f"{gain:+.2f}" in text
    for name in names:
        assert str(tmp_path / "out" / name) in said
    assert "clip 1/1 clip: 3 frames" in said
    assert "* degradation: BI" in markdown
    with Image.open(tmp_path / "out" / "side_by_side.png") as picture:
        assert picture.width > 4 * 240  # LR, bicubic, the model, HR


def test_sixteen_bit_pngs_are_divided_by_257_and_rounded(tmp_path: Path) -> None:
    frames = frames_of(2, 5)
    deep = frames.astype(np.uint16) * 257 + np.random.default_rng(0).integers(-128, 128, frames.shape)
    deep = np.clip(deep, 0, 65535).astype(np.uint16)  # of each, the nearest multiple of 257 is that of the 8 bits
    write_folder(tmp_path / "shallow", frames)
    (tmp_path / "deep").mkdir()
    for number, frame in enumerate(deep):
        assert cv2.imwrite(str(tmp_path / "deep" / f"{number}.png"), frame[..., ::-1])
    shallow, sixteen = (
        evaluate(tmp_path / f"out-{n}", "--data", str(tmp_path / n), "--method", "bicubic") for n in ("shallow", "deep")
    )
    assert mean_of(sixteen) == mean_of(shallow)
    assert "value / 257, rounded" in sixteen["protocol"]["pictures"]


def test_a_grey_clip_is_one_with_equal_channels(tmp_path: Path) -> None:
    grey = np.ascontiguousarray(frames_of(2, 6)[..., 0])
    (tmp_path / "grey").mkdir()
    for number, frame in enumerate(grey):
        Image.fromarray(frame).save(tmp_path / "grey" / f"{number}.png")
    write_folder(tmp_path / "rgb", np.repeat(grey[..., None], 3, axis=3))
    one, three = (
        evaluate(tmp_path / f"out-{n}", "--data", str(tmp_path / n), "--method", "bicubic") for n in ("grey", "rgb")
    )
    assert mean_of(one) == mean_of(three)


def test_a_clip_of_one_frame_has_numbers_but_no_motion(tmp_path: Path, model: str) -> None:
    write_folder(tmp_path / "still", frames_of(1))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "still"), "--method", "bicubic", model)
    for method in ("bicubic", model):
        (clip,) = report["methods"][method]["clips"]
        assert clip["frames"] == 1
        assert clip["motion"] is None
        assert clip["psnr_rgb"] > 5


def test_registry_and_tracking_are_left_alone_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "clip", frames_of(2))
    evaluate(tmp_path / "out", "--data", "clip", "--method", "bicubic")
    assert {path.name for path in tmp_path.iterdir()} <= {"clip", "out", "torch"}


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
        (["--data", "clip", "--method", "bicubic", "--degradation", "BX"], "--degradation BX: there are BI, BD, real"),
        (
            ["--data", "clip", "--method", "bicubic", "--lpips-trunk", "nowhere"],
            "--lpips-trunk nowhere: cannot be read",
        ),
        (["--data", "small", "--method", "bicubic"], "smaller than SSIM's 11x11"),
        (["--data", "mixed", "--method", "bicubic"], "mixed/0001.png: is 64x44, those before are 64x48"),
        (["--data", "clip", "--method", "bicubic", "--border-crop", "20"], "20 pixels along each border .* smaller"),
        (["--data", "clip", "--method", "bicubic", "--border-crop", "-1"], "--border-crop -1: give a number"),
        (["--data", "clip", "--method", "bicubic", "--workers", "none"], "--workers none: write auto, or a number"),
        (["--data", "clip", "--method", "bicubic", "--top-motion", "0%"], "--top-motion 0%: write a share"),
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
    write_folder(tmp_path / "mixed", frames_of(1, 0))
    Image.fromarray(frames_of(1, 0)[0, :44]).save(tmp_path / "mixed" / "0001.png")
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
    assert said == ["error: the following arguments are required: --method, --out; see mana evaluate --help"]
    assert " torch\n" not in done.stderr


def test_passwords_of_urls_are_neither_kept_nor_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "walk.mp4", frames_of(3))
    with web_server() as server:
        server.files = {"/walk.mp4": video.read_bytes()}
        link = server.url.replace("://", "://me:hunter2@") + "/walk.mp4?token=hunter2"
        evaluate(tmp_path / "out", "--data", link, "--method", "bicubic", f"frames:same={link}")
        with pytest.raises(UserError, match=r"token=\*\*\*: has 3 frames, so none from 4 on"):
            evaluate(tmp_path / "bad", "--data", link, "--method", "bicubic", "--frames", "4:")
    output = "".join(capfd.readouterr())
    assert "data: walk (1 clip" in output
    assert "hunter2" not in output
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != video]
    assert any(path.name == "metrics.json" for path in written)
    assert [path.name for path in written if b"hunter2" in path.read_bytes()] == []
