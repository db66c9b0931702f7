"""The upscaled file against its source, read back with PyAV and ffprobe: frames, times to the tick, audio, colours."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from PIL import Image

from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig, inference
from mana_dist.model.inference import Pixels
from mana_dist.registry import model_folder, pretrained
from mana_dist.upscale.__main__ import main
from mana_dist.upscale.config import Settings
from mana_dist.upscale.upscale_segments import Network
from mana_dist.video import reading
from tests.upscale.runs import CONSTANT, LONG, TICKS, VARIABLE, ffprobe, needs_ffprobe, read, run, synthesise
from tests.video.videos import moving_frames, noise_frames, turn_header, write_coded, write_video

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=3, memory_slots=4))
FLAT = (200, 60, 30)
SHORT = Settings(segment=8)
"""Many segments."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("model"))
    model_folder.save(folder, Mana(CONFIG.model).state_dict(), CONFIG)
    return folder


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(
    "pts", [CONSTANT, VARIABLE, [1234], LONG], ids=["constant", "variable", "single frame", "segments"]
)
def test_every_frame_at_its_tick_and_audio_packets_byte_equal(tmp_path: Path, pts: list[int], suffix: str) -> None:
    before = read(synthesise(tmp_path / f"a{suffix}", pts, keyframes=8))
    assert run(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", SHORT).left_out == ()
    after = read(tmp_path / f"b{suffix}")
    assert before.times == [Fraction(time, TICKS) for time in pts]
    assert after.times == before.times
    assert len(before.audio) > 20
    assert after.audio == before.audio
    assert after.audio_times == before.audio_times


@needs_ffprobe
@pytest.mark.parametrize(
    ("codec", "pts"), [("h264", CONSTANT), ("h264", [1234]), ("h264", LONG), ("hevc", LONG), ("av1", LONG)]
)
def test_ffprobe_sees_the_same_frames_and_durations(tmp_path: Path, pts: list[int], codec: str) -> None:
    source, result = synthesise(tmp_path / "a.mp4", pts, keyframes=8), tmp_path / "b.mp4"
    run(source, result, Settings(codec=codec, segment=8))  # type: ignore[arg-type]
    shown = ["-select_streams", "v:0", "-count_frames", "-show_entries"]
    asked = [*shown, "stream=time_base,start_pts,nb_read_frames,width,height:frame=pts:format=duration"]
    before, after = ffprobe(source, *asked), ffprobe(result, *asked)
    assert [frame["pts"] for frame in before["frames"]] == pts
    assert [frame["pts"] for frame in after["frames"]] == pts
    assert after["streams"] == before["streams"]
    assert after["format"] == before["format"]


def test_matroska_keeps_times_to_its_millisecond(tmp_path: Path) -> None:
    before = read(synthesise(tmp_path / "a.mp4", LONG, audio=None, keyframes=8))
    run(tmp_path / "a.mp4", tmp_path / "b.mkv", SHORT)
    after = read(tmp_path / "b.mkv")
    assert len(after.times) == len(before.times)
    assert max(abs(x - y) for x, y in zip(after.times, before.times, strict=True)) <= Fraction(1, 2000)


def test_audio_that_the_container_does_not_take_is_left_out_and_named(tmp_path: Path) -> None:
    before = read(synthesise(tmp_path / "a.mkv", audio="wavpack"))
    assert run(tmp_path / "a.mkv", tmp_path / "b.mp4").left_out == ("audio (wavpack; .mkv takes it)",)
    assert len(read(tmp_path / "b.mp4").times) == len(before.times)
    assert run(tmp_path / "a.mkv", tmp_path / "b.mkv").left_out == ()
    assert read(tmp_path / "b.mkv").audio == before.audio


@pytest.mark.parametrize("height", [32, 720])
@pytest.mark.parametrize("colour", [FLAT, (20, 150, 90), (128, 128, 128), (255, 255, 255), (40, 60, 220)])
def test_colours_survive_and_are_told_in_the_file(tmp_path: Path, height: int, colour: tuple[int, int, int]) -> None:
    write_video(tmp_path / "a.mp4", np.full((3, height, 48, 3), colour, np.uint8))  # RGB, without loss
    run(tmp_path / "a.mp4", tmp_path / "b.mp4", Settings(crf=5))
    assert read(tmp_path / "b.mp4").colours == (1, 1, 1, 1)  # BT.709 matrix, primaries and transfer, studio range
    for frame in reading.read_frames(str(tmp_path / "b.mp4")):
        assert np.abs(frame.astype(int) - colour).max() <= 2


def test_pictures_arrive_in_order_and_nearly_unchanged(tmp_path: Path) -> None:
    before = read(synthesise(tmp_path / "a.mp4", LONG[:12], keyframes=4))
    run(tmp_path / "a.mp4", tmp_path / "b.mp4", Settings(crf=5, segment=8))
    after = read(tmp_path / "b.mp4")
    for number, frame in enumerate(after.frames):
        errors = [np.abs(frame.astype(int) - other).mean() for other in before.frames]
        assert int(np.argmin(errors)) == number


@pytest.mark.parametrize("deep", [False, True])
def test_a_mirrored_clip_comes_out_as_it_is_shown(tmp_path: Path, deep: bool) -> None:
    source = write_coded(tmp_path / "a.mp4", moving_frames(3), pixels="yuv420p10le" if deep else "yuv420p")
    plain = list(reading.read_frames(str(source)))
    turn_header(source, (-1, 0, 0, 1))
    run(source, tmp_path / "b.mp4", Settings(crf=5))
    found = list(reading.read_frames(str(tmp_path / "b.mp4")))
    assert np.abs(found[1].astype(int) - plain[1][:, ::-1]).mean() < 4 < np.abs(found[1].astype(int) - plain[1]).mean()


@pytest.mark.parametrize(("matrix", "turns"), [((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2), ((0, 1, -1, 0), 3)])
def test_a_rotated_clip_comes_out_upright(tmp_path: Path, matrix: tuple[int, int, int, int], turns: int) -> None:
    source = synthesise(tmp_path / "a.mp4", audio=None)
    plain = list(reading.read_frames(str(source)))
    turn_header(source, matrix)
    run(source, tmp_path / "b.mp4", Settings(crf=5))
    turned = list(reading.read_frames(str(tmp_path / "b.mp4")))
    assert np.abs(turned[3].astype(int) - np.rot90(plain[3], turns)).mean() < 12
    assert read(tmp_path / "b.mp4").frames[0].shape == turned[0].shape  # no display matrix: the pixels were turned


def test_command_writes_a_four_times_larger_video(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = synthesise(tmp_path / "a.mp4", VARIABLE)
    main([str(source), str(tmp_path / "b.mp4"), "--model", model, "--device", "cpu", "--crf", "5"])
    after = read(tmp_path / "b.mp4")
    assert after.codec == "h264"
    assert after.frames[0].shape == (512, 640, 3)
    assert after.times == read(source).times
    expected = list(inference.super_resolve(model_folder.load(model)[0], reading.read_frames(str(source))))
    assert np.abs(after.frames[4].astype(int) - expected[4]).mean() < 12  # the codec's and chroma's loss
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    output = capsys.readouterr().out
    assert f"{tmp_path / 'b.mp4'}: 12 frames in" in output
    assert "640x512, h264" in output


def test_the_model_in_the_package_is_the_default_and_is_named_first(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mkv", moving_frames(3, 16, 24))
    command = [str(tmp_path / "a.mkv"), str(tmp_path / "b.mkv"), "--codec", "ffv1", "--precision", "fp32"]
    command += ["--device", "cpu"]
    main(command)
    named = rf"model: pretrained \(version \d+; {re.escape(pretrained.card().trained_for)}\); --model for another"
    assert re.fullmatch(named, capsys.readouterr().out.splitlines()[0])
    network = model_folder.load(pretrained.folder())[0]
    expected = inference.super_resolve(network, reading.read_frames(str(tmp_path / "a.mkv")))
    np.testing.assert_array_equal(read(tmp_path / "b.mkv").frames, list(expected))
    # The result is that of the weights, whatever they were called.
    shutil.copytree(pretrained.folder(), tmp_path / "copy")
    for name in ("pretrained", str(tmp_path / "copy")):
        main([*command, "--model", name])
        assert capsys.readouterr().out.endswith("b.mkv: is done already, by the same command\n")
    with pytest.raises(UserError, match="another"):
        main([*command, "--model", model])
    main([*command, "--model", model, "--overwrite"])
    assert "pretrained" not in capsys.readouterr().out


def test_nothing_stays_under_the_final_name_when_the_work_breaks_off(tmp_path: Path) -> None:
    source = synthesise(tmp_path / "a.mp4")

    def breaks_off(frames: Iterable[Pixels], _: Container[int]) -> Iterator[Pixels]:
        for number, frame in enumerate(frames):
            if number == 6:
                raise RuntimeError("power cut")
            yield frame

    (tmp_path / "b.mp4").write_bytes(b"an earlier result")
    with pytest.raises(RuntimeError, match="power cut"):
        run(source, tmp_path / "b.mp4", network=Network(5, breaks_off), folder=tmp_path / "work")
    assert (tmp_path / "b.mp4").read_bytes() == b"an earlier result"
    assert list((tmp_path / "work").iterdir()) == []


def test_remote_destination_appears_whole_or_not_at_all(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = synthesise(tmp_path / "a.mp4", CONSTANT[:2])

    def upload() -> None:
        run(source, Remote("mock://b.mp4"), folder=tmp_path / "work")  # type: ignore[arg-type]

    def breaks_off(local: IO[bytes], remote: IO[bytes], _: int) -> None:
        remote.write(local.read(100))
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.upscale.encode.shutil.copyfileobj", breaks_off)
        with pytest.raises(OSError, match="connection reset"):
            upload()
    assert list(bucket.iterdir()) == []
    upload()
    assert [path.name for path in bucket.iterdir()] == ["b.mp4"]
    assert len(read(bucket / "b.mp4").frames) == 2


class Remote(str):
    """Stands in for a path where a URI is meant."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("source", "destination", "more", "message"),
    [
        ("nowhere.mp4", "b.mp4", (), "nowhere.mp4: no such file"),
        ("text.mp4", "b.mp4", (), "text.mp4: not a video that can be read"),
        ("a.mp4", "b.gif", (), r"unknown kind of video \.gif; use \.mp4"),
        ("a.mp4", "b", (), r"unknown kind of video \(no suffix\)"),
        ("a.mp4", "missing/b.mp4", (), "there is no folder"),
        ("a.mp4", "a.mp4", (), "is the source itself"),
        ("a.mp4", "./link.mp4", (), "is the source itself"),
        ("a.mp4", "/proc/b.mp4", (), "cannot write to /proc"),
        ("a.mp4", "b.mp4", ("--model", "nowhere"), "model nowhere: no such folder"),
        ("a.mp4", "b.mp4", ("--crf", "52"), "--crf must be from 0"),
        ("a.mp4", "b.mp4", ("--crf", "good"), "argument --crf: invalid int value"),
        (".", "b.mp4", (), "a folder without PNG or JPEG frames"),
        ("a.mp4", "b.mp4", ("--codec", "ffv1"), "ffv1 goes into .mkv"),
        ("a.mp4", "b.mkv", ("--codec", "ffv1", "--crf", "3"), "ffv1 is lossless; leave it out"),
        ("a.mp4", "b.mp4", ("--codec", "png"), "writes a folder of pictures"),
        ("a.mp4", ".", ("--codec", "png"), "the folder is not empty"),
        ("a.mp4", "b.mp4", ("--preset", "hasty"), "h264 does not have it; it has ultrafast"),
        ("a.mp4", "b.mp4", ("--memory", "0"), "--memory must be at least 1 MiB"),
        ("a.mp4", "b.mp4", ("--memory", "abc"), "--memory: 'abc' is neither a number of MiB nor auto nor none"),
        ("a.mp4", "b.mp4", ("--segment", "1"), "--segment must be at least 8"),
        ("a.mp4", "b.mp4/", (), "ends with / is a folder's"),
        ("b.mp4.compare.mp4", "b.mp4", ("--compare",), r"b.mp4.compare.mp4: is the source itself"),
        ("a.mp4", "c.mp4", ("--compare",), r"c.mp4.compare.png: is a folder"),
        ("a.mp4", "x" * 252 + ".mp4", (), r"x.mp4: its name is too long: 256 bytes, and the file system takes 255"),
        ("a.mp4", "x" * 240 + ".mp4", ("--compare",), r"x.mp4.compare.mp4: its name is too long: 256 bytes"),
        (
            "a.mp4",
            "s3://bucket/" + "x" * 1021 + ".mp4",
            (),
            r"its key is too long: 1025 bytes, and a bucket takes 1024",
        ),
        ("pixel.mkv", "b.mp4", (), "pixel.mkv: its frames are of one pixel"),
        ("http://127.0.0.1:1/a.mp4", "b.mp4", (), r"^http://127.0.0.1:1/a.mp4: cannot be read \([^;]*$"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, source: str, destination: str, more: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib3.util.retry.Retry.get_backoff_time", lambda _: 0.0)
    synthesise(tmp_path / "a.mp4", CONSTANT[:2])
    write_video(tmp_path / "pixel.mkv", noise_frames(2, 1, 1))
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "b.mp4.compare.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "c.mp4.compare.png").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        main([source, destination, "--model", model, *more])
    assert sorted(tmp_path.iterdir()) == before


def test_exit_code_2_and_one_line_within_a_second_of_import_time(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mana_dist.upscale", "a.mp4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ})
    output = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert output == ["error: DST is missing; see mana upscale --help"]
    assert " torch\n" not in done.stderr  # what would make the user wait


@pytest.mark.parametrize("scale", [2, 3])
def test_a_models_scale_is_that_of_the_result(tmp_path: Path, scale: int) -> None:
    torch.manual_seed(0)
    config = Config(model=replace(CONFIG.model, scale=scale))
    network = Mana(config.model).eval()
    model_folder.save(str(tmp_path / "model"), network.state_dict(), config)
    write_video(tmp_path / "a.mkv", moving_frames(4, 36, 48))  # RGB, without loss
    frames = list(reading.read_frames(str(tmp_path / "a.mkv")))
    options = ["--model", str(tmp_path / "model"), "--codec", "ffv1", "--precision", "fp32", "--compare"]
    main([str(tmp_path / "a.mkv"), str(tmp_path / "b.mkv"), *options])
    expected = list(inference.super_resolve(network, iter(frames)))
    for result, frame in zip(reading.read_frames(str(tmp_path / "b.mkv")), expected, strict=True):
        assert result.shape == (scale * 36, scale * 48, 3)
        assert np.abs(result.astype(int) - frame).max() <= 1
    with Image.open(tmp_path / "b.mkv.compare.png") as compared:
        assert compared.size[0] >= 3 * scale * 48  # source, bicubic, MANA
