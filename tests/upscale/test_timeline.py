"""Times of a result's frames and sound, against ffprobe and the closed form of how the source was made."""

import shutil
import subprocess
from pathlib import Path

import av
import pytest

from mana_dist.upscale.config import Settings
from tests.upscale.runs import ffprobe, run

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="ffmpeg is not installed"
)
SHORT = Settings(segment=8, preset="ultrafast")
"""Many segments."""
WHOLE = Settings(preset="ultrafast")


def made(path: Path, *options: str, pictures: str = "testsrc2=s=64x48:r=25:d=1", sound: str = "sine=d=1") -> Path:
    """A clip by the ffmpeg program; an empty ``sound`` gives none."""
    inputs = [item for source in (pictures, sound) if source for item in ("-f", "lavfi", "-i", source)]
    subprocess.run(["ffmpeg", "-v", "error", *inputs, *options, str(path)], check=True)
    return path


def recorded(folder: Path, *begins: float, kind: str = "mpegts", pictures: str = "libx264") -> Path:
    """Recordings of one second that begin at these seconds, one after the other in one file."""
    parts = []
    for number, begin in enumerate(begins):
        coded = ["-c:v", pictures, "-bf", "2", "-g", "10", "-c:a", "mp2", "-output_ts_offset", str(begin), "-f", kind]
        parts.append(made(folder / f"part{number}", *coded).read_bytes())
    path = folder / "joined"
    path.write_bytes(b"".join(parts))
    return path


def shown(path: Path) -> list[float]:
    """Return when the pictures are shown, seconds."""
    asked = ["-select_streams", "v:0", "-show_entries", "frame=pts_time"]
    return [float(frame["pts_time"]) for frame in ffprobe(path, *asked)["frames"]]


def heard(path: Path) -> list[float]:
    """Return when the packets of sound are played, seconds."""
    asked = ["-select_streams", "a:0", "-show_entries", "packet=pts_time"]
    return [float(packet["pts_time"]) for packet in ffprobe(path, *asked)["packets"]]


def assert_every(step: float, times: list[float], begin: float | None = None) -> None:
    begin = times[0] if begin is None else begin
    assert times == pytest.approx([begin + number * step for number in range(len(times))], abs=0.0011)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", ["forward50000.ts", "forward20000.ts", "back50000.ts"])
def test_a_clock_that_jumps_gives_one_timeline(cases: Path, tmp_path: Path, name: str, suffix: str) -> None:
    summary = run(cases / name, tmp_path / f"b{suffix}", SHORT)
    times, sound = shown(tmp_path / f"b{suffix}"), heard(tmp_path / f"b{suffix}")
    assert len(times) == 50
    assert_every(0.04, times)
    assert len(sound) == 2 * 39  # of 1152 samples each, 44100 a second
    assert abs(min(*times, *sound)) < 0.001
    for half in (sound[:39], sound[39:]):
        assert_every(1152 / 44100, half)
    # Each half's sound is with its pictures, as it was in its recording.
    assert sound[39] - times[25] == pytest.approx(sound[0] - times[0], abs=0.0011)
    assert summary.left_out == ()
    assert "the source's clock" in summary.note
    assert "--keep-gaps" in summary.note


@needs_ffmpeg
@pytest.mark.parametrize(
    ("begins", "kind", "pictures"),
    [
        ((20, 0, 30000, 7), "mpegts", "libx264"),
        ((0, 300), "vob", "mpeg2video"),  # a picture's time is guessed across the jump
        ((300, 0), "vob", "mpeg2video"),
        ((0, 61), "mpegts", "mpeg2video"),  # a pause
        ((95441.8,), "mpegts", "libx264"),  # 33 bits of 90 kHz end within it
        ((50000,), "mpegts", "libx264"),
    ],
)
def test_recordings_in_one_file_follow_each_other(
    tmp_path: Path, begins: tuple[float, ...], kind: str, pictures: str
) -> None:
    source = recorded(tmp_path, *begins, kind=kind, pictures=pictures)
    summary = run(source, tmp_path / "b.mkv", WHOLE)
    times, sound = shown(tmp_path / "b.mkv"), heard(tmp_path / "b.mkv")
    assert len(times) == 25 * len(begins)
    assert_every(0.04, times)
    assert len(sound) == 39 * len(begins)
    assert min(times[0], sound[0]) == 0
    assert bool(summary.note) == (begins != (95441.8,))


@needs_ffmpeg
@pytest.mark.parametrize("rate", [25, 2])
def test_recordings_in_one_matroska_file_follow_each_other(tmp_path: Path, rate: int) -> None:
    """Its clock does not jump by itself, and FFmpeg takes the second's times to show at for those to decode at."""
    clip = made(
        tmp_path / "part.mkv", *["-c:v", "libx264", "-bf", "2", "-g", "10"], pictures=f"testsrc2=s=64x48:r={rate}:d=4"
    ).read_bytes()
    (tmp_path / "a.mkv").write_bytes(clip + clip)
    summary = run(tmp_path / "a.mkv", tmp_path / "b.mp4", SHORT)
    assert_every(1 / rate, shown(tmp_path / "b.mp4"))
    assert len(shown(tmp_path / "b.mp4")) == 8 * rate
    assert len(heard(tmp_path / "b.mp4")) == len(heard(tmp_path / "a.mkv"))
    assert "the source's clock jumps from" in summary.note
    assert "keep" not in summary.note  # times that go back cannot be kept


