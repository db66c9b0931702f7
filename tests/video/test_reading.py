"""Reading clips: lossless synthetic videos must come back to the bit; bad ones must say what is wrong."""

import os
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mana_dist.errors import UserError
from mana_dist.upscale.source_video import survey
from mana_dist.video.frame_folders import clip_name
from mana_dist.video.frame_names import parse_frame_range
from mana_dist.video.frame_stream import open_frames
from mana_dist.video.header_info import probe_header
from mana_dist.video.reading import read_frames, read_places
from mana_dist.video.strict import numbered_frames
from tests.video.videos import (
    moving_frames,
    noise_frames,
    turn_header,
    write_coded,
    write_flat_yuv,
    write_pictures,
    write_video,
)


def read(path: Path | str, start: int = 0, stop: int | None = None) -> np.ndarray:
    return np.stack(list(read_frames(str(path), start, stop)))


def test_video_comes_back_to_the_bit(tmp_path: Path) -> None:
    frames = noise_frames(9)
    np.testing.assert_array_equal(read(write_video(tmp_path / "a.mp4", frames)), frames)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (4, 7), (5, None), (8, 100)])
def test_frame_range(tmp_path: Path, start: int, stop: int | None) -> None:
    frames = noise_frames(9)
    video = write_video(tmp_path / "a.mkv", frames)
    folder = write_pictures(tmp_path / "a", frames)
    np.testing.assert_array_equal(read(video, start, stop), frames[start:stop])
    np.testing.assert_array_equal(read(folder, start, stop), frames[start:stop])


def test_range_beyond_the_end_gives_nothing(tmp_path: Path) -> None:
    assert list(read_frames(str(write_video(tmp_path / "a.mp4", noise_frames(3))), 3)) == []


@pytest.mark.parametrize(
    ("matrix", "quarter_turns_left"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0), ((0, 0, 0, 0), 0)],
)
def test_rotation_in_the_header_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], quarter_turns_left: int
) -> None:
    frames = noise_frames(3)
    video = write_video(tmp_path / "phone.mp4", frames)
    turn_header(video, matrix)
    expected = np.rot90(frames, quarter_turns_left, axes=(1, 2))
    np.testing.assert_array_equal(read(video), expected)
    header = probe_header(str(video), None)
    assert (header.height, header.width) == expected.shape[1:3]


@pytest.mark.parametrize(
    "matrix",
    [
        *((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)),
        *((0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)),
    ],
)
def test_all_eight_orientations_put_each_pixel_where_the_matrix_says(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    frames = noise_frames(1, 16, 32)
    video = write_video(tmp_path / "phone.mp4", frames)
    turn_header(video, matrix)
    a, b, c, d = matrix
    # By the definition in ISO/IEC 14496-12: (x, y) is shown at (ax + cy, bx + dy), moved so that none is negative.
    shown = {(a * x + c * y, b * x + d * y): frames[0, y, x] for y in range(16) for x in range(32)}
    left, top = (min(place[axis] for place in shown) for axis in (0, 1))
    found = read(video)[0]
    assert found.shape == ((16, 32, 3) if a else (32, 16, 3))
    for (x, y), pixel in shown.items():
        np.testing.assert_array_equal(found[y - top, x - left], pixel)


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)  # weights of red and blue in luma
YUV = (120, 90, 180)


def analytic_rgb(weights: tuple[float, float], full_range: bool) -> list[float]:
    """Convert from YUV, by the definitions in ITU-R BT.601 and BT.709."""
    red_weight, blue_weight = weights
    offset, luma_steps, chroma_steps = (0, 255, 255) if full_range else (16, 219, 224)
    luma = (YUV[0] - offset) / luma_steps
    blue_difference, red_difference = ((value - 128) / chroma_steps for value in YUV[1:])
    red = luma + 2 * (1 - red_weight) * red_difference
    blue = luma + 2 * (1 - blue_weight) * blue_difference
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return [255 * red, 255 * green, 255 * blue]


