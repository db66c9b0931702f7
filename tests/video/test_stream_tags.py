"""Tags of a video's pictures in containers: where chroma lies, what is cropped away, the pixels' aspect."""

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.errors import UserError
from mana_dist.upscale.source_video import survey
from mana_dist.video.containers import open_input
from mana_dist.video.frame_stream import open_frames
from mana_dist.video.header_info import probe_header
from mana_dist.video.orientation import Crop
from mana_dist.video.reading import read_frames
from mana_dist.video.stream_tags import Shown, shown
from mana_dist.video.strict import numbered_frames
from tests.video.videos import noise_frames, turn_header, write_video
from tests.video.yuv import Tags, rgb

needs_ffmpeg = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("ffmpeg", "ffprobe")), reason="ffmpeg is not installed"
)
needs_mkvtoolnix = pytest.mark.skipif(shutil.which("mkvmerge") is None, reason="mkvmerge is not installed")
PATTERN = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.12")
SUBSAMPLED = {"yuv410p": (2, 2), "yuv411p": (2, 0), "yuv420p": (1, 1), "yuv422p": (1, 0), "yuv440p": (0, 1)}

# A file for each codec and container, ffmpeg's arguments, and where chroma must be taken to lie.
FILES = [
    ("h264.mp4", "-c:v libx264 -pix_fmt yuv420p", "left"),
    ("centre.mp4", "-c:v libx264 -pix_fmt yuv420p -x264-params chromaloc=1", "center"),
    ("corner.mkv", "-c:v libx264 -pix_fmt yuv420p -x264-params chromaloc=2", "topleft"),
    ("below.ts", "-c:v libx264 -pix_fmt yuv420p -x264-params chromaloc=4", "bottomleft"),
    ("full.mp4", "-c:v libx264 -pix_fmt yuvj420p", "left"),
    ("ten.mp4", "-c:v libx264 -pix_fmt yuv420p10le", "left"),
    ("h264_422.mkv", "-c:v libx264 -pix_fmt yuv422p", "left"),
    ("hevc.mkv", "-c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le", "left"),
    ("hevc_422.mkv", "-c:v libx265 -x265-params log-level=none -pix_fmt yuv422p10le", "left"),
    ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p", "left"),
    ("av1.mkv", "-c:v libaom-av1 -usage realtime -cpu-used 8 -pix_fmt yuv420p", "left"),
    ("mpeg1.mpg", "-c:v mpeg1video", "center"),
    ("mpeg2.ts", "-c:v mpeg2video", "left"),
    ("mpeg4.avi", "-c:v mpeg4", "left"),
    ("jpeg.avi", "-c:v mjpeg -pix_fmt yuvj420p", "center"),
    ("jpeg_422.mov", "-c:v mjpeg -pix_fmt yuvj422p", "center"),
    ("prores.mov", "-c:v prores -pix_fmt yuv422p10le", "left"),
    ("v210.mov", "-c:v v210 -pix_fmt yuv422p10le", "left"),
    ("ffv1.mkv", "-c:v ffv1 -pix_fmt yuv420p", "left"),
    ("ffv1_centre.mkv", "-c:v ffv1 -pix_fmt yuv420p -chroma_sample_location center", "center"),
    ("ffv1_corner.mkv", "-c:v ffv1 -pix_fmt yuv420p12le -chroma_sample_location topleft", "topleft"),
    ("ffv1_411.mkv", "-c:v ffv1 -pix_fmt yuv411p", "left"),
    ("ffv1_440.mkv", "-c:v ffv1 -pix_fmt yuv440p", "left"),
    ("ffv1_410.avi", "-c:v ffv1 -pix_fmt yuv410p", "left"),
    ("jpeg.y4m", "-pix_fmt yuv420p -chroma_sample_location center", "center"),
    ("left.y4m", "-pix_fmt yuv420p -chroma_sample_location left", "left"),
]


def ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True)


