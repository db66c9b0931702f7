"""One file gives the same frames to all who read it, and damage is the same to them.

What decodes here beside them is a plain PyAV loop.
"""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import Headers

from mana_dist.errors import UserError
from mana_dist.evaluate.scored_clips import Clip
from mana_dist.evaluate.subset import FrameSubset
from mana_dist.serve.windows import Limits, read_window
from mana_dist.upscale import upscale_segments as upscaling
from mana_dist.upscale.config import Settings
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.source_video import survey as look_at
from mana_dist.video.colours import pixels_of
from mana_dist.video.frame_folders import folder_frames
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.progressive import NumberedPicture, progressive
from mana_dist.video.reading import read_frames
from mana_dist.video.stream_tags import shown
from mana_dist.video.strict import Damage, DamageFound, numbered_frames, survey
from tests.upscale.runs import SAME
from tests.video.damage import damaged
from tests.video.videos import moving_frames, write_coded, write_pictures

CLIPS = os.environ.get("MANA_TEST_CLIPS", "")
NAMES = sorted(path.name for path in Path(CLIPS).iterdir() if path.suffix != ".md") if CLIPS else []
needs_clips = pytest.mark.skipif(not CLIPS, reason="MANA_TEST_CLIPS names no folder of real clips")


class Seen(NamedTuple):
    """A frame that somebody read."""

    number: int
    digest: bytes
    time: int = 0
    damaged: bool = False


def digest(pixels: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes() + str(pixels.shape).encode(), digest_size=16).digest()


def ingested(path: Path, stop: int | None) -> tuple[list[Seen], Damage]:
    def seen(damage: Damage | None) -> list[Seen]:
        frames = numbered_frames(str(path), stop=stop, damage=damage)
        return [Seen(frame.number, digest(frame.pixels)) for frame in frames]

    try:
        return seen(None), Damage((), "")
    except DamageFound:
        damage = survey(str(path), stop=stop)
    return seen(damage), damage


def evaluated(path: Path, stop: int | None) -> list[bytes]:
    settings: dict[str, Any] = {"subset": FrameSubset(), "total": None, "exact": False}
    clip = Clip(name="a", dataset="", path="", uri=str(path), lr=None, start=0, stop=stop, **settings)
    return [digest(frame) for frame in clip.frames() if frame is not None]


class Collected:
    """Stands in for the upscaling's files."""

    frames: list[Seen]
    trouble: str

    def __init__(self, *_: object) -> None:
        Collected.frames, Collected.trouble = [], ""

    def __enter__(self) -> "Collected":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, _: Segment, frame: NumberedFrame, result: NDArray[Any], **__: object) -> None:
        Collected.frames.append(Seen(frame.number, digest(result), frame.time, frame.damaged))

    def finish(self, trouble: str) -> None:
        Collected.trouble = trouble


def upscaled(path: Path, stop: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Seen]:
    """Return the results of a network that changes nothing."""
    monkeypatch.setattr(upscaling, "Writers", Collected)
    found = look_at(str(path))
    upscaling.upscale_segments(found, [Segment(0, 0, stop)], SAME, Settings(bits=8), str(tmp_path / "work"))
    return Collected.frames


def decoded(path: Path, stop: int | None) -> list[bytes]:
    """The frames as PyAV gives them, with our colours."""
    with av.open(str(path)) as container:
        view = shown(container.streams.video[0])
        counted = (NumberedPicture(number, frame) for number, frame in enumerate(container.decode(video=0)))
        return [digest(pixels_of(frame.picture, 8, view)) for frame in islice(progressive(counted), stop)]


def times(path: Path) -> list[int]:
    """Return when the frames are shown that a decoder gives which goes on after every error."""
    found: list[int] = []
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        for packet in container.demux(video=0):
            with suppress(av.FFmpegError):
                found += [frame.pts for frame in packet.decode() if frame.pts is not None]
    return found


