"""Recipes from YAML files."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

from mana_dist import storage
from mana_dist.config import in_plain_words, nearest, yaml_mapping
from mana_dist.data.degradation.draws import Range
from mana_dist.data.degradation.operations import Operation
from mana_dist.data.degradation.recipe import OPERATIONS, Recipe
from mana_dist.errors import UserError, one_line

_LARGEST = 1 << 20  # bytes

Value = TypeVar("Value")


def load_recipe(uri: str) -> Recipe:
    """Return the recipe in the YAML file at ``uri``.

    Raises:
        UserError: missing, or not a recipe; one line that names the file and the key.
    """
    try:
        text = storage.read_bytes(storage.resolve(uri))
    except OSError as error:
        raise UserError(f"{uri}: cannot be read ({one_line(error)})") from error
    try:
        return recipe_of(yaml_mapping(text[:_LARGEST].decode(), uri))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{uri}: {one_line(error)}") from error


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe that plain ``values`` describe, as YAML or a manifest holds them.

    Raises:
        ValueError: they describe none; names the key.
    """
    listed = values.get("operations")
    if not isinstance(listed, list) or not listed:
        raise ValueError("operations: must be a list with at least one operation")
    operations = tuple(_operation(value, f"operations[{place}]") for place, value in enumerate(listed))
    others = {key: value for key, value in values.items() if key != "operations"}
    _check_keys(others, [field.name for field in dataclasses.fields(Recipe)], "")
    if "name" not in others:
        raise ValueError("name: is missing")
    return _built(Recipe, others, "", operations=operations)


def _operation(values: Any, place: str) -> Operation:
    if not isinstance(values, Mapping) or "op" not in values:
        raise ValueError(f"{place}: must have a key op: {', '.join(OPERATIONS)}")
    kind = OPERATIONS.get(values["op"]) if isinstance(values["op"], str) else None
    if kind is None:
        raise ValueError(f"{place}.op: there is no {values['op']}; there are {', '.join(OPERATIONS)}")
    hints = get_type_hints(kind)
    given = {key: value for key, value in values.items() if key != "op"}
    _check_keys(given, [field.name for field in dataclasses.fields(kind)], f"{place}.")
    for key, value in given.items():
        where = f"{place}.{key}"
        if hints[key] == Range:
            given[key] = _as_range(value, where)
        elif hints[key] == Mapping[str, Range]:
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}: must name each with its range, like {{h264: [18, 30]}}, got {value}")
            given[key] = {name: _as_range(between, f"{where}.{name}") for name, between in value.items()}
    return _built(kind, given, f"{place}.")


def _as_range(value: Any, where: str) -> list[float]:
    """Return a range; a number is the range of it alone."""
    values = value if isinstance(value, list) else [value, value]
    if len(values) != 2 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        raise ValueError(f"{where}: must be a number or two, [LEAST, GREATEST], got {value}")
    return values


def _built(kind: type[Value], values: Mapping[str, Any], prefix: str, **more: Any) -> Value:
    """Return the dataclass ``kind`` with checked values; a ValueError of one line begins with the key."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=set(more))
    try:
        parsed = parser.instantiate(parser.parse_object(dict(values)))
        return kind(**vars(parsed), **more)
    except Exception as error:  # jsonargparse wraps whatever is wrong with a user's value
        raise ValueError(f"{prefix}{in_plain_words(error)}") from error


def _check_keys(keys: Iterable[Any], valid: list[str], prefix: str) -> None:
    for key in keys:
        if key not in valid:
            raise ValueError(f"{prefix}{key}: unknown key; did you mean {nearest(key, valid)}?")
