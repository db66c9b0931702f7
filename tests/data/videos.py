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


def write_video(path: Path, frames: Frames, rate: int = 25, faststart: bool = False) -> Path:
    """Encode ``frames`` without loss as RGB H.264; ``faststart`` puts an mp4's header first, safe from truncation."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(rate), options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_flat_yuv(
    path: Path, yuv: tuple[int, int, int], height: int, matrix: int | None = None, value_range: int | None = None
) -> Path:
    """Three frames of one YUV colour, 64 pixels wide, without loss; matrix and range tagged by ffmpeg's numbers."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if value_range is not None:
            stream.codec_context.color_range = value_range
        for number in range(3):
            frame = av.VideoFrame(64, height, "yuv420p")
            for plane, value in zip(frame.planes, yuv, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
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