def assert_all_read_the_same(path: Path, stop: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = decoded(path, stop)
    frames, damage = ingested(path, stop)
    assert damage.reason == ""
    assert [frame.number for frame in frames] == list(range(len(expected)))
    assert [frame.digest for frame in frames] == expected
    assert evaluated(path, stop) == expected
    shown = upscaled(path, stop, monkeypatch, tmp_path)
    assert [frame.digest for frame in shown] == expected
    assert [frame.number for frame in shown] == list(range(len(expected)))
    assert not any(frame.damaged for frame in shown)
    assert Collected.trouble == ""


@needs_clips
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_thirty_frames_of_each_real_clip_are_the_same_to_all(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert_all_read_the_same(Path(CLIPS) / name, 30, monkeypatch, tmp_path)


# One encoder made all of edgetam's, which are more than half of the frames: thirty frames of each are enough.
@needs_clips
@pytest.mark.cluster
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("edgetam_") or "_01_" in name])
def test_all_frames_of_each_real_clip_are_the_same_to_all(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert_all_read_the_same(Path(CLIPS) / name, None, monkeypatch, tmp_path)


def result_of(read: Callable[[], Any]) -> Any:
    """Return what is read, or the error's message."""
    try:
        return read()
    except UserError as error:
        return str(error)


def assert_damage_is_the_same_to_all(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    """Return whether any frame is marked: ingest leaves out whole groups, evaluation stops, upscaling goes on."""
    read: list[Callable[[], Any]] = [partial(ingested, path, None), partial(evaluated, path, None)]
    read.append(partial(upscaled, path, None, monkeypatch, tmp_path))
    ingest, evaluation, shown = map(result_of, read)
    if isinstance(ingest, str) or isinstance(shown, str):
        assert ingest == evaluation == shown
        return False
    frames, damage = ingest
    numbers = [frame.number for frame in shown]
    assert numbers == sorted(numbers)
    right = [frame for frame in shown if not (frame.damaged or damage.spoils(frame.number))]
    assert [frame[:2] for frame in right] == [frame[:2] for frame in frames]
    if damage.ranges and damage.ranges[0].start == 0:
        assert "no frame of it can be used" in evaluation
    else:
        first = damage.ranges[0].start if damage.ranges else sys.maxsize
        assert evaluation == [frame.digest for frame in right if frame.number < first]
    assert len(shown) >= 0.4 * len(times(path))  # a decoder that knows of no keyframes gives more before the first
    return any(frame.damaged for frame in shown)


def test_damage_is_the_same_to_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames = moving_frames(48, 96, 160)
    open_groups = {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}
    codecs = [
        ("a.mp4", "libx264", {}),
        ("b.mkv", "libx264", open_groups),
        ("c.ts", "mpeg2video", {"bf": "2"}),
        ("d.h264", "libx264", {}),
        ("e.mp4", "libx265", {"x265-params": "open-gop=1:keyint=12:bframes=4:scenecut=0:log-level=none"}),
        ("f.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ]
    wholes = [write_coded(tmp_path / name, frames, codec, options) for name, codec, options in codecs]
    marked = 0
    for seed in range(60):
        whole = wholes[seed % len(wholes)]
        copy = tmp_path / f"copy-{whole.name}"
        copy.write_bytes(damaged(whole.read_bytes(), ("flip", "zero", "cut")[seed % 7 % 3], seed))
        marked += assert_damage_is_the_same_to_all(copy, monkeypatch, tmp_path)
    assert marked > 10


def test_a_damaged_frame_of_another_size_is_missing_where_upscaling_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = write_coded(tmp_path / "whole.h264", moving_frames(24, 96, 160)).read_bytes()
    other = write_coded(tmp_path / "other.h264", moving_frames(12, 48, 64)).read_bytes()
    keyframe = other.index(b"\0\0\1\x65") + 8
    broken = other[:keyframe] + bytes(40) + other[keyframe + 40 :]
    copy = tmp_path / "copy.h264"
    copy.write_bytes(whole + other + whole)
    with pytest.raises(UserError, match=r"frame 24 is 64x48, the first one 160x96"):
        upscaled(copy, None, monkeypatch, tmp_path)
    copy.write_bytes(whole + broken + whole)
    expected = decoded(tmp_path / "whole.h264", None)
    seen = upscaled(copy, None, monkeypatch, tmp_path)
    assert [frame.digest for frame in seen] == expected + expected


@pytest.mark.parametrize("name", ["im{}.png", "im{}.jpg"])
def test_pictures_are_the_same_to_all(tmp_path: Path, name: str) -> None:
    folder = write_pictures(tmp_path / "pictures", moving_frames(7), name)
    names = [name.format(number) for number in range(1, 8)]
    expected = [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]
    head = 'Content-Disposition: form-data; name="frames"; filename="{}"'
    parts = [f"--x\r\n{head.format(name)}\r\n\r\n".encode() + (folder / name).read_bytes() for name in names]

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"\r\n".join([*parts, b"--x--\r\n"])

    form = Headers({"content-type": "multipart/form-data; boundary=x"})
    served = asyncio.run(read_window(form, pieces(), Limits(frames=7, body=2**24, pixels=2**20)))
    np.testing.assert_array_equal(served, expected)
    np.testing.assert_array_equal([frame.pixels for frame in folder_frames(str(folder), names)], expected)
    np.testing.assert_array_equal(list(read_frames(str(folder))), expected)