def test_a_short_pause_is_kept_and_a_long_one_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    source = recorded(tmp_path / "short", 0, 6)
    run(source, tmp_path / "short.mkv", WHOLE)
    times, before = shown(tmp_path / "short.mkv"), shown(source)
    assert times[25] - times[0] == pytest.approx(before[25] - before[0], abs=0.0011)
    assert times[25] - times[24] > 4.9
    source = recorded(tmp_path, 0, 61)
    asked = Settings(preset="ultrafast", keep_gaps=True)
    summary = run(source, tmp_path / "kept.mkv", asked)
    times, sound = shown(tmp_path / "kept.mkv"), heard(tmp_path / "kept.mkv")
    before = shown(source)
    assert times == pytest.approx(before, abs=0.0011)
    assert times[25] - times[24] > 59
    assert sound[39] - sound[38] > 59
    assert summary.note == ""


@needs_ffmpeg
def test_pictures_that_pause_while_sound_goes_on_are_no_jump_of_the_clock(tmp_path: Path) -> None:
    pictures = "testsrc2=s=64x48:r=5:d=4,setpts='PTS+gte(N,10)*15/TB'"
    coded = ["-vsync", "passthrough", "-c:v", "libx264", "-g", "50", "-c:a", "mp2", "-f", "mpegts"]
    source = made(tmp_path / "a.ts", *coded, pictures=pictures, sound="sine=d=19")
    summary = run(source, tmp_path / "b.mkv", WHOLE)
    times, sound = shown(tmp_path / "b.mkv"), heard(tmp_path / "b.mkv")
    assert times[10] - times[0] == pytest.approx(17, abs=0.0011)
    assert_every(1152 / 44100, sound, 0)
    assert summary.note == ""


@needs_ffmpeg
def test_other_formats_keep_their_pauses_and_begin_at_0_where_they_would_begin_late(tmp_path: Path) -> None:
    pictures = "testsrc2=s=64x48:r=25:d=1,setpts='PTS+(5000+gte(N,10)*60)/TB'"
    source = made(tmp_path / "a.mkv", "-vsync", "vfr", "-copyts", "-c:v", "libx264", pictures=pictures, sound="")
    assert shown(source)[0] == 5000
    summary = run(source, tmp_path / "b.mp4", WHOLE)
    expected = [number / 25 + 60 * (number >= 10) for number in range(25)]
    assert shown(tmp_path / "b.mp4") == pytest.approx(expected, abs=0.0011)
    assert summary.note.startswith("the source's clock begins at 5000.00 s")


def test_h264_in_avi_is_shown_from_0_on(cases: Path, tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv"):
        run(cases / "h264.avi", tmp_path / f"b{suffix}", SHORT)
        times = shown(tmp_path / f"b{suffix}")
        assert len(times) == 100
        assert_every(0.04, times, 0)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", ["-c:v", "libx264", "-bf", "0"]),
        ("a.avi", ["-c:v", "libx264", "-bf", "4", "-x264-params", "b-pyramid=normal:b-adapt=0"]),
        ("a.avi", ["-c:v", "mpeg4", "-bf", "2"]),
        ("a.avi", ["-c:v", "mpeg2video", "-bf", "2"]),
        ("a.264", ["-c:v", "libx264"]),
        ("a.265", ["-c:v", "libx265", "-x265-params", "log-level=none"]),
        ("a.m2v", ["-c:v", "mpeg2video", "-bf", "2"]),
        ("a.m4v", ["-c:v", "mpeg4", "-bf", "2", "-f", "m4v"]),
        ("a.mpg", ["-c:v", "mpeg2video", "-bf", "2", "-f", "vob"]),
        ("a.mpg", ["-c:v", "libx264", "-f", "vob"]),  # few pictures have a time
        ("a.mp4", ["-c:v", "libx264", "-bf", "4", "-movflags", "negative_cts_offsets"]),
    ],
)
def test_frames_of_a_constant_rate_are_shown_at_it(tmp_path: Path, name: str, options: list[str]) -> None:
    source = made(tmp_path / name, "-g", "10", *options, sound="")
    run(source, tmp_path / "b.mkv", WHOLE)
    times = shown(tmp_path / "b.mkv")
    assert len(times) == 25
    assert_every(0.04, times, 0)


@needs_ffmpeg
@pytest.mark.skipif(shutil.which("mkvmerge") is None, reason="mkvmerge is not installed")
def test_matroska_that_holds_an_avis_times_is_shown_in_order(tmp_path: Path) -> None:
    avi = made(tmp_path / "a.avi", "-c:v", "libx264", "-g", "10", sound="")
    command = ["mkvmerge", "-q", "-o", str(tmp_path / "a.mkv"), "--engage", "allow_avc_in_vfw_mode", str(avi)]
    subprocess.run(command, check=True)
    run(tmp_path / "a.mkv", tmp_path / "b.mp4", WHOLE)
    assert_every(0.04, shown(tmp_path / "b.mp4"), 0)


@needs_ffmpeg
def test_an_mp4_without_times_to_show_at_is_shown_in_order(tmp_path: Path) -> None:
    raw = made(tmp_path / "a.264", "-c:v", "libx264", "-bf", "3", sound="")
    with av.open(str(raw)) as source, av.open(str(tmp_path / "a.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for number, packet in enumerate(packet for packet in source.demux() if packet.size):
            packet.pts = packet.dts = number * packet.time_base.denominator // 25
            packet.stream = stream
            target.mux(packet)
    run(tmp_path / "a.mp4", tmp_path / "b.mkv", WHOLE)
    times = shown(tmp_path / "b.mkv")
    assert len(times) == 25
    assert_every(0.04, times, 0)