# ffmpeg's numbers of matrices: 1 BT.709, 5 and 6 BT.601; of ranges: 1 limited, 2 full.
@pytest.mark.parametrize(
    ("height", "matrix", "value_range", "weights"),
    [
        (718, None, None, BT601),
        (720, None, None, BT709),
        (718, None, 2, BT601),
        (720, None, 2, BT709),
        (64, 1, 1, BT709),
        (720, 5, 1, BT601),
        (720, 6, None, BT601),
        (64, 1, 2, BT709),
        (720, 6, 2, BT601),
    ],
)
def test_colours_are_as_tagged_or_by_the_number_of_lines(
    tmp_path: Path, height: int, matrix: int | None, value_range: int | None, weights: tuple[float, float]
) -> None:
    path = write_flat_yuv(tmp_path / "a.mp4", YUV, height, matrix, value_range)
    expected = analytic_rgb(weights, full_range=value_range == 2)
    assert np.abs(read(path) - expected).max() <= 2
    with open_frames(str(path)) as source:  # the upscaler's reader
        pixels = [frame.pixels for frame in source.frames()]
    np.testing.assert_array_equal(pixels, read(path))


@pytest.mark.parametrize("pixels", ["yuv422p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize(
    ("height", "matrix", "value_range", "weights"), [(64, None, None, BT601), (64, 1, 1, BT709), (720, 6, 2, BT601)]
)
def test_colours_of_other_samplings_and_depths(
    tmp_path: Path,
    height: int,
    matrix: int | None,
    value_range: int | None,
    weights: tuple[float, float],
    pixels: str,
) -> None:
    path = write_flat_yuv(tmp_path / "a.mp4", YUV, height, matrix, value_range, pixels)
    tolerance = 1 if "10" in pixels else 2
    assert np.abs(read(path) - analytic_rgb(weights, full_range=value_range == 2)).max() <= tolerance


def test_alpha_is_dropped_and_colours_are_as_stored(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 4), dtype=np.uint8)
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgba"
        for frame in rgba:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba")))
        container.mux(stream.encode())
    np.testing.assert_array_equal(read(tmp_path / "a.mov"), rgba[..., :3])


def grey(frames: np.ndarray) -> np.ndarray:
    """Without colour, so that chroma, which two fields share, says nothing."""
    return np.repeat(frames[..., :1], 3, axis=3)


def test_interlaced_frames_are_made_progressive(tmp_path: Path) -> None:
    moments = grey(moving_frames(40, step=2))
    woven = moments[::2].copy()
    woven[:, ::2] = moments[1::2, ::2]  # the upper field is a moment later
    lossless = {"qp": "0", "preset": "ultrafast"}
    expected = read(write_coded(tmp_path / "whole.mp4", moments[::2], options=lossless))
    combed = read(write_coded(tmp_path / "combed.mp4", woven, options=lossless))
    interlaced = write_coded(tmp_path / "a.mp4", woven, options={**lossless, "x264-params": "bff=1"})
    got = read(interlaced)
    assert len(got) == 20
    np.testing.assert_array_equal(got[:, 1::2], expected[:, 1::2])  # the first field is as it was
    inner = (slice(1, -1), slice(5, -4))

    def error(frames: np.ndarray) -> float:
        return float(np.abs(frames[inner].astype(int) - expected[inner]).mean())

    assert error(got) < 0.2 * error(combed)
    np.testing.assert_array_equal(read(interlaced, 7, 12), got[7:12])


def test_progressive_frames_are_not_filtered(tmp_path: Path) -> None:
    """An interlaced frame among them changes nothing of those before and after."""
    frames = moving_frames(24)
    lossless = {"qp": "0", "preset": "ultrafast"}
    plain = write_coded(tmp_path / "a.h264", frames, options=lossless)
    flagged = write_coded(tmp_path / "b.h264", frames[:12], options={**lossless, "x264-params": "bff=1"})
    (tmp_path / "both.h264").write_bytes(plain.read_bytes() + flagged.read_bytes() + plain.read_bytes())
    both = read(tmp_path / "both.h264")
    assert len(both) == 60
    np.testing.assert_array_equal(both[:24], read(plain))
    np.testing.assert_array_equal(both[36:], read(plain))
    assert (both[24:36] != read(plain)[:12]).any()


