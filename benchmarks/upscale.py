"""Upscaling a video: ``python -m benchmarks.upscale [--device cpu|cuda] [--quick]``.

Memory: the peak of the whole command on 10 and on 60 seconds of one synthetic video. Speed: the command's frames per
second, decoding and encoding included, with features cached (each frame embedded once), the same with decoding,
network and encoding one after the other, and with the plain sliding window, which embeds all T frames of each window
anew.
"""

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import av
import numpy as np
import torch

from benchmarks.networks import NETWORKS, TOY
from benchmarks.report import Row
from benchmarks.turns import Way, in_turns
from mana_dist.config import Config
from mana_dist.model import Mana, ModelConfig, window_indices
from mana_dist.model.inference import Pixels, super_resolve, super_resolve_window
from mana_dist.model.mana import initial_weights
from mana_dist.model.precision import Precision
from mana_dist.registry import model_folder
from mana_dist.upscale import upscale_segments as upscale_segments_module
from mana_dist.upscale.config import Settings
from mana_dist.upscale.join import join
from mana_dist.upscale.source_video import Survey, segments_of, survey
from mana_dist.upscale.upscale_segments import Network, network, upscale_segments

Item = TypeVar("Item")

RATE = 25
QUICK = ModelConfig(channels=16, encoder_blocks=1, decoder_blocks=2, frames=7, window=5, memory_slots=16)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Upscaling's memory and speed.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="a small network and frame: minutes instead of hours")
    parser.add_argument("--height", type=int, help="of the source (default 180; --quick 48)")
    options = parser.parse_args()
    config = QUICK if options.quick else ModelConfig()
    height = options.height or (48 if options.quick else 180)
    width = height * 16 // 9 // 2 * 2
    print(f"{width}x{height} to {4 * width}x{4 * height}, {config.frames} frames")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        torch.manual_seed(0)
        model = Mana(config).eval()
        model_folder.save(str(folder / "model"), model.state_dict(), Config(model=config))
        memory(folder, options.device, height, width)
        speed(folder, model, options.device, height, width)


def memory(folder: Path, device: str, height: int, width: int) -> None:
    """Peak resident memory of the command, which runs in a process of its own."""
    peaks = []
    for seconds in (10, 60):
        source = write_video(folder / f"{seconds}.mp4", seconds * RATE, height, width)
        command = [sys.executable, "-m", "mana_dist.upscale", str(source), str(folder / f"{seconds}-4x.mp4")]
        begin = time.monotonic()
        peaks.append(peak([*command, "--model", str(folder / "model"), "--device", device, "--preset", "veryfast"]))
        print(f"{seconds:3} s: peak {peaks[-1] / 2**20:.1f} MiB, {time.monotonic() - begin:.0f} s")
    print(f"60 s take {peaks[1] / peaks[0] - 1:+.1%} memory against 10 s")


def peak(command: list[str]) -> int:
    """Of a process' resident memory, bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{command} failed")
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def speed(folder: Path, model: Mana, device: str, height: int, width: int) -> None:
    """Frames per second of both ways on the same video."""
    source = write_video(folder / "speed.mp4", 3 * RATE, height, width)

    def cached(frames: Iterable[Pixels], wanted: Container[int]) -> Iterator[Pixels]:
        return super_resolve(model, frames, device, wanted=wanted)

    def sliding(frames: Iterable[Pixels], _: Container[int]) -> Iterator[Pixels]:
        shot = list(frames)
        size = model.config.frames
        for centre in range(len(shot)):
            window = window_indices(centre, len(shot), size, "reflection")
            yield super_resolve_window(model, np.stack([shot[index] for index in window]), device)

    rates = {"sliding window": rate(source, sliding, model), "cached features": 0.0, "one after other": 0.0}
    for _ in range(2):  # in turns, as other work on the machine comes and goes
        rates["cached features"] = max(rates["cached features"], rate(source, cached, model))
        with mock.patch.multiple(upscale_segments_module, read_ahead=in_turn, WriteBehind=CalledAtOnce):
            rates["one after other"] = max(rates["one after other"], rate(source, cached, model))
    for name, found in rates.items():
        print(f"{name:16} {found:.2f} frames/s, cached features are {rates['cached features'] / found:.2f}x")


def in_turn(items: Iterable[Item], _: int) -> Iterator[Item]:
    """Items read when they are asked for, in the caller's thread."""
    yield from items


