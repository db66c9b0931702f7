"""The pixels' aspect in results, as ffprobe and mkvmerge read it; colours stay where they are."""

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mana_dist.upscale.config import Codec, Settings
from mana_dist.upscale.matroska import display_size, write_display_size
from mana_dist.upscale.source_video import survey
from mana_dist.video.reading import read_frames
from tests.upscale.runs import needs_ffprobe, read, run, synthesise
from tests.upscale.test_streams import enlarged

needs_mkvmerge = pytest.mark.skipif(shutil.which("mkvmerge") is None, reason="mkvmerge is not installed")


def stream_of(path: Path) -> dict[str, str]:
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_streams", "-of", "json", str(path)]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"][0]
    return found


def display_of(path: Path) -> tuple[Fraction, list[str]]:
    """The aspect of a Matroska file's picture by mkvmerge, and what it warns of."""
    found = json.loads(subprocess.run(["mkvmerge", "-J", str(path)], capture_output=True, check=True).stdout)
    width, height = map(int, found["tracks"][0]["properties"]["display_dimensions"].split("x"))
    return Fraction(width, height), found["warnings"] + found["errors"]


@pytest.fixture
def anamorphic(tmp_path: Path) -> Path:
    """160x128 pixels of 64:45."""
    source = synthesise(tmp_path / "plain.mp4")
    target = tmp_path / "anamorphic.mp4"
    with av.open(str(source)) as given, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(given.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    return target


@needs_ffprobe
@needs_mkvmerge
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *(("h264", ".mp4"), ("h264", ".mov"), ("h264", ".mkv"), ("hevc", ".mp4"), ("hevc", ".mkv")),
        *(("av1", ".mp4"), ("av1", ".mkv"), ("ffv1", ".mkv")),
    ],
)
def test_pixel_aspect_is_in_every_container_of_every_codec(
    tmp_path: Path, anamorphic: Path, codec: Codec, suffix: str
) -> None:
    result = tmp_path / f"result{suffix}"
    run(anamorphic, result, Settings(codec))
    assert stream_of(result)["sample_aspect_ratio"] == "64:45"
    assert survey(str(result)).pixel_aspect == Fraction(64, 45)
    if suffix == ".mkv":
        assert display_of(result) == (Fraction(160 * 64, 128 * 45), [])
    if codec != "ffv1":  # whose RGB has no chroma
        assert stream_of(result)["chroma_location"] == "left" or codec == "av1"  # ffprobe 5 does not tell of AV1's


@needs_ffprobe
def test_the_cases_aspect(tmp_path: Path, cases: Path) -> None:
    for codec in ("ffv1", "h264"):
        run(cases / "anamorphic.mp4", tmp_path / f"{codec}.mkv", Settings(codec), enlarged())
        assert stream_of(tmp_path / f"{codec}.mkv")["sample_aspect_ratio"] == "64:45"
        assert display_of(tmp_path / f"{codec}.mkv") == (Fraction(8, 5), [])


@needs_ffprobe
@needs_mkvmerge
def test_a_header_is_changed_without_moving_what_follows(tmp_path: Path) -> None:
    """Sound, tags, chapters and the index are where the list of what is where says."""
    source, copy = tmp_path / "a.mkv", tmp_path / "b.mkv"
    synthesise(source, audio="flac")
    shutil.copy(source, copy)
    write_display_size(str(copy), Fraction(2, 3))
    assert copy.stat().st_size == source.stat().st_size
    before, after = read(source), read(copy)
    assert (after.times, after.audio, after.audio_times) == (before.times, before.audio, before.audio_times)
    np.testing.assert_array_equal(after.frames, before.frames)
    assert display_of(copy) == (Fraction(160 * 2, 128 * 3), [])
    with av.open(str(copy)) as container:  # by the index
        container.seek(400_000)
        assert next(container.demux(video=0)).pts is not None
    checked = subprocess.run(["mkvinfo", "-v", "-v", str(copy)], capture_output=True, text=True, check=True).stdout
    assert "EBML damaged" not in checked
    assert "unknown" not in checked.lower()


def test_a_file_of_another_writer_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    with pytest.raises(ValueError, match="not a Matroska file"):
        write_display_size(str(path), Fraction(2))
    assert path.read_bytes() == b"\x1a\x45\xdf\xa3" + bytes(100)


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [
        ((288, 256), Fraction(64, 45), (416, 260)),
        ((2880, 2304), Fraction(64, 45), (4096, 2304)),
        ((2880, 1920), Fraction(8, 9), (2880, 2160)),
        ((64, 48), Fraction(64, 45), (91, 48)),  # 256x135 would be exact, and many times as large
        ((1001, 997), Fraction(1013, 1009), (1005, 997)),
    ],
)
def test_the_size_to_show_is_exact_where_that_is_not_huge(
    size: tuple[int, int], aspect: Fraction, expected: tuple[int, int]
) -> None:
    assert display_size(*size, aspect) == expected


def crossing(frames: np.ndarray) -> float:
    """Return where a row of red crosses the middle between its two sides, in columns."""
    row = frames[..., 0].astype(float).mean(axis=tuple(range(frames.ndim - 2)))
    middle = (row[:8].mean() + row[-8:].mean()) / 2
    at = int(np.flatnonzero((row[:-1] < middle) & (row[1:] >= middle))[0])
    return at + (middle - row[at]) / (row[at + 1] - row[at])


@pytest.mark.parametrize("name", ["edge8.mkv", "edge10.mkv"])
def test_a_colour_edge_stays_where_it_is(tmp_path: Path, cases: Path, name: str) -> None:
    """Left-sited chroma's edge is at LR column 64: at HR column 4 * 64 + 1.5, through any codec."""
    assert crossing(np.stack(list(read_frames(str(cases / name))))) == pytest.approx(64, abs=0.05)
    for codec in ("ffv1", "h264"):
        result = tmp_path / f"{name}.{codec}.mkv"
        run(cases / name, result, Settings(codec, crf=None if codec == "ffv1" else 0), enlarged())
        # Each LR pixel is four columns here, so the crossing lies in the middle of these four, or between two.
        frames = np.stack(list(read_frames(str(result))))
        assert crossing(frames.reshape(*frames.shape[:2], -1, 4, 3).mean(axis=3)) == pytest.approx(64, abs=0.05)
