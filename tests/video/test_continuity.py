"""Videos that lack packets: every frame taken is one of the whole video, and no window spans what is missing.

The whole video is decoded by PyAV alone.
"""

import io
from collections.abc import Collection, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mana_dist.video.colours import pixels_of
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.priority import no_real_time
from mana_dist.video.reading import read_frames
from mana_dist.video.stream_tags import shown
from mana_dist.video.strict import Damage, DamageFound, numbered_frames, survey
from tests.video.videos import Frames, moving_frames, write_coded

FRAMES = 40
GROUP = 12


class Coded:
    """Moving frames, coded once: not every encoder codes them the same again. ``is_raw``: with all headers inside."""

    def __init__(
        self, codec: str, options: dict[str, str], pts: Sequence[int] | None = None, is_raw: bool = False
    ) -> None:
        self.codec, self.options, self.is_raw = codec, options, is_raw
        with no_real_time(), av.open(io.BytesIO(), "w", format="null") as container:  # SVT-AV1 would keep it
            stream = self._stream(container)
            packets = []
            for number, frame in enumerate(moving_frames(FRAMES)):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=stream.pix_fmt)
                picture.pts = number if pts is None else pts[number]
                packets += stream.encode(picture)
            packets += stream.encode()
        self._packets = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in packets]

    def write(self, path: Path, lost: Collection[int] = ()) -> Path:
        """Leave out the packets with these numbers, in the order of decoding."""
        with no_real_time(), av.open(str(path), "w") as container:
            stream = self._stream(container)
            container.start_encoding()
            for number, (data, pts, dts, is_keyframe) in enumerate(self._packets):
                if number not in lost:
                    packet = av.Packet(data)
                    packet.pts, packet.dts, packet.is_keyframe = pts, dts, is_keyframe
                    packet.time_base, packet.stream = Fraction(1, 25), stream
                    container.mux(packet)
        return path

    def _stream(self, container: Any) -> Any:
        stream = container.add_stream(self.codec, rate=25, options=self.options)
        stream.height, stream.width = 64, 96
        stream.pix_fmt = "yuvj420p" if self.codec == "mjpeg" else "yuv420p"
        stream.gop_size = GROUP
        if not self.is_raw:
            stream.codec_context.flags |= av.codec.context.Flags.global_header
        return stream


def plain(path: Path) -> Frames:
    """Return all frames, as PyAV gives them."""
    with av.open(str(path)) as container:
        view = shown(container.streams.video[0])
        return np.stack([pixels_of(frame, 8, view) for frame in container.decode(video=0)])


def taken(path: Path) -> tuple[list[NumberedFrame], Damage]:
    """Return the frames that the ingest takes from a video."""
    try:
        return list(numbered_frames(str(path))), Damage((), "")
    except DamageFound:
        damage = survey(str(path))
    return list(numbered_frames(str(path), damage=damage)), damage


def assert_whole_and_in_a_row(frames: Sequence[NumberedFrame], whole: Frames) -> None:
    """Each is a frame of ``whole``, and those whose numbers follow each other do so there."""
    places = {frame.tobytes(): place for place, frame in enumerate(whole)}
    assert len(places) == len(whole)
    found = [(number, places.get(pixels.tobytes(), -1)) for number, pixels, *_ in frames]
    assert -1 not in [place for _, place in found]
    for (number, place), (following, its_place) in pairwise(found):
        assert its_place > place
        assert (following == number + 1) <= (its_place == place + 1)


