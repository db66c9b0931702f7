"""What a sweep varies: a row of its table each, as changes of the model's configuration."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mana_dist.config import Config
from mana_dist.model.config import ModelConfig

SLOTS = (0, 128, 256, 512, 1024)  # the paper's Table 3
WINDOWS = (5, 7, 9, 11, 13)
FRAMES = (3, 5, 7)


@dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
        label: names the row.
        slug: the same in a run's name.
        x: its place in the plots.
        series: the curve of the plots that it belongs to.
        model: what is trained; None where that cannot be.
        problem: why it cannot be, one line.
    """

    label: str
    slug: str
    x: float
    series: str
    model: ModelConfig | None
    problem: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        kind: its name, which is the default of ``run.name`` too.
        title: above its table.
        axis: what the plots' x axis shows.
        settings: its rows, in order.
        shares_stage1: whether stage 1 is the same for all settings.
    """

    kind: str
    title: str
    axis: str
    settings: tuple[Setting, ...]
    shares_stage1: bool


def memory_sweep(config: Config, slots: Sequence[int] = SLOTS) -> Sweep:
    """Numbers of memory slots, 0 for none (paper, Table 3)."""
    settings = [
        _setting(
            f"N = {n}" if n else "No_Mem",
            str(n) if n else "none",
            n,
            "MANA",
            functools.partial(dataclasses.replace, config.model, memory_slots=n),
        )
        for n in dict.fromkeys(slots)
    ]
    return Sweep("sweep-memory", "Memory size", "memory slots N", tuple(settings), shares_stage1=True)


def window_sweep(
    config: Config, windows: Sequence[int] = WINDOWS, frames: Sequence[int] = FRAMES, *, grid: bool = False
) -> Sweep:
    """Sides of the search window at the configuration's number of frames, then numbers of frames at its window.

    Args:
        config: gives the rest.
        windows: sides.
        frames: numbers of frames.
        grid: every window with every number of frames instead.
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


def _window(config: Config, side: int, frames: int) -> Setting:
    setting = _setting(
        f"{side}x{side}, {frames} frames",
        f"{side}x{side}x{frames}",
        side,
        f"{frames} frames",
        functools.partial(dataclasses.replace, config.model, window=side, frames=frames),
    )
    if setting.model is not None and side > config.data.crop:
        problem = f"a window of {side}x{side} is larger than the crops of data.crop {config.data.crop}"
        return dataclasses.replace(setting, model=None, problem=problem)
    return setting


def _setting(label: str, slug: str, x: float, series: str, make: Callable[[], ModelConfig]) -> Setting:
    try:
        return Setting(label, slug, x, series, make())
    except ValueError as error:
        return Setting(label, slug, x, series, None, str(error))
