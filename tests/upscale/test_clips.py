"""Real clips, as ffprobe sees them: variable frame rates, rotations, edit lists, 10 bits; and odd sizes."""

import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from mana_dist.upscale.config import Settings
from tests.upscale.runs import ffprobe, needs_ffprobe, read, run, shown_size, synthesise
from tests.upscale.test_streams import enlarged
from tests.video.videos import moving_frames, write_coded

CLIPS = os.environ.get("MANA_TEST_CLIPS")
needs_clips = pytest.mark.skipif(not CLIPS, reason="MANA_TEST_CLIPS names no folder of real clips")


def frames(path: Path) -> list[float]:
    """Return when the frames are shown, in seconds, by ffprobe."""
    found = ffprobe(path, "-select_streams", "v:0", "-show_entries", "frame=pts_time")["frames"]
    return [float(frame["pts_time"]) for frame in found]


def packets(path: Path) -> list[tuple[str, str]]:
    """The audio packets' times and sums of their bytes, as ffprobe tells them."""
    found = ffprobe(path, "-select_streams", "a", "-show_packets", "-show_data_hash", "CRC32")
    return [(packet["pts_time"], packet["data_hash"]) for packet in found.get("packets", [])]


@pytest.mark.slow
@needs_clips
@needs_ffprobe
@pytest.mark.parametrize(
    ("name", "bits", "colours"),
    [
        ("androidx_sample_edit_list.mp4", 10, ("bt2020nc", "arib-std-b67", "bt2020", "tv")),  # rotated, variable, HLG
        ("androidx_portrait_4k60.mp4", 8, ("bt470bg", "smpte170m", "bt470bg", "pc")),
        ("gopro_karma.mp4", 8, ("bt709", "bt709", "bt709", "pc")),
        ("mdn_flower.mp4", 8, ("smpte170m", "smpte170m", "smpte170m", "tv")),
    ],
)
def test_real_clips_keep_frames_times_sound_orientation_and_colours(
    tmp_path: Path, name: str, bits: int, colours: tuple[str, ...]
) -> None:
    source, result = Path(CLIPS or "") / name, tmp_path / "b.mp4"
    summary = run(source, result, Settings(codec="hevc" if bits == 10 else "h264", preset="ultrafast", segment=60))
    assert summary.stopped == ""
    before, after = frames(source), frames(result)
    assert len(after) == summary.frames > 10
    assert after == before
    assert packets(result) == packets(source)
    assert shown_size(result) == shown_size(source)
    stream = ffprobe(result, "-select_streams", "v:0", "-show_streams")["streams"][0]
    assert not any("rotation" in data for data in stream.get("side_data_list", []))
    assert stream["pix_fmt"].startswith("yuv420p10" if bits == 10 else "yuv")
    names = ("color_space", "color_transfer", "color_primaries", "color_range")
    original = ffprobe(source, "-select_streams", "v:0", "-show_streams")["streams"][0]
    assert tuple(stream.get(key) for key in names) == colours
    assert tuple(original.get(key) for key in names) == colours
    assert float(stream["duration"]) == pytest.approx(float(original["duration"]), abs=1e-3)


@needs_ffprobe
@pytest.mark.parametrize(("height", "width"), [(35, 21), (32, 33), (17, 64)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    source = write_coded(tmp_path / "a.mp4", moving_frames(9, height, width), pixels="yuv444p")
    run(source, tmp_path / "b.mp4", Settings(), enlarged())
    assert shown_size(tmp_path / "b.mp4") == (4 * width, 4 * height)
    assert len(read(tmp_path / "b.mp4").frames) == 9


@needs_ffprobe
def test_pixel_aspect_is_kept(tmp_path: Path) -> None:
    plain = synthesise(tmp_path / "plain.mp4", audio=None)
    source = tmp_path / "a.mp4"
    with av.open(str(plain)) as given, av.open(str(source), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    for codec in ("h264", "av1"):
        run(source, tmp_path / f"{codec}.mp4", Settings(codec=codec))
        found = ffprobe(tmp_path / f"{codec}.mp4", "-select_streams", "v:0", "-show_streams")["streams"][0]
        assert found["sample_aspect_ratio"] == "4:3"
