"""Streams beside the pictures: subtitles, chapters, tags, fonts; and the other kinds of output."""

import csv
import shutil
import subprocess
from collections.abc import Container, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mana_dist.data.degradation import bicubic_upsample
from mana_dist.model.inference import Pixels
from mana_dist.upscale.config import CODECS, Codec, Settings
from mana_dist.upscale.join import join
from mana_dist.upscale.source_video import segments_of, survey
from mana_dist.upscale.upscale_segments import Network, upscale_segments
from mana_dist.video import reading
from tests.upscale.runs import LONG, SAME, TICKS, ffprobe, needs_ffprobe, read, run, synthesise, unchanged
from tests.video.videos import moving_frames, write_coded

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,300\nHello\n\n2\n00:00:00,300 --> 00:00:00,450\nWörld\n"
CHAPTERS = [
    {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
    {"id": 2, "start": 200, "end": 480, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
]
FONT = b"not really a font" * 10


def rich(folder: Path) -> Path:
    """A film with two languages of sound, subtitles, chapters, tags and a font."""
    plain = synthesise(folder / "plain.mkv", LONG, keyframes=8)
    (folder / "a.srt").write_text(SUBTITLES)
    with (
        av.open(str(plain)) as pictures,
        av.open(str(folder / "a.srt")) as texts,
        av.open(str(folder / "rich.mkv"), "w") as target,
    ):
        streams: dict[tuple[int, int], Any] = {}
        for number, source in enumerate((pictures, texts)):
            for stream in source.streams:
                copy = target.add_stream_from_template(stream, opaque=True)
                streams[number, stream.index] = copy
                if stream.type != "video":
                    copy.metadata["language"] = "fin" if stream.type == "audio" else "ger"
                    copy.metadata["title"] = f"The {stream.type}"
        target.add_attachment("font.ttf", "font/ttf", FONT)
        target.set_chapters(CHAPTERS)
        target.metadata["title"] = "A film"
        for number, source in enumerate((pictures, texts)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[number, packet.stream_index]
                    target.mux(packet)
    plain.unlink()
    return folder / "rich.mkv"


def texts_of(path: Path) -> list[tuple[Fraction, int, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.subtitles[0])
        return [(packet.pts * packet.time_base, packet.duration, bytes(packet)) for packet in packets if packet.size]


def test_matroska_keeps_subtitles_chapters_tags_and_fonts(tmp_path: Path) -> None:
    source = rich(tmp_path)
    result = tmp_path / "b.mkv"
    assert run(source, result, Settings(segment=8)).left_out == ()
    assert texts_of(result) == texts_of(source)
    assert len(texts_of(result)) == 2
    assert read(result).audio == read(source).audio
    with av.open(str(source)) as before, av.open(str(result)) as after:
        assert after.metadata["title"] == "A film"
        for one, other in zip(before.streams, after.streams, strict=True):
            assert one.type == other.type
            assert one.metadata.get("title") == other.metadata.get("title")
            assert one.language == other.language
        chapters = [[(c["start"] * c["time_base"], c["metadata"]) for c in each.chapters()] for each in (before, after)]
        assert chapters[0] == chapters[1] != []
        attached = [each.streams.attachments[0] for each in (before, after)]
        assert attached[0].data == attached[1].data == FONT
        assert attached[1].metadata["filename"] == "font.ttf"


@needs_ffprobe
def test_mp4_keeps_what_it_takes_and_the_rest_is_named(tmp_path: Path) -> None:
    source = rich(tmp_path)
    result = tmp_path / "b.mp4"
    summary = run(source, result, Settings(segment=8))
    assert summary.left_out == (
        "title of audio 1 (.mkv takes it)",
        "subtitle (subrip; .mkv takes it)",
        "attachment (font.ttf; .mkv takes it)",
    )
    assert read(result).audio == read(source).audio
    found = ffprobe(result, "-show_chapters", "-show_format", "-show_streams")
    assert [chapter["tags"]["title"] for chapter in found["chapters"]] == ["One", "Two"]
    assert [chapter["start_time"] for chapter in found["chapters"]] == ["0.000000", "0.200000"]
    assert found["format"]["tags"]["title"] == "A film"
    audio = next(stream for stream in found["streams"] if stream["codec_type"] == "audio")
    assert audio["tags"]["language"] == "fin"


def with_sound(path: Path, codec: str) -> Path:
    """A clip of five frames; made by the ffmpeg program, since PyAV cannot write all codecs that it reads."""
    made = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=0.2", "-f", "lavfi", "-i", "sine=duration=0.2"]
    options = ["-c:v", "libx264", "-c:a", codec, "-ac", "2", "-ar", "48000", "-strict", "experimental"]
    subprocess.run(["ffmpeg", "-v", "error", *made, *options, str(path)], check=True)
    return path


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    ("codec", "suffix", "taken"),
    [
        ("dca", ".mkv", True),
        ("dca", ".mp4", True),
        ("truehd", ".mkv", True),
        ("truehd", ".mp4", False),  # its muxer knows it, and refuses the header
        ("pcm_s16le", ".mp4", True),  # a layout must be stored, which Matroska does not
        ("pcm_s16le", ".mov", True),
        ("libopus", ".mov", False),
        ("flac", ".mov", False),
        ("flac", ".mp4", True),
    ],
)
def test_sound_is_copied_or_named_as_left_out_never_in_the_way(
    tmp_path: Path, codec: str, suffix: str, taken: bool
) -> None:
    source = with_sound(tmp_path / "a.mkv", codec)
    result = tmp_path / f"b{suffix}"
    summary = run(source, result)
    name = {"dca": "dts", "libopus": "opus"}.get(codec, codec)
    assert summary.left_out == (() if taken else (f"audio ({name}; .mkv takes it)",))
    after = read(result)
    assert len(after.frames) == 5
    assert b"".join(after.audio) == (b"".join(read(source).audio) if taken else b"")


def sound_of(path: Path) -> list[tuple[str, str]]:
    """The hashes of the packets of sound, with their codec's name, by ffprobe."""
    found = ffprobe(path, "-select_streams", "a:0", "-show_packets", "-show_streams", "-show_data_hash", "md5")
    return [(found["streams"][0]["codec_name"], packet["data_hash"]) for packet in found["packets"]]


@pytest.mark.parametrize("name", ["pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "wmav2"])
def test_matroska_keeps_the_sound_that_ffmpeg_copies_into_it(cases: Path, tmp_path: Path, name: str) -> None:
    source = cases / f"{name}.mkv"
    assert run(source, tmp_path / "b.mkv").left_out == ()
    copy = ["ffmpeg", "-v", "error", "-i", str(source), "-map", "0:a", "-c", "copy", str(tmp_path / "copy.mkv")]
    subprocess.run(copy, check=True)
    assert sound_of(tmp_path / "b.mkv") == sound_of(tmp_path / "copy.mkv") != []
    assert run(source, tmp_path / "b.mp4").left_out == (f"audio ({name}; .mkv takes it)",)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_whose_times_are_there_twice_is_all_kept(cases: Path, tmp_path: Path, suffix: str) -> None:
    source = cases / "fragments.mp4"
    assert run(source, tmp_path / f"b{suffix}").left_out == ()
    assert sound_of(tmp_path / f"b{suffix}") == sound_of(source)
    assert len(sound_of(source)) == 88


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    ("name", "codec", "into", "taken"),
    [
        ("a.avi", "pcm_alaw", ".mkv", True),
        ("a.avi", "g726", ".mkv", True),
        ("a.nut", "pcm_s16be", ".mkv", True),
        ("a.avi", "adpcm_ms", ".mov", False),  # the muxer refuses its packets alone
        ("a.avi", "pcm_s64le", ".mov", False),  # it writes what is read as 16 bits
        ("a.ts", "mp2", ".mp4", True),
    ],
)
def test_sound_is_in_the_result_or_named(tmp_path: Path, name: str, codec: str, into: str, taken: bool) -> None:
    made = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=0.2", "-f", "lavfi", "-i", "sine=duration=0.2"]
    options = ["-c:v", "mpeg4", "-c:a", codec, "-ar", "44100" if codec == "mp2" else "8000", "-strict", "experimental"]
    source = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "error", *made, *options, str(source)], check=True)
    summary = run(source, tmp_path / f"b{into}")
    hashes = ["ffmpeg", "-v", "error", "-i", "FILE", "-map", "0:a", "-c", "copy", "-f", "streamhash", "-"]
    named = any(line.startswith("audio (") for line in summary.left_out)
    assert named != taken
    if taken:
        both = [
            subprocess.run([str(path) if item == "FILE" else item for item in hashes], check=True, capture_output=True)
            for path in (source, tmp_path / f"b{into}")
        ]
        assert both[0].stdout == both[1].stdout != b""


@needs_ffprobe
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_what_is_named_is_what_the_file_lacks(tmp_path: Path) -> None:
    made = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=0.2", "-f", "lavfi", "-i", "sine=duration=0.2"]
    tags = ["-metadata", "title=A film", "-metadata", "DIRECTOR=Me", "-metadata:s:a", "title=Comments"]
    marks = ["-disposition:a", "comment", "-metadata:s:a", "language=fin"]
    source = tmp_path / "a.mkv"
    subprocess.run(["ffmpeg", "-v", "error", *made, *tags, *marks, str(source)], check=True)
    assert run(source, tmp_path / "b.mkv").left_out == ()
    missing = ("title of audio 1 (.mkv takes it)", "tag DIRECTOR (.mkv takes it)")
    assert run(source, tmp_path / "b.mp4").left_out == missing
    found = ffprobe(tmp_path / "b.mp4", "-show_format", "-show_streams")
    assert "title" not in found["streams"][1]["tags"]
    assert found["streams"][1]["tags"]["language"] == "fin"
    assert found["streams"][1]["disposition"]["comment"] == 1
    assert found["format"]["tags"]["title"] == "A film"
    assert not {"director", "DIRECTOR"} & set(found["format"]["tags"])


@needs_ffprobe
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_a_timecode_that_is_kept_is_not_named(tmp_path: Path, suffix: str) -> None:
    made = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=0.2", "-timecode", "01:00:00:00"]
    subprocess.run(["ffmpeg", "-v", "error", *made, str(tmp_path / "a.mov")], check=True)
    assert run(tmp_path / "a.mov", tmp_path / f"b{suffix}").left_out == ()
    assert "01:00:00:00" in str(ffprobe(tmp_path / f"b{suffix}", "-show_format", "-show_streams"))


def test_matroska_has_the_times_of_an_mp4_whose_edit_list_hides_sound(tmp_path: Path) -> None:
    source = synthesise(tmp_path / "a.mp4")
    run(source, tmp_path / "b.mkv")
    before, after = read(source), read(tmp_path / "b.mkv")
    assert before.audio_times[0] < 0  # AAC's first packet is not to be heard
    assert after.audio == before.audio[1:]
    for times, expected in ((after.times, before.times), (after.audio_times, before.audio_times[1:])):
        assert max(abs(one - other) for one, other in zip(times, expected, strict=True)) <= Fraction(1, 1000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("codec", "name"), [("hevc", "hevc"), ("av1", "av1")])
def test_other_codecs_give_the_same_times_and_nearly_the_same_pictures(
    tmp_path: Path, codec: Codec, name: str, suffix: str
) -> None:
    source = synthesise(tmp_path / f"a{suffix}", LONG, keyframes=8)
    run(source, tmp_path / f"b{suffix}", Settings(codec=codec, segment=16))
    before, after = read(source), read(tmp_path / f"b{suffix}")
    assert after.times == before.times
    assert after.audio == before.audio
    assert name in after.codec or after.codec == "libdav1d"
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(before.frames, after.frames, strict=True)) < 12


def test_ffv1_is_lossless(tmp_path: Path) -> None:
    source = synthesise(tmp_path / "a.mp4", LONG[:20], keyframes=8)
    run(source, tmp_path / "b.mkv", Settings(codec="ffv1", segment=8))
    np.testing.assert_array_equal(read(tmp_path / "b.mkv").frames, list(reading.read_frames(str(source))))


@pytest.mark.parametrize("deep", [False, True])
def test_png_frames_are_the_frames_and_their_times_are_in_a_table(tmp_path: Path, deep: bool) -> None:
    if deep:
        source = write_coded(tmp_path / "a.mp4", moving_frames(20), options={"g": "8"}, pixels="yuv420p10le")
    else:
        source = synthesise(tmp_path / "a.mp4", LONG[:20], keyframes=8)
    folder = tmp_path / "frames"
    for _ in range(2):  # a second time in place of the first
        summary = run(source, folder, Settings(codec="png", segment=8))
    assert summary.frames == 20
    names = [f"{number:08}.png" for number in range(20)]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "timestamps.csv"]
    for name, frame in zip(names, reading.read_frames(str(source)), strict=True):
        with av.open(str(folder / name)) as picture:
            found = next(picture.decode(video=0))
            assert found.format.name == ("rgb48be" if deep else "rgb24")
            eight = np.rint(found.to_ndarray(format="rgb48le") / 257) if deep else found.to_ndarray(format="rgb24")
        assert np.abs(eight.astype(int) - frame).max() <= (2 if deep else 0)
    rows = list(csv.DictReader((folder / "timestamps.csv").open()))
    assert [row["file"] for row in rows] == names
    if not deep:
        assert [int(row["pts"]) for row in rows] == LONG[:20]
        assert all(row["time_base"] == f"1/{TICKS}" for row in rows)
        assert float(rows[7]["seconds"]) == pytest.approx(LONG[7] / TICKS, abs=1e-6)


