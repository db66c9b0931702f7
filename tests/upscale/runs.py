"""Runs of the upscaler without a network, or with a tiny one, and what players see in the files."""

import json
import shutil
import subprocess
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.model.inference import Pixels
from mana_dist.upscale.config import Settings
from mana_dist.upscale.join import Summary, join
from mana_dist.upscale.source_video import segments_of, survey
from mana_dist.upscale.upscale_segments import Network, upscale_segments

needs_ffprobe = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")


def unchanged(frames: Iterable[Pixels], wanted: Container[int]) -> Iterator[Pixels]:
    """An "upscaler" that gives the frames back, reading ahead as the network does."""
    held: list[Pixels] = []
    given = 0
    for frame in frames:
        held.append(frame)
        while given < len(held) - 2:
            if given in wanted:
                yield held[given]
            given += 1
    for number in range(given, len(held)):
        if number in wanted:
            yield held[number]


SAME = Network(5, unchanged)

SIZE = 160, 128
TICKS = 90_000
CONSTANT = [number * 3600 for number in range(12)]
VARIABLE = [0, 3600, 7201, 9000, 18000, 18001, 30000, 33333, 40000, 41000, 60000, 90000]
LONG = [1000 * number + 300 * (number % 3) + 31 * (number % 7) for number in range(47)]
"""Times of many segments' frames; no two neighbours are as far apart as two others."""


def synthesise(
    path: Path,
    pts: Sequence[int] = CONSTANT,
    audio: str | None = "aac",
    keyframes: int = 250,
    codec: str = "libx264",
) -> Path:
    """A clip of a drifting gradient with a tone, frames at ``pts`` ticks of 1/90000 s."""
    width, height = SIZE
    options = {} if path.suffix == ".mkv" else {"movie_timescale": str(TICKS)}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "10", "g": str(keyframes)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        sound = container.add_stream(audio, rate=48000, layout="mono") if audio else None
        for number, time in enumerate(pts):
            rows, columns = np.mgrid[:height, :width]
            pixels = np.stack([rows * 7 + number * 20, columns * 5, rows + columns], axis=2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            tone = np.sin(np.arange(48000 // 2) / 20)[None] * 2**14
            for start in range(0, tone.shape[1], 1000):
                block = av.AudioFrame.from_ndarray(tone[:, start : start + 1000].astype(np.int16), "s16", "mono")
                block.sample_rate, block.pts = 48000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


def run(
    source: Path,
    destination: Path,
    settings: Settings | None = None,
    network: Network = SAME,
    folder: Path | None = None,
) -> Summary:
    """Do what the command does, without a work folder that outlives it."""
    settings = settings or Settings()
    surveyed = survey(str(source), keep_gaps=settings.keep_gaps)
    segments = segments_of(surveyed, network.frames, settings.segment)
    work = folder or destination.with_name(f"{destination.name}.work")
    upscale_segments(surveyed, segments, network, settings, str(work))
    summary = join(surveyed, segments, str(work), str(destination), settings)
    if folder is None:
        shutil.rmtree(work)
    return summary


@dataclass(frozen=True)
class Contents:
    """The content of a file; times in seconds."""

    times: list[Fraction]
    frames: list[NDArray[Any]]
    audio: list[bytes]
    audio_times: list[Fraction]
    codec: str
    format: str
    colours: tuple[int, int, int, int]


def read(path: Path, pixels: str = "rgb24") -> Contents:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames: list[Any] = []
        packets: list[Any] = []
        for packet in container.demux(stream, *container.streams.audio):
            if packet.stream.type == "video":
                frames += packet.decode()
            elif packet.dts is not None:
                packets.append((bytes(packet), packet.pts * packet.time_base))
        first = frames[0]
        return Contents(
            [frame.pts * frame.time_base for frame in frames],
            [frame.to_ndarray(format=pixels) for frame in frames],
            [data for data, _ in packets],
            [time for _, time in packets],
            stream.codec_context.name,
            first.format.name,
            (first.colorspace, first.color_primaries, first.color_trc, first.color_range),
        )


def ffprobe(path: Path, *options: str) -> Any:
    """ffprobe's word on a file, another FFmpeg than PyAV's."""
    command = ["ffprobe", "-v", "error", "-of", "json", *options, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height after rotation, as ffprobe tells them."""
    stream = ffprobe(path, "-select_streams", "v:0", "-show_streams")["streams"][0]
    turns = [data.get("rotation", 0) for data in stream.get("side_data_list", [])]
    size = stream["width"], stream["height"]
    return (size[1], size[0]) if any(round(turn / 90) % 2 for turn in turns) else size