def planes_of(path: Path) -> tuple[list[NDArray[np.generic]], av.VideoFrame]:
    """The first frame's planes, as the decoder gives them."""
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    dtype = np.uint8 if picture.format.components[0].bits == 8 else np.uint16
    lines = [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in picture.planes]
    return list(lines), picture


@needs_ffmpeg
@pytest.mark.parametrize(("name", "arguments", "place"), FILES)
def test_all_readers_take_chroma_from_where_it_lies(tmp_path: Path, name: str, arguments: str, place: str) -> None:
    path = tmp_path / name
    ffmpeg(*PATTERN, *arguments.split(), "-frames:v", "2", str(path))
    planes, picture = planes_of(path)
    bits = picture.format.components[0].bits
    sub = next(
        halvings for start, halvings in SUBSAMPLED.items() if start in picture.format.name.replace("yuvj", "yuv")
    )
    full = "j" in picture.format.name or picture.color_range == 2
    matrix = picture.colorspace if picture.colorspace in (1, 5, 6, 9) else 6
    expected = np.floor(rgb(planes, bits, sub, Tags(place, matrix, full)) * 255 + 0.5)
    found = next(read_frames(str(path)))
    error = found - expected
    assert np.abs(error).max() <= 1
    assert np.abs(error.mean(axis=(0, 1))).max() <= 0.1
    np.testing.assert_array_equal(next(numbered_frames(str(path))).pixels, found)
    with open_frames(str(path)) as source:
        np.testing.assert_array_equal(next(source.frames()).pixels, found)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("pixel_format", "place"), [("yuv420p", (0, 128)), ("yuv422p", (0, -513)), ("yuv420p10le", (0, 128))]
)
def test_ffmpeg_with_the_same_flags_gives_the_same(tmp_path: Path, pixel_format: str, place: tuple[int, int]) -> None:
    ffmpeg(*PATTERN, "-c:v", "ffv1", "-pix_fmt", pixel_format, str(tmp_path / "a.mkv"))
    flags = "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp"
    scale = f"scale={flags}:in_h_chr_pos={place[0]}:in_v_chr_pos={place[1]}:out_range=full,format=gbrp"
    ffmpeg("-i", str(tmp_path / "a.mkv"), "-vf", scale, "-f", "rawvideo", str(tmp_path / "a.gbrp"))
    planes = np.fromfile(tmp_path / "a.gbrp", np.uint8).reshape(-1, 3, 48, 64)
    expected = np.moveaxis(planes[:, [2, 0, 1]], 1, -1)
    error = np.stack(list(read_frames(str(tmp_path / "a.mkv")))) - expected.astype(int)
    assert len(error) == 3
    assert np.abs(error).max() <= 1
    assert np.abs(error.mean(axis=(0, 1, 2))).max() <= 0.1


def with_clean_aperture(video: Path, crop: Crop, size: tuple[int, int]) -> Path:
    """Write a clean aperture box into an mp4 whose header is at its end."""
    data = bytearray(video.read_bytes())
    width, height = crop.size(*size)
    offsets = crop.left - crop.right, crop.top - crop.bottom
    box = struct.pack(">I4s4IiIiI", 40, b"clap", width, 1, height, 1, offsets[0], 2, offsets[1], 2)
    begin, boxes = 0, []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while bytes(data[begin + 4 : begin + 8]) != name:
            begin += struct.unpack_from(">I", data, begin)[0]
        boxes.append(begin)
        begin += 16 if name == b"stsd" else 8
    end = boxes[-1] + struct.unpack_from(">I", data, boxes[-1])[0]
    for place in boxes:
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(box))
    data[end:end] = box
    video.write_bytes(data)
    return video


def shown_by_all(path: Path) -> NDArray[np.uint8]:
    """The frames, the same of all three readers, and of the size that all headers tell."""
    frames = np.stack(list(read_frames(str(path))))
    np.testing.assert_array_equal([frame.pixels for frame in numbered_frames(str(path))], frames)
    with open_frames(str(path)) as source:
        np.testing.assert_array_equal([frame.pixels for frame in source.frames()], frames)
    found = survey(str(path))
    header = probe_header(str(path), None)
    sizes = {(found.width, found.height), (header.width, header.height)}
    assert sizes == {(frames.shape[2], frames.shape[1])}
    return frames


