"""Decoding for the ingest: segments equal the whole, damage is left out and nothing else, numbers stay right."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.video.colours import pixels_of
from mana_dist.video.containers import open_input
from mana_dist.video.frame_folders import folder_frames
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.gops import GopDecoder
from mana_dist.video.header_info import HeaderInfo, probe_header
from mana_dist.video.progressive import NumberedPicture, progressive
from mana_dist.video.reading import read_frames
from mana_dist.video.stream_tags import shown
from mana_dist.video.strict import (
    Damage,
    DamageFound,
    Segment,
    numbered_frames,
    plan_segments,
    survey,
)
from tests.video.videos import (
    moving_frames,
    noise_frames,
    turn_header,
    write_coded,
    write_encrypted,
    write_pictures,
    write_video,
)

OPEN_H264 = {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal:ref=4:scenecut=0"}
OPEN_HEVC = {"x265-params": "open-gop=1:keyint=12:bframes=4:scenecut=0:log-level=none"}
REFRESHED = {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}
INTERLACED = {"x264-params": "bff=1:keyint=12:bframes=2"}


def assert_same(got: Sequence[NumberedFrame], expected: Sequence[NumberedFrame]) -> None:
    assert [frame.number for frame in got] == [frame.number for frame in expected]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def everything(path: Path) -> list[NumberedFrame]:
    """The frames as PyAV gives them when it reads the file through, counted."""
    with av.open(str(path)) as container:
        view = shown(container.streams.video[0])
        counted = (NumberedPicture(number, frame) for number, frame in enumerate(container.decode(video=0)))
        return [NumberedFrame(number, pixels_of(picture, 8, view)) for number, picture, *_ in progressive(counted)]


def keyframes(path: Path) -> list[tuple[int, int]]:
    """Position of its packet in the stream, and time stamp, of every keyframe."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [(place, packet.pts or 0) for place, packet in enumerate(packets) if packet.is_keyframe]


def test_frames_and_numbers_are_those_of_reading_and_counting(tmp_path: Path) -> None:
    frames = noise_frames(9)
    path = write_video(tmp_path / "a.mp4", frames)
    assert_same(list(numbered_frames(str(path))), [NumberedFrame(*item) for item in enumerate(frames)])
    part = list(numbered_frames(str(path), start=4, stop=7))
    assert_same(part, [NumberedFrame(number, frames[number]) for number in (4, 5, 6)])
    assert list(numbered_frames(str(path), start=9)) == []


CODED = [
    ("mp4", "libx264", {}),
    ("mkv", "libx264", {}),
    ("ts", "libx264", {}),
    ("mp4", "libx264", OPEN_H264),
    ("ts", "libx264", OPEN_H264),
    ("mp4", "libx265", OPEN_HEVC),
    ("mkv", "libx265", OPEN_HEVC),
    ("ts", "mpeg2video", {"bf": "2"}),
    ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("mov", "prores_ks", {}),
    ("mp4", "libx264", INTERLACED),
]


@pytest.mark.parametrize(("container", "codec", "options"), CODED)
def test_segments_give_the_very_frames_of_the_whole(
    tmp_path: Path, container: str, codec: str, options: dict[str, str]
) -> None:
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = write_coded(tmp_path / f"a.{container}", moving_frames(100), codec, options, pixels)
    expected = everything(path)
    assert_same(list(numbered_frames(str(path))), expected)
    segments = plan_segments(str(path), length=14, overlap=6, start=5, stop=95)
    assert len(segments) >= 3
    for segment, following in pairwise(segments):
        assert segment.frames is not None
        assert segment.first + segment.frames == following.first + 6  # each window of 7 lies in just one
        assert following.first - segment.first >= 14
    last = segments[-1]
    assert segments[0].first == 5
    assert last.frames is not None
    assert last.first + last.frames == 95
    for segment in segments:
        assert segment.frames is not None
        got = list(numbered_frames(str(path), segment))
        assert_same(got, expected[segment.first : segment.first + segment.frames])