def test_pictures_of_a_longer_video_do_not_stay_in_a_remote_folder(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "frames").mkdir()
    for name in ("00000000.png", "00000002.png", "00000010.png", "timestamps.csv", "notes.txt", "7.png"):
        (bucket / "frames" / name).write_text("old")
    source = synthesise(tmp_path / "a.mp4", LONG[:2])
    surveyed = survey(str(source))
    segments = segments_of(surveyed, SAME.frames, 8)
    settings = Settings(codec="png", segment=8)
    upscale_segments(surveyed, segments, SAME, settings, str(tmp_path / "work"))
    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.upscale.picture_folder._table", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            join(surveyed, segments, str(tmp_path / "work"), "mock://frames", settings)
    assert not (bucket / "frames" / "timestamps.csv").exists()  # an old table must not vouch for what is half done
    join(surveyed, segments, str(tmp_path / "work"), "mock://frames", settings)
    left = sorted(path.name for path in (bucket / "frames").iterdir())
    assert left == ["00000000.png", "00000001.png", "7.png", "notes.txt", "timestamps.csv"]


def test_the_comparison_is_there_before_the_result(tmp_path: Path) -> None:
    source = write_coded(tmp_path / "a.mp4", moving_frames(3, 32, 48))
    (tmp_path / "b.mp4.compare.png").mkdir()  # in the way
    with pytest.raises(OSError, match="directory"):
        run(source, tmp_path / "b.mp4", Settings(compare=True), enlarged())
    assert not (tmp_path / "b.mp4").exists()


