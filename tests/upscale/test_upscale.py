"""The upscaled file against its source, read back with PyAV: frames, timestamps to the tick, audio bytes, colours."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import fs

from mana_dist import inference, model_folder, storage
from mana_dist.config import Config
from mana_dist.data import video
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.upscale.__main__ import main
from mana_dist.upscale.source import open_source
from mana_dist.upscale.target import open_target
from mana_dist.upscale.transcode import transcode
from tests.data.videos import turn_header, write_video

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=3, memory_slots=4))
TICKS = 90_000
CONSTANT = [number * 3600 for number in range(12)]
VARIABLE = [0, 3600, 7201, 9000, 18000, 18001, 30000, 33333, 40000, 41000, 60000, 90000]
FLAT = (200, 60, 30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("model"))
    model_folder.save(folder, Mana(CONFIG.model).state_dict(), CONFIG)
    return folder


def synthesise(
    path: Path,
    pts: Sequence[int] = CONSTANT,
    audio: str | None = "aac",
) -> Path:
    """A clip of a drifting gradient with a tone, frames at ``pts`` ticks of 1/90000 s."""
    width, height = 48, 32
    options = {} if path.suffix == ".mkv" else {"movie_timescale": str(TICKS)}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        sound = container.add_stream(audio, rate=48000, layout="mono") if audio else None
        for number, time in enumerate(pts):
            rows, columns = np.mgrid[:height, :width]
            pixels = np.stack([rows * 7 + number * 20, columns * 5, rows + columns], axis=2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            tone = np.sin(np.arange(48000 // 2) / 20)[None] * 2**14
            for start in range(0, tone.shape[1], 1000):
                block = av.AudioFrame.from_ndarray(tone[:, start : start + 1000].astype(np.int16), "s16", "mono")
                block.sample_rate, block.pts = 48000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


@dataclass(frozen=True)
class Contents:
    """What a file holds; times in seconds."""

    times: list[Fraction]
    frames: list[NDArray[np.uint8]]
    audio: list[bytes]
    audio_times: list[Fraction]
    codec: str
    colours: tuple[int, int, int, int]


def read(path: Path) -> Contents:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames: list[Any] = []
        packets: list[Any] = []
        for packet in container.demux(stream, *container.streams.audio):
            if packet.stream.type == "video":
                frames += packet.decode()
            elif packet.dts is not None:
                packets.append((bytes(packet), packet.pts * packet.time_base))
        first = frames[0]
        return Contents(
            [frame.pts * frame.time_base for frame in frames],
            [frame.to_ndarray(format="rgb24") for frame in frames],
            [data for data, _ in packets],
            [time for _, time in packets],
            stream.codec_context.name,
            (first.colorspace, first.color_primaries, first.color_trc, first.color_range),
        )


def unchanged(frames: Iterable[inference.Frame]) -> Iterator[inference.Frame]:
    """An "upscaler" that gives the frames back."""
    return iter(frames)


def run(source: Path, destination: Path, crf: int = 16) -> list[str]:
    """Transcode without a network; the audio codecs left out."""
    with open_source(str(source)) as opened, open_target(str(destination), opened, crf) as target:
        transcode(opened, target, unchanged, lambda *_: None)
    return target.dropped_audio


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("pts", [CONSTANT, VARIABLE, [1234]], ids=["constant", "variable", "single frame"])
def test_every_frame_at_its_tick_and_audio_packets_byte_equal(tmp_path: Path, pts: list[int], suffix: str) -> None:
    before = read(synthesise(tmp_path / f"a{suffix}", pts))
    assert run(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}") == []
    after = read(tmp_path / f"b{suffix}")
    assert before.times == [Fraction(time, TICKS) for time in pts]
    assert after.times == before.times
    assert len(before.audio) > 20
    assert after.audio == before.audio
    assert after.audio_times == before.audio_times


def test_matroska_keeps_times_to_its_millisecond(tmp_path: Path) -> None:
    before = read(synthesise(tmp_path / "a.mp4", VARIABLE, audio=None))
    run(tmp_path / "a.mp4", tmp_path / "b.mkv")
    after = read(tmp_path / "b.mkv")
    assert len(after.times) == len(before.times)
    assert max(abs(x - y) for x, y in zip(after.times, before.times, strict=True)) <= Fraction(1, 2000)


def test_audio_that_the_container_does_not_take_is_left_out_and_named(tmp_path: Path) -> None:
    before = read(synthesise(tmp_path / "a.mkv", audio="wavpack"))
    assert run(tmp_path / "a.mkv", tmp_path / "b.mp4") == ["wavpack"]
    assert len(read(tmp_path / "b.mp4").times) == len(before.times)
    assert run(tmp_path / "a.mkv", tmp_path / "b.mkv") == []
    assert read(tmp_path / "b.mkv").audio == before.audio


@pytest.mark.parametrize("height", [32, 720])
@pytest.mark.parametrize("colour", [FLAT, (20, 150, 90), (128, 128, 128), (255, 255, 255), (40, 60, 220)])
def test_colours_survive_and_are_told_in_the_file(tmp_path: Path, height: int, colour: tuple[int, int, int]) -> None:
    write_video(tmp_path / "a.mp4", np.full((3, height, 48, 3), colour, np.uint8))  # RGB, without loss
    run(tmp_path / "a.mp4", tmp_path / "b.mp4", crf=5)
    assert read(tmp_path / "b.mp4").colours == (1, 1, 1, 1)  # BT.709 matrix, primaries and transfer, studio range
    for frame in video.read_frames(str(tmp_path / "b.mp4")):
        assert np.abs(frame.astype(int) - colour).max() <= 2


def test_pictures_arrive_in_order_and_nearly_unchanged(tmp_path: Path) -> None:
    before = read(synthesise(tmp_path / "a.mp4", VARIABLE))
    run(tmp_path / "a.mp4", tmp_path / "b.mp4", crf=5)
    after = read(tmp_path / "b.mp4")
    for number, frame in enumerate(after.frames):
        errors = [np.abs(frame.astype(int) - other).mean() for other in before.frames]
        assert int(np.argmin(errors)) == number


def test_a_rotated_clip_comes_out_upright(tmp_path: Path) -> None:
    source = synthesise(tmp_path / "a.mp4", audio=None)
    plain = list(video.read_frames(str(source)))
    turn_header(source, (0, -1, 1, 0))
    run(source, tmp_path / "b.mp4", crf=5)
    turned = read(tmp_path / "b.mp4").frames
    assert turned[0].shape == (48, 32, 3)
    assert np.abs(turned[3].astype(int) - np.rot90(plain[3])).mean() < 12


def test_command_writes_a_four_times_larger_video_and_a_comparison(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = synthesise(tmp_path / "a.mp4", VARIABLE)
    main([str(source), str(tmp_path / "b.mp4"), "--model", model, "--device", "cpu", "--crf", "5", "--compare"])
    after = read(tmp_path / "b.mp4")
    assert after.codec == "h264"
    assert after.frames[0].shape == (128, 192, 3)
    assert after.times == read(source).times
    expected = list(inference.super_resolve(model_folder.load(model)[0], video.read_frames(str(source))))
    assert np.abs(after.frames[4].astype(int) - expected[4]).mean() < 12  # the codec's and chroma's loss
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "b.mp4.compare.png"]
    said = capsys.readouterr().out
    assert f"{tmp_path / 'b.mp4'}: 12 frames in" in said


def test_nothing_stays_under_any_name_when_the_work_breaks_off(tmp_path: Path) -> None:
    source = synthesise(tmp_path / "a.mp4")

    def breaks_off(frames: Iterable[inference.Frame]) -> Iterator[inference.Frame]:
        for number, frame in enumerate(frames):
            if number == 6:
                raise RuntimeError("power cut")
            yield frame

    (tmp_path / "b.mp4").write_bytes(b"an earlier result")
    with (
        pytest.raises(RuntimeError, match="power cut"),
        open_source(str(source)) as opened,
        open_target(str(tmp_path / "b.mp4"), opened, 16) as target,
    ):
        transcode(opened, target, breaks_off, lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    assert (tmp_path / "b.mp4").read_bytes() == b"an earlier result"


def test_remote_destination_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = synthesise(tmp_path / "a.mp4", CONSTANT[:2])
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    store = fs.SubTreeFileSystem(str(bucket), fs.LocalFileSystem())
    local = storage.filesystem
    monkeypatch.setattr(
        storage,
        "filesystem",
        lambda uri: (store, uri.removeprefix("mock://")) if storage.is_remote(uri) else local(uri),
    )

    def upload() -> None:
        with open_source(str(source)) as opened, open_target("mock://b.mp4", opened, 16) as target:
            transcode(opened, target, unchanged, lambda *_: None)

    def breaks_off(local: IO[bytes], remote: IO[bytes], _: int) -> None:
        remote.write(local.read(100))
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.upscale.target.shutil.copyfileobj", breaks_off)
        with pytest.raises(UserError, match="mock://b.mp4: cannot be written .connection reset"):
            upload()
    assert list(bucket.iterdir()) == []
    upload()
    assert [path.name for path in bucket.iterdir()] == ["b.mp4"]
    assert len(read(bucket / "b.mp4").frames) == 2


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
        (".", "b.mp4", (), "is a folder; name a video file"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, source: str, destination: str, more: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    synthesise(tmp_path / "a.mp4", CONSTANT[:2])
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "text.mp4").write_text("this is no video")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        main([source, destination, "--model", model, *more])
    assert sorted(tmp_path.iterdir()) == before


def test_exit_code_2_and_one_line_within_a_second_of_import_time(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mana_dist.upscale", "a.mp4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ})
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert said == ["error: the following arguments are required: DST, --model; see python -m mana_dist.upscale --help"]
    assert " torch\n" not in done.stderr  # what would make the user wait