def test_variable_frame_rate_is_counted_not_timed(tmp_path: Path) -> None:
    pts = np.cumsum(np.random.default_rng(0).integers(1, 30, 100)).tolist()
    path = write_coded(tmp_path / "a.mp4", moving_frames(100), pts=pts)
    expected = everything(path)
    segments = plan_segments(str(path), length=14, overlap=6)
    assert len(segments) >= 3
    for segment in segments:
        stop = None if segment.frames is None else segment.first + segment.frames
        assert_same(list(numbered_frames(str(path), segment)), expected[segment.first : stop])


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path) -> None:
    source = write_coded(tmp_path / "a.mkv", moving_frames(100))
    path = tmp_path / "edited.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as edited:
        stream = edited.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.pts is not None and packet.dts is not None:
                packet.stream = stream
                packet.pts, packet.dts = packet.pts - 200, packet.dts - 200  # milliseconds: five frames
                edited.mux(packet)
    with av.open(str(path)) as container:
        hidden = sum(packet.is_discard for packet in container.demux(video=0))
    shown = everything(path)
    assert hidden > 0
    assert len(shown) < 100
    np.testing.assert_array_equal(shown[-1].pixels, everything(source)[-1].pixels)
    assert_same(list(numbered_frames(str(path))), shown)
    segments = plan_segments(str(path), length=14, overlap=6)
    assert len(segments) >= 3
    for segment in segments:
        stop = None if segment.frames is None else segment.first + segment.frames
        assert_same(list(numbered_frames(str(path), segment)), shown[segment.first : stop])


@pytest.mark.parametrize(
    ("name", "options"),
    [("raw.h264", {}), ("refreshed.mp4", REFRESHED), ("one.mp4", {"x264-params": "keyint=999:scenecut=0"})],
)
def test_what_cannot_be_cut_stays_whole(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = write_coded(tmp_path / name, moving_frames(64), options=options)
    assert plan_segments(str(path), 14, 6, 3, 50) == [Segment(None, 3, 47)]


def test_short_videos_stay_whole(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_frames(64))
    assert plan_segments(str(path), length=33, overlap=6) == [Segment(None, 0, None)]


@pytest.mark.parametrize("case", ["no frame comes first", "no such time stamp"])
def test_a_segment_that_cannot_be_reached_is_decoded_from_the_beginning(tmp_path: Path, case: str) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_frames(64), options=REFRESHED)
    place, pts = keyframes(path)[2]  # its picture is whole only some frames later
    segment = Segment(pts if case == "no frame comes first" else pts + 1, place + 1, 10, 1)
    assert_same(list(numbered_frames(str(path), segment)), everything(path)[place + 1 : place + 11])