def test_deinterlacing_keeps_the_colours_of_the_file(tmp_path: Path) -> None:
    """HD, so BT.709, untagged: the filter must pass on what the frame tells."""
    flat = np.full((4, 720, 64, 3), (200, 30, 60), np.uint8)
    plain = read(write_coded(tmp_path / "a.mp4", flat))
    np.testing.assert_array_equal(
        read(write_coded(tmp_path / "b.mp4", flat, options={"x264-params": "bff=1"}))[:, 8:-8], plain[:, 8:-8]
    )


def test_numbers_in_frame_names_count_by_value(tmp_path: Path) -> None:
    frames = noise_frames(12)
    folder = write_pictures(tmp_path / "f", frames)  # im1, im2, ..., im12: by letters im10 would follow im1
    (folder / "notes.txt").write_text("not a frame")
    (folder / "._im1.png").write_text("what macOS leaves on other file systems")
    np.testing.assert_array_equal(read(folder), frames)


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    grey = noise_frames(1)[0, :, :, 0]
    folder = tmp_path / "f"
    folder.mkdir()
    Image.fromarray(grey).save(folder / "1.png")
    Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])).save(folder / "2.png")
    np.testing.assert_array_equal(read(folder), np.repeat(grey[None, ..., None], 3, axis=3).repeat(2, axis=0))


def test_file_uri_and_spaces(tmp_path: Path) -> None:
    frames = noise_frames(2)
    video = write_video(tmp_path / "my clip.mp4", frames)
    np.testing.assert_array_equal(read(f"file://{video}"), frames)


def test_truncated_video_gives_the_frames_before(tmp_path: Path) -> None:
    frames = noise_frames(20)
    video = write_video(tmp_path / "a.mkv", frames)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    decoded = read(video)
    assert 5 <= len(decoded) < 20
    np.testing.assert_array_equal(decoded[:5], frames[:5])


def damage_of(video: Path, stop: int | None = None) -> tuple[int, list[str]]:
    """Return the number of frames that a video gives, and the lines about its damage."""
    told: list[str] = []
    return sum(1 for _ in read_frames(str(video), 0, stop, told.append)), told


def test_a_truncated_video_says_so(tmp_path: Path) -> None:
    for name, promised in (("a.mkv", "ended prematurely"), ("a.mp4", "frames of the 20 ")):
        video = write_video(tmp_path / name, noise_frames(20), faststart=True)
        assert damage_of(video) == (20, [])
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
        count, (line,) = damage_of(video)
        assert 5 <= count < 20
        assert line.startswith("damaged")
        assert f"only the first {count} frames are used" in line
        assert promised in line
        assert damage_of(video, 5) == (5, [])


def counted_by_ffprobe(path: Path) -> int:
    command = "ffprobe -v error -count_frames -select_streams v:0 -show_entries stream=nb_read_frames -of csv=p=0"
    return int(subprocess.run([*command.split(), str(path)], capture_output=True, check=True).stdout.split()[0])


@pytest.mark.parametrize("name", ["dropped.avi", "trimmed.mp4", "fragments.mp4", "wmav2.mkv", "part20000.ts"])
def test_a_header_that_counts_more_than_is_shown_promises_nothing(cases: Path, name: str) -> None:
    count = counted_by_ffprobe(cases / name)
    assert damage_of(cases / name) == (count, [])
    assert len(list(numbered_frames(str(cases / name)))) == count
    found = survey(str(cases / name))  # the upscaler's
    assert found.frames == count
    assert found.promised in (None, count)


def test_a_file_cut_between_frames_says_so(tmp_path: Path) -> None:
    """As many whole frames as the index of an AVI would tell of, had it not been cut away."""
    path = write_coded(tmp_path / "a.avi", moving_frames(30), "mjpeg", pixels="yuvj420p")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[19].pos, packets[19].size
    assert place is not None
    path.write_bytes(path.read_bytes()[: place + size + size % 2])
    count, (line,) = damage_of(path)
    assert count == 20
    assert "20 frames of the 30 that its header promises" in line


