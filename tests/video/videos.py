"""Small synthetic clips for the tests: lossless, so that decoded values compare exactly."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]


def noise_frames(count: int, height: int = 64, width: int = 96, seed: int = 0) -> Frames:
    """uint8 (count, height, width, 3), RGB, of random values: any shift or mix of frames shows."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def moving_frames(count: int, height: int = 64, width: int = 96, step: int = 4) -> Frames:
    """uint8 (count, height, width, 3), RGB: a smooth picture that moves ``step`` pixels to the left per frame."""
    y, x = np.mgrid[0:height, 0 : width + step * count]
    picture = 127 + 60 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None] + np.array([20, 0, -20])
    return np.stack([picture[:, step * i : step * i + width] for i in range(count)]).astype(np.uint8)


def write_video(
    path: Path, frames: Frames, rate: int = 25, faststart: bool = False, keyframes: int | None = None
) -> Path:
    """Encode ``frames`` without loss as RGB H.264.

    ``faststart`` puts an mp4's header first, safe from truncation; every ``keyframes``-th frame is a keyframe.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"qp": "0", "preset": "ultrafast"} | ({"g": str(keyframes)} if keyframes else {})
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(rate), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_coded(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    pts: list[int] | None = None,
) -> Path:
    """Encode ``frames`` with any codec, lossy; a keyframe every 12 unless told; ``pts`` in 1/100 seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.gop_size = 12
        stream.codec_context.time_base = Fraction(1, 100 if pts else 25)
        stream.codec_context.thread_count = 1  # with more, the bytes are not the same every time
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)
            picture.pts = pts[number] if pts else number
            picture.time_base = stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_encrypted(source: Path, target: Path) -> Path:
    """A copy of a video with its packets encrypted, as DRM has them."""
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    with av.open(str(source)) as clear, av.open(str(target), "w", format="mp4", options=key) as closed:
        stream = closed.add_stream_from_template(clear.streams.video[0])
        for packet in clear.demux(video=0):
            if packet.size:
                packet.stream = stream
                closed.mux(packet)
    return target


def write_flat_yuv(
    path: Path,
    yuv: tuple[int, int, int],
    height: int,
    matrix: int | None = None,
    value_range: int | None = None,
    pixels: str = "yuv420p",
) -> Path:
    """Three frames of one YUV colour, 64 pixels wide, without loss; matrix and range tagged by ffmpeg's numbers.

    ``yuv`` are 8-bit values; formats with 10 bits hold four times them.
    """
    deep = pixels.endswith("10le")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, height, pixels
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if value_range is not None:
            stream.codec_context.color_range = value_range
        for number in range(3):
            frame = av.VideoFrame(64, height, pixels)
            for plane, value in zip(frame.planes, yuv, strict=True):
                plane.update(np.full(plane.buffer_size // (1 + deep), value << 2 * deep, "<u2" if deep else "u1"))
            frame.pts = number
            if matrix is not None:
                frame.colorspace = matrix
            if value_range is not None:
                frame.color_range = value_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_header(video: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a rotation into an mp4's track header: the top left 2x2 of its matrix, where the x and the y axis go."""
    data = bytearray(video.read_bytes())
    offset = data.index(b"tkhd") + 44
    a, b, c, d = (value * 65536 for value in matrix)  # 16.16 fixed point
    data[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.write_bytes(data)


def write_pictures(folder: Path, frames: Frames, name: str = "im{}.png") -> Path:
    """Write ``frames`` as lossless pictures ``im1.png``, ``im2.png``, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder
