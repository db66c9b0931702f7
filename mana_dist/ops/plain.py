"""The operators of this package in torch's own operations, for networks that leave Python: sizes may be symbols.

They give what the operators give, to rounding. Of their results, those that only gradients need are left out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mana_dist.ops import phases_loops
from mana_dist.ops.patches import Matches, Search


def one_hot(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`mana_dist.ops.one_hot_attention`, with the winning scores and their places, (B, T, H, W)."""
    height, width = query.shape[-2:]
    best = torch.full_like(key[:, :, 0], -torch.inf)
    place = torch.arange(height * width).view(height, width).expand_as(best)
    own = place
    for step, scores in enumerate(_rows_of_scores(query, key, window)):
        score, column = scores.max(2)
        better = score > best
        moved = own + (step - window // 2) * width + column - window // 2
        best, place = score.where(better, best), moved.where(better, place)
    flat = place.flatten(2)[:, :, None].expand(-1, -1, key.shape[2], -1)
    return best[:, :, None] * value.flatten(3).gather(3, flat).view_as(value), best, place


def softmax_window(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, None]:
    """As :func:`mana_dist.ops.softmax_window_attention`."""
    highest = torch.full_like(key[:, :, 0], torch.finfo(key.dtype).min)
    total, output = torch.zeros_like(highest), torch.zeros_like(value)
    for scores, values in zip(_rows_of_scores(query, key, window), _rows(value, window), strict=True):
        higher = torch.maximum(highest, scores.amax(2))
        fade, weights = (highest - higher).exp(), (scores - higher[:, :, None]).exp()
        highest, total = higher, total * fade + weights.sum(2)
        output = output * fade[:, :, None]
        for column, shown in enumerate(values):
            output = output + weights[:, :, column, None] * shown
    return output / total[:, :, None], None


def _match_patches(frames: Tensor, sides: list[int]) -> Matches:
    return phases_loops.match(frames, Search.of(sides))


def _sort_by_phase(frames: Tensor, *others: Any) -> Tensor:
    *matches, hood, bins, top = others
    return phases_loops.sort(frames, Matches(*matches), hood, bins, top)


def _one_hot_margin(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    first, second = torch.cat(_rows_of_scores(query, key, window), 2).topk(2, 2).values.unbind(2)
    return first - second


def _match_margin(frames: Tensor, sides: list[int]) -> Tensor:
    return phases_loops.margin(frames, Search.of(sides))


def _rows_of_scores(query: Tensor, key: Tensor, window: int) -> list[Tensor]:
    """The scores of a window's positions, (B, T, window, H, W) for each of its rows; -inf outside the frame."""
    outside = F.pad(torch.zeros_like(query[0, 0]), [window // 2] * 4, value=-torch.inf)
    return [
        torch.stack([(query[:, None] * keys).sum(2) + barred for keys, barred in zip(*both, strict=True)], 2)
        for both in zip(_rows(key, window), _shifted(outside, window), strict=True)
    ]


def _rows(tensor: Tensor, window: int) -> list[list[Tensor]]:
    return _shifted(F.pad(tensor.flatten(0, 2), [window // 2] * 4).unflatten(0, tensor.shape[:3]), window)


def _shifted(padded: Tensor, window: int) -> list[list[Tensor]]:
    """The parts of (..., H + window - 1, W + window - 1) that begin at each of the first rows and columns."""
    height, width = (size - window + 1 for size in padded.shape[-2:])
    return [[padded[..., y : y + height, x : x + width] for x in range(window)] for y in range(window)]


class Plain(NamedTuple):
    """An operator's plain form.

    Attributes:
        run: gives what it gives.
        margin: of a search, by how much the winner beats the runner-up, (B, T, H, W); None: it does not search.
    """

    run: Callable[..., Any]
    margin: Callable[..., Tensor] | None = None


OPERATORS = {
    "one_hot_attention": Plain(one_hot, _one_hot_margin),
    "softmax_window_attention": Plain(softmax_window),
    "match_patches": Plain(_match_patches, _match_margin),
    "sort_by_phase": Plain(_sort_by_phase),
}
"""By the operator's name in ``torch.ops.mana``."""


class ReplaceOperators(TorchFunctionMode):
    """Within this context ``do(operator, its plain form, arguments)`` is called where an operator is."""

    def __init__(self, do: Callable[[Callable[..., Any], Plain, tuple[Any, ...]], Any]) -> None:
        super().__init__()
        self._do = do

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions."""
        room, _, name = str(func).removesuffix(".default").partition(".")
        if room == "mana" and name in OPERATORS:
            return self._do(func, OPERATORS[name], args)
        return func(*args, **(kwargs or {}))
