"""The model that comes with the package, under the name ``pretrained``."""

from dataclasses import dataclass
from importlib import resources

from mana_dist.console import log
from mana_dist.model_names import PRETRAINED

FOLDER = "pretrained"
"""Name of its folder in the package."""
CARD_FILE = "card.md"


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts at the head of the model's card.

    Attributes:
        version: counts the weights that were published under this name.
        sha256: of ``model.safetensors``.
        trained_for: what the model does, and on what it was trained, in a few words.
        license: of the weights.
    """

    version: int
    sha256: str
    trained_for: str
    license: str


def folder() -> str:
    """Return the path of the model's folder."""
    return str(resources.files("mana_dist") / FOLDER)


def card() -> Card:
    """Return the facts of the model's card."""
    import yaml

    text = (resources.files("mana_dist") / FOLDER / CARD_FILE).read_text(encoding="utf-8")
    return Card(**next(yaml.safe_load_all(text.partition("\n---\n")[0])))


def announce(model: str, hint: str = "--model for another") -> None:
    """Log which model is used and what it was trained for, if ``model`` is this one; ``hint`` follows."""
    if model == PRETRAINED:
        found = card()
        log.info(f"model: {PRETRAINED} (version {found.version}; {found.trained_for}){hint and f'; {hint}'}")
