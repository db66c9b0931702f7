"""Memory that upscaling a frame may take."""

from pathlib import Path

import torch

from mana_dist.model import ModelConfig

_SHARE = 0.5  # of what is free: encoder, decoder and other programs need some as well
_LEAST = 64 * 2**20
_CGROUP = Path("/sys/fs/cgroup")


def automatic(config: ModelConfig, device: str, height: int, width: int, element_size: int) -> int:
    """Return bytes for the convolutions' activations: half of what is free, less T embedded frames and the output.

    Rounded down to a power of two: as it decides the tiles, it must not change with every run.

    Args:
        config: the network.
        device: ``cpu`` or ``cuda``.
        height: height of an LR frame, pixels.
        width: width of an LR frame, pixels.
        element_size: bytes of an activation's element.
    """
    inner = config.channels // 2
    held = config.frames * (config.channels + 4 * inner) * element_size  # features, and K and V, each twice
    output = config.scale**2 * 3 * 4 * 4  # the upsampled frame, the residual, their sum, and its rounding
    left = max(int(free_bytes(device) * _SHARE) - height * width * (held + output), _LEAST)
    return int(2 ** (left.bit_length() - 1))


def free_bytes(device: str) -> int:
    """Return the bytes that are free now: the GPU's, or the machine's within the limit of this process's container."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    available = _meminfo("MemAvailable") or 2**32
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    return available if limit is None or used is None else max(min(available, limit - used), 0)


def _meminfo(field: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
