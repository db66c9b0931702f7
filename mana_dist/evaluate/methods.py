"""Methods that are evaluated: whatever turns a stream of LR frames into a stream of HR frames."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Protocol

import numpy as np

from mana_dist import storage
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.errors import UserError, redacted
from mana_dist.evaluate import given_outputs
from mana_dist.evaluate.config import BICUBIC, FRAMES_SCHEME
from mana_dist.evaluate.protocol import MethodSource
from mana_dist.evaluate.scored_clips import Clip, LrFrame
from mana_dist.model import Mana, Padding
from mana_dist.model.inference import Frame, super_resolve, to_tensor
from mana_dist.model.match_error import match_error
from mana_dist.model.precision import Precision
from mana_dist.model_names import is_folder
from mana_dist.registry import model_folder
from mana_dist.registry.versions import Registered


class Method(Protocol):
    """A method: one row of the table."""

    @property
    def name(self) -> str:
        """Name that the user gave it."""

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        """Super-resolve a clip.

        Args:
            clip: whose frames they are.
            frames: all LR frames of the clip.
            wanted: numbers of the frames to return.
            device: where to compute.

        Returns:
            The wanted frames for which there is an LR frame, (sh, sw, 3) uint8 RGB at scale s, in order.
        """


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's bicubic interpolation, frame by frame, which every method should beat."""

    name: str = BICUBIC
    scale: int = 4

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        """Upscale each frame by itself."""
        return (bicubic_upsample(frame.pixels, self.scale) for frame in frames if frame.number in wanted)


@dataclass(frozen=True)
class Trained:
    """A MANA model.

    Attributes:
        name: its label, or the folder or registry name that it was loaded from.
        model: in evaluation mode.
        padding: the rule for windows beyond a clip's ends.
        registered: the version that a registry name stood for when it was loaded.
        sha256: of its ``model.safetensors``.
        precision: of its arithmetic.
    """

    name: str
    model: Mana
    padding: Padding
    registered: Registered | None = None
    sha256: str = ""
    precision: Precision = "fp32"

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        """Upscale the frames as a stream, with cached embeddings; windows end where a run of frames does."""
        for _, run in groupby(frames, key=lambda frame: frame.run):
            first = next(run)
            pixels = (frame.pixels for frame in chain([first], run))
            mine = range(wanted.start - first.number, wanted.stop - first.number)
            yield from super_resolve(self.model, pixels, device, self.padding, precision=self.precision, wanted=mine)

    def upscale_alone(self, frame: Frame, device: str) -> Frame:
        """Upscale a frame as if each of its neighbours were the frame itself."""
        # The window of a clip of one frame holds nothing else, whatever the padding.
        return next(super_resolve(self.model, [frame], device, self.padding, precision=self.precision))

    def match_error(self, frame: Frame, others: Sequence[Frame], device: str) -> float | None:
        """Return the error of the frame's matches in an even number of others, over that at the same places, in fp32.

        None: the model matches no pixels, there are no others, or nothing differs.
        """
        if not others:
            return None
        middle = len(others) // 2
        window = to_tensor(np.stack([*others[:middle], frame, *others[middle:]]))[None].to(device)
        error = match_error(self.model.to(device), window)
        return None if error is None or error.ratio is None or not math.isfinite(error.ratio) else error.ratio


@dataclass(frozen=True)
class Wanted:
    """A method as the command line names it.

    Attributes:
        name: as given, without the label.
        registered: the version of a registered model to load; None: the one that the name means.
        label: of ``LABEL=MODEL``; empty: none.
    """

    name: str
    registered: Registered | None = None
    label: str = ""

    @property
    def shown(self) -> str:
        """The name in tables; of ``frames:NAME=URI``, it is NAME instead."""
        return self.label or self.name


def load_methods(
    methods: Sequence[Wanted],
    clips: Sequence[Clip],
    padding: Padding,
    tracking_uri: str | None,
    without: str = "",
    precision: Precision = "fp32",
    scale: int = 4,
) -> tuple[Method, ...]:
    """Load the methods that a command line names: ``bicubic``, model folders, registered models, frames of others.

    Args:
        methods: in the table's order.
        clips: for which the frames of other methods must be there.
        padding: the rule for windows beyond a clip's ends.
        tracking_uri: of the registry.
        without: the folder of the report, in which no method's frames are looked for.
        precision: of the models' arithmetic.
        scale: HR side over LR side.

    Raises:
        UserError: a name or a folder is given twice, a model cannot be loaded or is of another scale, or frames do not
            match the clips.
    """
    folders: dict[str, str] = {}
    for name in (method.name for method in methods if _is_folder(method.name)):
        folder = storage.resolve(name)
        if folder in folders:
            raise UserError(f"--method names {folders[folder]} twice, the second time as {name}")
        folders[folder] = name
    loaded: list[Method] = []
    for method in methods:
        made = _load(method, clips, padding, tracking_uri, without, scale)
        if isinstance(made, Trained):
            made = replace(made, precision=precision)
            if made.model.config.scale != scale:
                raise UserError(
                    f"--method {made.name}: a model of scale {made.model.config.scale}; give --scale "
                    f"{made.model.config.scale}, with models of that scale alone"
                )
        if made.name in [other.name for other in loaded]:  # an alias that --promote-if brings, say
            raise UserError(f"--method names {made.name} twice")
        loaded.append(made)
    return tuple(loaded)


def source(method: Wanted, loaded: Method) -> MethodSource:
    """Return where the frames of a method come from, for the protocol."""
    if not isinstance(loaded, Trained):
        uri = method.name.partition("=")[2] if method.name.startswith(FRAMES_SCHEME) else ""
        return MethodSource(name=loaded.name, uri=redacted(storage.resolve(uri)) if uri else "")
    config = loaded.model.config
    return MethodSource(
        name=loaded.name,
        uri=storage.resolve(method.name) if is_folder(method.name) else _pinned(method),
        sha256=loaded.sha256,
        attention=config.attention,
        memory_slots=config.memory_slots,
        window=config.window,
        frames=config.frames,
    )


def _is_folder(name: str) -> bool:
    return name != BICUBIC and not name.startswith(FRAMES_SCHEME) and is_folder(name)


def _pinned(method: Wanted) -> str:
    return method.name if method.registered is None else method.registered.uri


def _load(
    method: Wanted, clips: Sequence[Clip], padding: Padding, tracking_uri: str | None, without: str, scale: int
) -> Method:
    if method.name == BICUBIC:
        return Bicubic(scale=scale)
    if method.name.startswith(FRAMES_SCHEME):
        return given_outputs.find(method.name, clips, without)
    found = model_folder.load_identified(_pinned(method), tracking_uri)
    return Trained(method.shown, found.model, padding, method.registered, found.sha256)