EVEN = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0"
CODED = {
    "h264.mp4": ("libx264", {"x264-params": f"{EVEN}:bframes=0:ref=1"}),
    "pyramid.mkv": ("libx264", {"x264-params": f"{EVEN}:bframes=4:b-pyramid=normal:b-adapt=0"}),
    "open.ts": ("libx264", {"x264-params": f"{EVEN}:open-gop=1:bframes=3:ref=4:b-adapt=0"}),
    "refreshed.mp4": ("libx264", {"x264-params": f"intra-refresh=1:keyint={GROUP}:bframes=0"}),
    "slices.flv": ("libx264", {"x264-params": f"{EVEN}:slices=4:bframes=2"}),
    "baseline.avi": ("libx264", {"x264-params": EVEN, "profile": "baseline"}),
    "raw.h264": ("libx264", {"x264-params": f"{EVEN}:bframes=2:b-adapt=0"}),
    "hevc.mp4": ("libx265", {"x265-params": f"{EVEN}:open-gop=1:bframes=4:log-level=none"}),
    "raw.hevc": ("libx265", {"x265-params": f"{EVEN}:bframes=2:log-level=none"}),
    "av1.mp4": ("libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
    "vp8.webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9.mkv": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}),
    "mpeg2.m2v": ("mpeg2video", {"bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}),
    "flv1.flv": ("flv", {}),
    "ffv1.mkv": ("ffv1", {}),
    "mjpeg.mov": ("mjpeg", {}),
}


def coded_for(name: str) -> Coded:
    codec, options = CODED[name]
    return Coded(codec, options, is_raw=name.endswith((".ts", ".h264", ".hevc")))


def codec_is_slow(name: str) -> bool:
    return CODED[name][0] in ("libx265", "libsvtav1")


@pytest.mark.parametrize("name", CODED)
def test_nothing_wrong_is_taken_where_packets_are_lost(tmp_path: Path, name: str) -> None:
    coded = coded_for(name)
    whole_path = coded.write(tmp_path / name)
    whole = plain(whole_path)
    frames, damage = taken(whole_path)
    assert damage == Damage((), "")
    assert [number for number, *_ in frames] == list(range(FRAMES))
    losses = [{5}, {GROUP}, {8, 9}, {1}, {13}, {16}, {3, 28}]
    for lost in losses[:2] if codec_is_slow(name) else losses:
        path = coded.write(tmp_path / f"lost-{name}", lost)
        frames, damage = taken(path)
        assert_whole_and_in_a_row(frames, whole)
        assert "frames are missing" in damage.reason
        assert len(frames) >= (1 if name == "refreshed.mp4" else 12)  # the rest refers to what is lost


def test_a_packet_of_a_recording_is_lost(cases: Path) -> None:
    whole = plain(cases / "clean.mp4")
    frames, damage = taken(cases / "lost_packet.mp4")
    assert_whole_and_in_a_row(frames, whole)
    assert [number for number, *_ in frames if number < 30] == list(range(30))
    assert len(frames) >= 130
    assert "frames are missing" in damage.reason
    said: list[str] = []
    evaluated = np.stack(list(read_frames(str(cases / "lost_packet.mp4"), damaged=said.append)))
    np.testing.assert_array_equal(evaluated, whole[: len(evaluated)])
    assert len(evaluated) >= 30
    assert "frames are missing" in said[0]


@pytest.mark.parametrize("name", ["h264.mp4", "pyramid.mkv", "hevc.mp4", "mjpeg.mov"])
def test_frames_that_a_camera_left_out_are_not_missing(tmp_path: Path, name: str) -> None:
    """Its encoder counts on. Where nothing counts, a steady rate must tell, and here it is not."""
    codec, options = CODED[name]
    steps = [1, 2, 1, 3] if codec == "mjpeg" else [1] * 9 + [2]
    pts = np.cumsum(np.resize(steps, FRAMES)).tolist()
    path = Coded(codec, options, pts).write(tmp_path / name)
    frames, damage = taken(path)
    assert damage == Damage((), "")
    np.testing.assert_array_equal(np.stack([pixels for _, pixels, *_ in frames]), plain(path))


@pytest.mark.parametrize("name", ["open.ts", "hevc.mp4", "mpeg2.ts"])
def test_a_video_cut_at_an_open_group_is_whole(tmp_path: Path, name: str) -> None:
    coded = coded_for(name)
    whole = plain(coded.write(tmp_path / name))
    frames, damage = taken(coded.write(tmp_path / f"cut-{name}", range(GROUP + 1)))
    assert damage == Damage((), "")
    assert len(frames) >= 14
    np.testing.assert_array_equal(np.stack([pixels for _, pixels, *_ in frames]), whole[-len(frames) :])


def test_a_lost_frame_that_no_other_refers_to_costs_no_other(tmp_path: Path) -> None:
    path = Coded(*CODED["raw.h264"]).write(tmp_path / "a.mp4", {6})  # the second frame between two to be referred to
    frames, damage = taken(path)
    assert len(frames) == FRAMES - 1
    assert len(damage.gaps) == 1
    assert len(list(read_frames(str(path)))) == FRAMES - 1


def test_fewer_frames_before_a_steady_rate_is_known(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.webm", moving_frames(3), "libvpx", {"deadline": "realtime"}, pts=[0, 4, 16])
    assert len(taken(path)[0]) == 3
