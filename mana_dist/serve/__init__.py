"""A model behind HTTP on Ray Serve: ``serve run mana_dist.serve:app``."""

from typing import TYPE_CHECKING, Any

from mana_dist.serve.config import ServeOptions

if TYPE_CHECKING:
    from mana_dist.serve.application import app

__all__ = ["ServeOptions", "app"]


def __getattr__(name: str) -> Any:
    # Ray reads its environment when it is imported, so what does without it here must not import it.
    if name == "app":
        from mana_dist.serve.application import app

        return app
    raise AttributeError(name)
