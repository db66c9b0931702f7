"""Damaged copies of videos, and what decoding makes of them, judged by the whole ones."""

import functools
import hashlib
import multiprocessing
import random
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mana_dist.errors import UserError
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.strict import Damage, DamageFound, numbered_frames, survey

SECONDS = 60
"""Time limit of decoding one damaged file."""
_KINDS = ("cut", "flip", "zero", "flip", "cut", "flip", "zero", "flip", "renamed", "flip")


@dataclass(frozen=True)
class Verdict:
    """The outcome of decoding a damaged file.

    Attributes:
        right: frames that are just as in the whole file, at their place.
        wrong: mean absolute differences of the others from the whole file's, grey levels.
        reason: what the decoder reported; empty if nothing.
    """

    right: int
    wrong: tuple[float, ...]
    reason: str


def excerpt(source: Path, target: Path, frames: int) -> Path:
    """The first packets of a video, as coded, in the container that ``target``'s name asks for."""
    options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
    with av.open(str(source)) as whole, av.open(str(target), "w", options=options) as part:
        video = whole.streams.video[0]
        stream = part.add_stream_from_template(video)
        for number, packet in enumerate(whole.demux(video)):
            if number == frames or not packet.size:
                break
            packet.stream = stream
            part.mux(packet)
    return target


def damaged(data: bytes, kind: str, seed: int) -> bytes:
    """A copy with damage of this kind; the same for the same seed."""
    chance = random.Random(f"{kind}{seed}")
    if kind == "cut":
        return data[: chance.randrange(len(data))]
    if kind == "zero":
        begin, size = chance.randrange(len(data)), int(len(data) * 10 ** chance.uniform(-4, -0.3))
        return data[:begin] + bytes(len(data[begin : begin + size])) + data[begin + size :]
    if kind == "renamed":
        others = (
            b"",
            b"not a video\n" * chance.randrange(1, 999),
            chance.randbytes(9999),
            b"%PDF-1.7\n%\xe2\xe3\n" * 99,
        )
        return others[seed % len(others)]
    flipped = bytearray(data)
    for _ in range(round(10 ** chance.uniform(0, 3))):  # 1 to 1000
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def judge(path: Path, whole: Path) -> Verdict:
    """Decode ``path`` as the ingest does and compare with ``whole``, of which it is a damaged copy.

    Containers in which whole packets can vanish may shift the numbers after the gap, but never hide the gap.
    """
    reference = _frames(whole)
    places = {_digest(frame): place for place, frame in enumerate(reference)}
    may_shift = whole.suffix in (".mkv", ".ts", ".h264")
    right, wrong, shift, last = 0, [], 0, -1
    try:
        frames, damage = _decode(path)
    except UserError as error:
        return Verdict(0, (), str(error))
    for number, frame, *_ in frames:
        place = places.get(_digest(frame), -1)
        if may_shift and place >= 0 and number > last + 1:
            shift = place - number
        last = number
        expected = number + shift
        if place == expected:
            right += 1
        elif 0 <= expected < len(reference) and frame.shape == reference[expected].shape:
            wrong.append(float(np.abs(frame.astype(np.int16) - reference[expected]).mean()))
        else:
            wrong.append(255.0)
    return Verdict(right, tuple(wrong), damage.reason)


def _decode(path: Path) -> tuple[list[NumberedFrame], Damage]:
    damage: Damage | None = None
    try:
        return list(numbered_frames(str(path))), Damage((), "")
    except DamageFound:
        damage = survey(str(path))
    return list(numbered_frames(str(path), damage=damage)), damage


@functools.lru_cache(maxsize=10)
def _frames(path: Path) -> list[NDArray[np.uint8]]:
    return [frame.pixels for frame in numbered_frames(str(path))]


def _digest(frame: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(frame.tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class Variant:
    """A damaged copy of the video ``whole``."""

    whole: Path
    kind: str
    seed: int

    def judge(self) -> Verdict:
        """Make the copy, and judge what is made of it; a process that takes too long at that is killed."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / self.whole.name
            copy.write_bytes(damaged(self.whole.read_bytes(), self.kind, self.seed))
            signal.alarm(SECONDS)
            try:
                return judge(copy, self.whole)
            finally:
                signal.alarm(0)


def variants(wholes: list[Path], count: int) -> list[Variant]:
    """``count`` of them, of all kinds, evenly."""
    kinds = [(whole, kind) for kind in _KINDS for whole in wholes]
    return [Variant(*kinds[seed % len(kinds)], seed) for seed in range(count)]


def verdicts(copies: list[Variant]) -> list[Verdict]:
    """In other processes, so that a crash raises BrokenProcessPool."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        return list(processes.map(Variant.judge, copies))
