"""The models that the page lets people choose, and the names by which they see them."""

from collections.abc import Iterable

from mana_dist import storage
from mana_dist.model_names import PRETRAINED, REGISTRY_SCHEME, is_folder
from mana_dist.serve.config import ServeOptions


def wanted_models(options: ServeOptions) -> list[str]:
    """Return the names that the options give, the default first; without the page that alone."""
    more = [*(options.page_models or "").split(","), PRETRAINED] if options.page else []
    return list(dict.fromkeys([options.model, *filter(None, map(str.strip, more))]))


def fixed(model: str, tracking_uri: str) -> str:
    """Return the name that means the same model everywhere and for ever, as far as that can be.

    Raises:
        UserError: the registry has no such model, or cannot be reached.
    """
    if is_folder(model):
        return storage.resolve(model)  # replicas run in other folders
    if model == PRETRAINED:
        return model
    from mana_dist.registry import model_folder, versions

    if found := versions.resolve(model, tracking_uri):
        return found.uri
    with model_folder.fetched(model, tracking_uri):  # of a name without a version; or it says what is wrong
        return model


def offered(models: Iterable[str]) -> dict[str, str]:
    """Return models by the names that people see, which are no paths."""
    named: dict[str, str] = {}
    for model in dict.fromkeys(models):
        shown, number = public_name(model), 2
        while shown in named:
            shown, number = f"{public_name(model)} {number}", number + 1
        named[shown] = model
    return named


def public_name(model: str) -> str:
    """What anybody who asks the server may know of where the model comes from: no path."""
    return model if model.startswith(REGISTRY_SCHEME) else model.rstrip("/").rpartition("/")[2]