class CalledAtOnce(contextlib.nullcontext[Callable[..., None]]):
    """Calls that are made in the caller's thread."""

    def __init__(self, function: Callable[..., None], _: int) -> None:
        super().__init__(self)
        self._function = function

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """Call the function."""
        self._function(*arguments, **named)

    def wait(self) -> None:
        """Nothing waits."""


def rate(source: Path, upscale: Callable[[Iterable[Pixels], Container[int]], Iterator[Pixels]], model: Mana) -> float:
    """Frames per second from opening the source to the finished result; the better of two runs."""
    network = Network(model.config.frames, upscale)
    best = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        frames = upscale_once(source, lambda _: network, Settings(preset="veryfast"))
        best = max(best, frames / (time.perf_counter() - begin))
    return best


def upscale_once(source: Path, network_for: Callable[[Survey], Network], settings: Settings) -> int:
    """Do what ``mana upscale`` does from opening the source to the finished result; returns the number of frames."""
    surveyed = survey(str(source))
    network = network_for(surveyed)
    segments = segments_of(surveyed, network.frames, settings.segment)
    with tempfile.TemporaryDirectory() as work:
        upscale_segments(surveyed, segments, network, settings, work)
        join(surveyed, segments, work, f"{work}/4x.mp4", settings)
    return surveyed.frames


def make_upscaling(source: Path, config: ModelConfig, precision: Precision, *, overlaps: bool) -> Callable[[], int]:
    """Prepare an upscaling of a clip with the command's own settings."""
    model = Mana(config)
    model.load_state_dict(initial_weights(config, 0))
    settings = Settings(precision=precision, device="cpu")

    def run() -> int:
        serial = mock.patch.multiple(upscale_segments_module, read_ahead=in_turn, WriteBehind=CalledAtOnce)
        with contextlib.nullcontext() if overlaps else serial:
            return upscale_once(source, lambda surveyed: network(model.eval(), settings, surveyed), settings)

    return run


def rows(small: bool) -> Iterator[Row]:
    """A clip of 320x180 to 1280x720 with a network of the demo's size, one step after the other and overlapped."""
    config, height, width, frames = (TOY, 48, 84, 9) if small else (NETWORKS["tiny"], 180, 320, 12)
    with tempfile.TemporaryDirectory() as folder:
        ready = functools.partial(make_upscaling, write_video(Path(folder) / "a.mp4", frames, height, width), config)
        before = "fp32, one after the other, freed memory given back"
        ways = {
            before: Way(functools.partial(ready, "fp32", overlaps=False), keeps_memory=False),
            "fp32, overlapped": Way(functools.partial(ready, "fp32", overlaps=True)),
            "bf16, overlapped": Way(functools.partial(ready, "bf16", overlaps=True)),
        }
        seconds = in_turns(ways, rounds=1 if small else 2, warm_up=0)
        for name, taken in seconds.items():
            yield Row(name, frames / taken, "frames/s", seconds[before] / taken, before)


def write_video(path: Path, frames: int, height: int, width: int) -> Path:
    """A pattern that moves, with a keyframe a second."""
    y, x = np.mgrid[0:height, 0:width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "g": str(RATE)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(frames):
            wave = 127 + 90 * np.sin((x + number) / 9) * np.cos((y + number / 2) / 7)
            pixels = np.stack([wave, wave[::-1], 255 - wave], 2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
