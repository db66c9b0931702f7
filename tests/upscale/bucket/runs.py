"""Helpers of the tests of upscaling on a cluster: sources, a tiny model, the command line."""

import hashlib
import subprocess
import sys
from pathlib import Path

import torch

from mana_dist.config import Config
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import model_folder
from mana_dist.upscale.__main__ import main as upscale
from tests.video.videos import moving_frames, write_coded

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4))


def write_model(folder: Path) -> str:
    """A model whose attention is not zero, as it is at the start of a training."""
    torch.manual_seed(0)
    model = Mana(CONFIG.model)
    torch.nn.init.normal_(model.attention.project.weight)
    model_folder.save(str(folder), model.state_dict(), CONFIG)
    return str(folder)


def write_film(path: Path, frames: int, height: int = 48, width: int = 64) -> Path:
    """A moving picture with a keyframe every 12 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_coded(path, moving_frames(frames, height, width))


def command(*arguments: str | Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "pipelines.upscale", *map(str, arguments)]


def run_command_line(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """The command as users call it."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=600)


def single_process(source: Path, destination: Path, *arguments: str | Path) -> str:
    """The SHA-256 of what ``python -m mana_dist.upscale`` makes of ``source``."""
    threads = torch.get_num_threads()
    try:
        upscale(list(map(str, [source, destination, "--threads", "1", "--overwrite", *arguments])))
    finally:
        torch.set_num_threads(threads)
    return sha256(destination)


def sha256(path: Path) -> str:
    """Return a file's digest, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
