"""Tiny clips, and the command on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mana_dist.config import Config
from mana_dist.data.degradation import BI, Degradation, bicubic_upsample, degrade
from mana_dist.evaluate.__main__ import main
from mana_dist.model import ModelConfig

Frames = NDArray[np.uint8]

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4))


def frames_of(length: int, seed: int = 0, height: int = 48, width: int = 64, step: int = 1) -> Frames:
    """uint8 (length, height, width, 3): a smooth texture that moves ``step`` pixels down and right per frame."""
    size = (height + step * length) // 4 + 2, (width + step * length) // 4 + 2
    coarse = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    texture = bicubic_upsample(coarse)
    starts = [step * number for number in range(length)]
    return np.stack([texture[start : start + height, start : start + width] for start in starts])


def write_folder(folder: Path, frames: Frames, name: str = "{:04}.png", first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, first):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def write_pair(root: Path, hr: str, lr: str, frames: Frames, degradation: Degradation = BI, scale: int = 4) -> None:
    """The frames, and their LR frames, in two folders below ``root``."""
    write_folder(root / hr, frames)
    write_folder(root / lr, degrade(frames, degradation, scale))


def evaluate(out: Path, *arguments: str) -> dict[str, Any]:
    """What ``metrics.json`` says after the command, which runs in this process unless ``--workers`` says otherwise."""
    workers = [] if "--workers" in arguments else ["--workers", "1"]
    main([*arguments, *workers, "--out", str(out), "--device", "cpu"])
    report: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return report


def mean_of(report: dict[str, Any], method: str = "bicubic") -> dict[str, Any]:
    mean: dict[str, Any] = report["methods"][method]["mean"]
    return mean