def enlarged() -> Network:
    """Four times as large, pixel by pixel."""

    def upscale(frames: Iterable[Pixels], wanted: Container[int]) -> Iterator[Pixels]:
        for frame in unchanged(frames, wanted):
            yield frame.repeat(4, 0).repeat(4, 1)

    return Network(5, upscale)


def test_comparison_shows_bicubic_beside_the_result(tmp_path: Path) -> None:
    def darker(frames, wanted):  # type: ignore[no-untyped-def]
        for number, frame in enumerate(frames):
            assert number in wanted
            yield np.kron(frame, np.ones((4, 4, 1), np.uint8)) // (1 + (number == 5))

    source = write_coded(tmp_path / "a.mp4", moving_frames(12, 32, 48), options={"g": "4"})
    summary = run(source, tmp_path / "b.mp4", Settings(crf=1, segment=8, compare=True), Network(1, darker))
    assert summary.extras == (str(tmp_path / "b.mp4.compare.mp4"), str(tmp_path / "b.mp4.compare.png"))
    compared = read(tmp_path / "b.mp4.compare.mp4")
    assert compared.times == read(source).times
    lr = list(reading.read_frames(str(source)))
    for number in (2, 5, 9):
        left, right = np.split(compared.frames[number].astype(int), 2, axis=1)
        assert np.abs(left - bicubic_upsample(lr[number])).mean() < 8
        assert np.abs(right - np.kron(lr[number], np.ones((4, 4, 1))) // (1 + (number == 5))).mean() < 8
    with Image.open(tmp_path / "b.mp4.compare.png") as still:
        dark = np.asarray(still)[
            40:-10, -still.width // 6 :
        ]  # in the panel at the right: of frame 5, the most different
    assert dark.mean() < 80


@pytest.mark.parametrize("codec", list(CODECS))
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, codec: Codec) -> None:
    source = synthesise(tmp_path / "a.mp4", LONG[:20], keyframes=8)
    results = []
    for number in range(2):
        result = tmp_path / ("frames" if codec == "png" else f"b{number}.mkv")
        run(source, result, Settings(codec=codec, segment=8))
        files = sorted(result.iterdir()) if result.is_dir() else [result]
        results.append([path.read_bytes() for path in files])
        if result.is_dir():
            shutil.rmtree(result)
    assert results[0] == results[1]