def test_size_may_change_on_the_way(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", noise_frames(3, 32, 48))
    large = write_video(tmp_path / "large.h264", noise_frames(2))
    joined = tmp_path / "joined.h264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    shapes = [frame.pixels.shape[:2] for frame in numbered_frames(str(joined))]
    assert shapes == [(32, 48)] * 3 + [(64, 96)] * 2


def break_packet(path: Path, number: int) -> None:
    """Zeros in the middle of a packet, as of a hole in the file."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        assert packet.pos is not None
        middle = packet.pos + packet.size // 2
    data = bytearray(path.read_bytes())
    data[middle - 2 : middle + 2] = bytes(4)
    path.write_bytes(data)


@pytest.mark.parametrize("options", [{}, OPEN_H264], ids=["closed", "open"])
def test_a_damaged_group_of_pictures_is_left_out_and_no_other_frame(tmp_path: Path, options: dict[str, str]) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_frames(180), options=options)
    expected = everything(path)
    begin, end = (place for place, _ in keyframes(path)[5:7])
    break_packet(path, begin + 2)
    with pytest.raises(DamageFound):
        list(numbered_frames(str(path)))
    damage = survey(str(path))
    (left_out,) = damage.ranges
    assert set(range(begin + 3, end)) < set(left_out) <= set(range(begin - 3, end + 4))
    assert "left out frames" in damage.reason
    rest = [frame for frame in expected if frame.number not in left_out]
    assert_same(list(numbered_frames(str(path), damage=damage)), rest)


def test_damage_within_a_segment(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_frames(400))
    expected = everything(path)
    segments = plan_segments(str(path), length=190, overlap=6)
    assert len(segments) == 2
    break_packet(path, keyframes(path)[20][0] + 1)
    assert survey(str(path), segments[0]) == Damage((), "")
    damage = survey(str(path), segments[1])
    assert damage.ranges == (range(240, 252),)
    rest = [*expected[segments[1].first : 240], *expected[252:]]
    assert_same(list(numbered_frames(str(path), segments[1], damage=damage)), rest)


def test_where_damage_is_dense_nothing_is_trusted(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_frames(64))
    for place, _ in keyframes(path)[1:4]:
        break_packet(path, place + 1)
    damage = survey(str(path))
    assert "3 of its 6 groups of pictures" in damage.reason
    assert list(numbered_frames(str(path), damage=damage)) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.h264"])
def test_of_a_file_cut_short_the_frames_before_are_taken(tmp_path: Path, name: str) -> None:
    path = write_coded(tmp_path / name, moving_frames(64))
    if name == "a.mp4":  # with its header in front
        path = write_video(path, noise_frames(20), faststart=True, keyframes=5)
    expected = everything(path)
    for share in (0.45, 0.6, 0.83):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        try:
            got = list(numbered_frames(str(cut)))
        except DamageFound:
            damage = survey(str(cut))
            assert "left out frames" in damage.reason
            got = list(numbered_frames(str(cut), damage=damage))
        # Between the last ones some may be missing; the numbers show it.
        in_a_row = [frame for place, frame in enumerate(got) if frame.number == place]
        assert len(in_a_row) >= 0.5 * share * len(expected)
        pairs = zip(in_a_row, expected, strict=False)
        wrong = [one.number for one, other in pairs if not np.array_equal(one.pixels, other.pixels)]
        # Nothing tells where the last frame of a raw stream should end.
        assert len(wrong) <= (1 if name == "a.h264" else 0)


def test_a_file_ends_where_a_stream_comes_up_that_its_header_does_not_name(tmp_path: Path) -> None:
    """PyAV has no place for it, as in an MPEG-TS with a flipped bit, and raises IndexError."""

    def packets(container: Any, stream: Any) -> Iterator[Any]:
        yield from islice(container.demux(stream), 12)
        raise IndexError("list index out of range")

    with open_input(str(write_coded(tmp_path / "a.ts", moving_frames(24)))) as (container, stream):
        decoder = GopDecoder("a.ts", stream, packets(container, stream))
        assert 8 <= len(list(decoder.read())) <= 12
        assert decoder.cut_off == "a stream comes up late"


class FailingFile(io.BytesIO):
    """A storage that goes away after so many bytes."""

    def __init__(self, data: bytes, limit: int) -> None:
        super().__init__(data)
        self.limit = limit

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self.limit:
            raise ConnectionError("the storage went away")
        return super().read(size)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.h264"])
def test_a_storage_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = write_video(tmp_path / name, noise_frames(30), faststart=name == "a.mp4").read_bytes()
    monkeypatch.setattr(storage, "open_read", lambda _: FailingFile(data, len(data) // 2))
    with pytest.raises(ConnectionError, match="went away"):
        list(numbered_frames("clip"))
    with pytest.raises(ConnectionError, match="went away"):
        survey("clip")
    with pytest.raises(UserError, match="clip: cannot be read .*went away"):
        list(read_frames("clip"))


def test_encrypted_videos_are_told_from_damaged_ones(tmp_path: Path) -> None:
    path = write_encrypted(write_video(tmp_path / "a.mp4", noise_frames(5)), tmp_path / "drm.mp4")
    for read in (numbered_frames, read_frames):
        with pytest.raises(UserError, match=r"drm.mp4: is encrypted"):
            list(read(str(path)))
    with pytest.raises(UserError, match="is encrypted"):
        probe_header(str(path), None)


def test_missing_and_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    for name, message in {"missing.mp4": "no such file", "text.mp4": "not a video"}.items():
        uri = str(tmp_path / name)
        for read in (lambda: list(numbered_frames(uri)), lambda: survey(uri), lambda: plan_segments(uri, 10, 6)):  # noqa: B023
            with pytest.raises(UserError, match=message):
                read()


def test_a_folder_is_read_around_its_bad_pictures(tmp_path: Path) -> None:
    frames = noise_frames(6)
    folder = write_pictures(tmp_path / "f", frames)
    names = [f"im{number}.png" for number in range(1, 7)]
    (folder / "im2.png").write_bytes((folder / "im2.png").read_bytes()[:300])
    (folder / "im4.png").unlink()
    got = list(folder_frames(str(folder), names, 0, 5))
    assert_same(got, [NumberedFrame(number, frames[number]) for number in (0, 2, 4)])
    with pytest.raises(UserError, match=r"im2.png: not a picture"):
        list(folder_frames(str(folder), names[1:2]))


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "f", noise_frames(2))
    data = bytearray((folder / "im1.png").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "im1.png").write_bytes(data)
    assert [frame.number for frame in folder_frames(str(folder), ["im1.png", "im2.png"])] == [1]


def test_header_of_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", noise_frames(9), rate=30)
    expected = HeaderInfo(width=96, height=64, frames=9, rate=Fraction(30), codec="h264")
    assert probe_header(str(path), None) == expected
    turn_header(path, (0, 1, -1, 0))
    turned = probe_header(str(path), None)
    assert (turned.width, turned.height) == (64, 96)


def test_header_without_a_count(tmp_path: Path) -> None:
    frames = noise_frames(50)
    assert probe_header(str(write_video(tmp_path / "a.mkv", frames)), None).frames == 50  # duration times rate
    assert probe_header(str(write_video(tmp_path / "a.h264", frames)), None).frames is None


def test_header_of_a_folder(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "f", noise_frames(3))
    info = probe_header(str(folder), ["im1.png", "im2.png", "im3.png"])
    assert info == HeaderInfo(width=96, height=64, frames=3, rate=Fraction(25), codec="png")
