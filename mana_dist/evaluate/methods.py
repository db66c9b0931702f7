"""What is evaluated: anything that turns a stream of LR frames into a stream of HR frames."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mana_dist import model_folder
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.errors import UserError
from mana_dist.inference import Frame, super_resolve
from mana_dist.model import Mana, Padding

BICUBIC = "bicubic"


class Method(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str:
        """What the user called it."""

    def upscale(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """(h, w, 3) uint8 RGB frames of a clip -> as many (4h, 4w, 3) frames, in order."""


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's bicubic interpolation, frame by frame: what every method must beat."""

    name: str = BICUBIC

    def upscale(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Each frame by itself."""
        return map(bicubic_upsample, frames)


@dataclass(frozen=True)
class Trained:
    """A MANA model.

    Attributes:
        name: the folder or registry name that it was loaded from.
        model: in evaluation mode.
        device: where it runs.
        padding: the rule for windows beyond a clip's ends.
    """

    name: str
    model: Mana
    device: str
    padding: Padding

    def upscale(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Streaming, with cached embeddings."""
        return super_resolve(self.model, frames, self.device, self.padding)


def load_methods(names: Sequence[str], device: str, padding: Padding, tracking_uri: str | None) -> list[Method]:
    """The methods that a command line names: ``bicubic``, model folders, or models of the registry.

    Raises:
        UserError: a name is given twice, or a model cannot be loaded.
    """
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--method names {name} twice")
    return [
        Bicubic() if name == BICUBIC else Trained(name, model_folder.load(name, tracking_uri)[0], device, padding)
        for name in names
    ]
