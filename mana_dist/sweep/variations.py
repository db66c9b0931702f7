"""What a sweep varies: each setting is a row of its table, and some changes of the model's configuration."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mana_dist.config import Config
from mana_dist.model.alignment_names import NAMES
from mana_dist.model.config import ModelConfig

SLOTS = (0, 128, 256, 512, 1024)  # the paper's Table 3
WINDOWS = (5, 7, 9, 11, 13)
FRAMES = (3, 5, 7)


@dataclass(frozen=True)
class Setting:
    """A setting of the model: a row of the table."""

    label: str  # names the row
    slug: str  # names its runs
    x: float  # its place in the plots
    series: str  # the curve of the plots that it belongs to
    model: ModelConfig | None  # configuration; None if there is no such model
    problem: str = ""  # the reason for that, one line


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep."""

    kind: str  # its name, which is the default of ``run.name`` too
    title: str  # above its table
    axis: str  # label of the plots' x axis
    settings: tuple[Setting, ...]  # its rows, in order
    shares_stage1: bool  # whether stage 1 is the same for all settings


def memory_sweep(config: Config, slots: Sequence[int] = SLOTS) -> Sweep:
    """Return the sweep over numbers of memory slots, 0 for none (paper, Table 3)."""
    settings = [
        _setting(config, f"N = {n}" if n else "No_Mem", str(n) if n else "none", n, "MANA", memory_slots=n)
        for n in dict.fromkeys(slots)
    ]
    return Sweep("sweep-memory", "Memory size", "memory slots N", tuple(settings), shares_stage1=True)


def window_sweep(
    config: Config, windows: Sequence[int] = WINDOWS, frames: Sequence[int] = FRAMES, *, grid: bool = False
) -> Sweep:
    """Return the sweep over search windows at the configuration's number of frames, then over numbers of frames.

    Args:
        config: gives the rest.
        windows: sides of the search window.
        frames: numbers of frames, at the configuration's window.
        grid: every side with every number of frames instead.
    """
    if grid:
        pairs = [(side, length) for length in frames for side in windows]
    else:
        pairs = [(side, config.model.frames) for side in windows]
        pairs += [(config.model.window, length) for length in frames]
    return Sweep(
        "sweep-window",
        "Search window",
        "side of the search window (pixels)",
        tuple(_window(config, side, length) for side, length in dict.fromkeys(pairs)),
        shares_stage1=False,
    )


def alignment_sweep(config: Config, kinds: Sequence[str] = NAMES) -> Sweep:
    """Return the sweep over kinds of alignment, all else equal: the same samples in the same order, the same steps."""
    from mana_dist.model.mana import parameter_count  # brings torch

    settings = []
    for kind in dict.fromkeys(kinds):
        setting = _setting(config, kind, kind, 0, kind, attention=kind)
        millions = 0 if setting.model is None else parameter_count(setting.model) / 1e6
        settings.append(dataclasses.replace(setting, x=millions))
    return Sweep("sweep-alignment", "Alignment", "parameters (millions)", tuple(settings), shares_stage1=False)


def _window(config: Config, side: int, frames: int) -> Setting:
    label, slug, series = f"{side}x{side}, {frames} frames", f"{side}x{side}x{frames}", f"{frames} frames"
    setting = _setting(config, label, slug, side, series, window=side, frames=frames)
    if setting.model is not None and side > config.data.crop:
        problem = f"a window of {side}x{side} is larger than the crops of data.crop {config.data.crop}"
        return dataclasses.replace(setting, model=None, problem=problem)
    return setting


def _setting(config: Config, label: str, slug: str, x: float, series: str, **changes: Any) -> Setting:
    try:
        return Setting(label, slug, x, series, dataclasses.replace(config.model, **changes))
    except ValueError as error:
        return Setting(label, slug, x, series, None, str(error))
