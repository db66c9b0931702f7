"""Names of models: ``pretrained``, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS``, or the URI of a model folder."""

PRETRAINED = "pretrained"
"""The model that comes with the package. A folder of this name is ``./pretrained``."""
REGISTRY_SCHEME = "models:/"


def is_folder(model: str) -> bool:
    """Return whether a model is named by its folder; the other names mean the same wherever a command runs."""
    return model != PRETRAINED and not model.startswith(REGISTRY_SCHEME)