def test_a_video_that_is_whole_says_nothing_of_damage(tmp_path: Path) -> None:
    for name in ("a.h264", "a.ts", "a.avi", "a.mov", "a.mkv"):
        assert damage_of(write_video(tmp_path / name, noise_frames(9))) == (9, [])


@pytest.mark.skipif(not os.environ.get("MANA_TEST_CLIPS"), reason="MANA_TEST_CLIPS names no folder")
def test_real_videos_that_are_whole_say_nothing_of_damage() -> None:
    folder = Path(os.environ["MANA_TEST_CLIPS"])
    for name in ("boofcv_holiday_display_01.mp4", "mdn_flower.mp4", "cosmos_talk.mp4"):
        assert damage_of(folder / name)[1] == []


def audio_file(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    return path


def several_sizes(folder: Path) -> Path:
    write_pictures(folder, noise_frames(2), "a{}.png")
    return write_pictures(folder, noise_frames(1, 32, 32), "b{}.png")


def renamed_text(path: Path) -> Path:
    path.write_text("this is no video\n" * 100)
    return path


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def broken_picture(folder: Path) -> Path:
    write_pictures(folder, noise_frames(1))
    (folder / "im1.png").write_bytes((folder / "im1.png").read_bytes()[:500])
    return folder


def test_bad_inputs_say_what_is_wrong(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    cases = {
        tmp_path / "missing.mp4": "no such file",
        renamed_text(tmp_path / "text.mp4"): "not a video",
        empty: "not a video",
        audio_file(tmp_path / "sound.wav"): "has no video stream",
        empty_folder(tmp_path / "empty"): "a folder without PNG or JPEG frames",
        several_sizes(tmp_path / "sizes"): r"sizes/b1\.png: is 32x32, those before are 96x64; .* must have one size",
        broken_picture(tmp_path / "broken"): "im1.png: not a picture",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_unreadable_picture_is_left_out_and_told(tmp_path: Path) -> None:
    frames = noise_frames(6)
    folder = write_pictures(tmp_path / "a", frames)
    for name in ("im1.png", "im4.png", "im6.png"):
        (folder / name).write_bytes(b"no picture")
    np.testing.assert_array_equal(read(folder), frames[[1, 2, 4]])
    told: list[str] = []
    places = list(read_places(str(folder), 0, 5, told.append))
    assert [frame is None for frame in places] == [True, False, False, True, False]
    assert told == ["2 of its pictures cannot be read: im1.png, im4.png"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [("s3://b/bunny.final.mp4", "bunny.final"), ("/a/take.2/", "take.2"), ("x.MKV", "x"), ("s3://b/frames", "frames")],
)
def test_clip_name(uri: str, name: str) -> None:
    assert clip_name(uri) == name


@pytest.mark.parametrize(
    ("text", "expected"), [("100:132", (100, 132)), ("100:", (100, None)), (":100", (0, 100)), (":", (0, None))]
)
def test_parse_frame_range(text: str, expected: tuple[int, int | None]) -> None:
    assert parse_frame_range(text) == expected


@pytest.mark.parametrize("text", ["", "100", "a:b", "5:5", "9:3", "-1:5", "1:2:3"])
def test_wrong_frame_ranges_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="frame range"):
        parse_frame_range(text)


@pytest.mark.skipif("MANA_TEST_CLIPS" not in os.environ, reason="MANA_TEST_CLIPS names no folder of real clips")
def test_real_clips_stand_upright() -> None:
    folder = Path(os.environ["MANA_TEST_CLIPS"])
    # The second was filmed sideways: 3840x2160 with a quarter turn in its header.
    for name, size in {"flutter_bee.mp4": (1280, 720), "androidx_portrait_4k60.mp4": (2160, 3840)}.items():
        info = probe_header(str(folder / name), None)
        assert (info.width, info.height) == size