@pytest.mark.parametrize("crop", [Crop(5, 10, 3, 8), Crop(0, 1, 0, 0), Crop(16, 0, 0, 15)])
def test_a_clean_aperture_is_what_is_shown(tmp_path: Path, crop: Crop) -> None:
    frames = noise_frames(3)
    video = with_clean_aperture(write_video(tmp_path / "a.mp4", frames), crop, (96, 64))
    expected = frames[:, crop.top : 64 - crop.bottom, crop.left : 96 - crop.right]
    np.testing.assert_array_equal(shown_by_all(video), expected)
    assert survey(str(video)).pixel_aspect == 1


def test_a_crop_is_made_before_the_picture_is_turned(tmp_path: Path) -> None:
    frames = noise_frames(3)
    video = with_clean_aperture(write_video(tmp_path / "a.mp4", frames), Crop(5, 10, 3, 8), (96, 64))
    turn_header(video, (0, 1, -1, 0))
    np.testing.assert_array_equal(shown_by_all(video), np.rot90(frames[:, 3:56, 5:86], -1, axes=(1, 2)))


@needs_ffmpeg
def test_an_odd_crop_of_subsampled_chroma_leaves_pixels_as_they_are(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    ffmpeg(*PATTERN, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(whole))
    expected = np.stack(list(read_frames(str(whole))))
    cropped = with_clean_aperture(Path(shutil.copy(whole, tmp_path / "a.mp4")), Crop(7, 4, 5, 2), (64, 48))
    np.testing.assert_array_equal(shown_by_all(cropped), expected[:, 5:46, 7:60])


@needs_ffmpeg
def test_the_codecs_own_crop_is_the_decoders(tmp_path: Path) -> None:
    """H.264's and HEVC's, odd ones too, where chroma is not subsampled."""
    for codec, bitstream in (("libx264", "h264_metadata"), ("libx265", "hevc_metadata")):
        whole, cropped = tmp_path / f"{codec}.mp4", tmp_path / f"{codec}.cropped.mp4"
        quiet = ["-x265-params", "log-level=none"] if codec == "libx265" else []
        ffmpeg(*PATTERN, "-c:v", codec, *quiet, "-pix_fmt", "yuv444p", str(whole))
        filter_ = f"{bitstream}=crop_left=3:crop_right=6:crop_top=1:crop_bottom=2"
        ffmpeg("-i", str(whole), "-c", "copy", "-bsf:v", filter_, str(cropped))
        expected = np.stack(list(read_frames(str(whole))))
        np.testing.assert_array_equal(shown_by_all(cropped), expected[:, 1:46, 3:58])


@needs_ffmpeg
@needs_mkvtoolnix
def test_matroskas_crop_and_the_aspect_beside_it(tmp_path: Path) -> None:
    """By its specification the size to show is of the cropped picture; mkvmerge leaves that of the whole one."""
    whole, merged = tmp_path / "whole.mp4", tmp_path / "merged.mkv"
    ffmpeg(*PATTERN, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(whole))
    subprocess.run(["mkvmerge", "-q", "--cropping", "0:5,3,10,1", "-o", str(merged), str(whole)], check=True)
    expected = np.stack(list(read_frames(str(whole))))[:, 3:47, 5:54]
    np.testing.assert_array_equal(shown_by_all(merged), expected)
    assert survey(str(merged)).pixel_aspect == 1
    edits = ["--edit", "track:v1", "--set", "display-width=98", "--set", "display-height=44"]
    subprocess.run(["mkvpropedit", "-q", str(merged), *edits], check=True)
    assert survey(str(merged)).pixel_aspect == 2
    edits = ["--edit", "track:v1", "--delete", "display-width", "--delete", "display-height"]
    subprocess.run(["mkvpropedit", "-q", str(merged), *edits], check=True)
    assert survey(str(merged)).pixel_aspect == 1


@needs_mkvtoolnix
@pytest.mark.parametrize("crop", ["60,0,50,0", "0,64,0,0", "0,10,0,60"])
def test_a_crop_of_the_whole_picture_is_refused_with_what_mends_it(tmp_path: Path, crop: str) -> None:
    whole, merged = write_video(tmp_path / "a.mp4", noise_frames(3)), tmp_path / "b.mkv"
    subprocess.run(["mkvmerge", "-q", "--cropping", f"0:{crop}", "-o", str(merged), str(whole)], check=True)
    with pytest.raises(UserError, match=rf"^{merged}: .*its crop flags .* delete them: mkvpropedit FILE ") as raised:
        next(read_frames(str(merged)))
    words = str(raised.value).rstrip(")").partition("mkvpropedit FILE ")[2].split()
    subprocess.run(["mkvpropedit", "-q", str(merged), *words], check=True)
    assert len(list(read_frames(str(merged)))) == 3


def test_the_cases_crop(cases: Path) -> None:
    frames = shown_by_all(cases / "cropped.mkv")
    assert frames.shape[1:] == (88, 80, 3)
    np.testing.assert_array_equal(frames, np.stack(list(read_frames(str(cases / "whole.mp4"))))[:, 8:, 16:96])
    assert survey(str(cases / "cropped.mkv")).pixel_aspect == 1


@needs_ffmpeg
def test_the_containers_aspect_goes_before_the_codecs(tmp_path: Path) -> None:
    """As ffprobe and players have it."""
    coded, muxed = tmp_path / "coded.mp4", tmp_path / "muxed.mp4"
    ffmpeg(*PATTERN, "-vf", "setsar=4/3", "-c:v", "libx264", str(coded))
    ffmpeg("-i", str(coded), "-c", "copy", "-aspect", "2:1", str(muxed))
    assert survey(str(coded)).pixel_aspect == Fraction(4, 3)
    assert survey(str(muxed)).pixel_aspect == Fraction(3, 2)
    turn_header(muxed, (0, 1, -1, 0))
    assert survey(str(muxed)).pixel_aspect == Fraction(2, 3)


def test_tags_cannot_pass_for_a_crop(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        text = "Frame Cropping: 1/2/3/4\n      Frame Cropping: 1/2/3/4\n  Stream #0:0: Video: x, y(left), 2x2"
        container.metadata.update({"comment": text, "Frame Cropping": "1/2/3/4"})
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["comment"] = text
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    with open_input(str(path)) as (_, stream):
        assert shown(stream) == Shown(chroma="left")


@needs_ffmpeg
def test_deinterlacing_keeps_where_chroma_lies_and_the_crop(tmp_path: Path) -> None:
    """A still picture, whose fields belong together: deinterlaced it is what it is flagged progressive."""
    still = ("-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=0.04,loop=5:1")
    tags = "chromaloc=2"
    for name, flags in (("plain.mp4", tags), ("woven.mp4", f"{tags}:tff=1")):
        ffmpeg(
            *still, "-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-x264-params", flags, str(tmp_path / name)
        )
        with_clean_aperture(tmp_path / name, Crop(5, 4, 3, 2), (64, 64))
    assert planes_of(tmp_path / "woven.mp4")[1].interlaced_frame
    plain, woven = (shown_by_all(tmp_path / name).astype(int) for name in ("plain.mp4", "woven.mp4"))
    assert plain.shape == woven.shape == (6, 59, 55, 3)
    np.testing.assert_array_equal(woven[1:-1], plain[1:-1])


@needs_ffmpeg
def test_a_matrix_that_cannot_be_read_is_refused_by_all_readers(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg(*PATTERN, "-c:v", "libx264", "-pix_fmt", "yuv444p", "-colorspace", "ycgco", str(path))
    for read in (lambda uri: next(read_frames(uri)), lambda uri: next(numbered_frames(uri)), survey):
        with pytest.raises(UserError, match="frame 0 cannot be converted to RGB .its colour matrix is YCgCo"):
            read(str(path))
