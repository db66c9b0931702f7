"""What the attentions share: checks of inputs, a window as shifts of the frame, layouts, and their registration."""

import math
from collections.abc import Callable, Iterator
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from torch import Tensor

Place = tuple[EllipsisType, slice, slice]


class Shift(NamedTuple):
    """One offset in the window, as indices into (..., H, W).

    Attributes:
        pixels: those from which the offset does not lead out of the frame.
        targets: the positions to which it leads them.
    """

    pixels: Place
    targets: Place


def shifts(window: int, height: int, width: int) -> Iterator[Shift]:
    """The offsets of a ``window`` x ``window`` square in row-major order; those that lead all pixels out left out."""
    reach = window // 2
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        rows, target_rows = _overlap(dy, height)
        for dx in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            columns, target_columns = _overlap(dx, width)
            yield Shift((..., rows, columns), (..., target_rows, target_columns))


def pairs_inside(window: int, height: int, width: int) -> int:
    """Count the pairs of a pixel and a position that lies in its window and in the frame."""
    reach = window // 2
    along = (
        sum(size - abs(shift) for shift in range(-reach, reach + 1) if abs(shift) < size) for size in (height, width)
    )
    return math.prod(along)


def empty_result(value: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty (B, T, C, H, W) tensor, in memory (B, H, W, T, C).

    So ``flatten(1, 2)`` is a view with the channels innermost, as the convolution that follows is fastest with.
    """
    batch, frames, channels, height, width = value.shape
    return value.new_empty(batch, height, width, frames, channels, dtype=dtype).permute(0, 3, 4, 1, 2)


def empty_innermost(tensor: Tensor) -> Tensor:
    """An empty tensor of the same shape and type whose channels (third from the end) are contiguous."""
    *outer, channels, height, width = tensor.shape
    return tensor.new_empty(*outer, height, width, channels).movedim(-1, -3)


def register_operator(
    name: str,
    forward: Callable[..., tuple[Tensor, ...]],
    backward: Callable[..., list[Tensor]],
    fake: Callable[..., tuple[Tensor, ...]],
    saves: slice,
) -> tuple[Any, Any]:
    """Register an attention as ``mana::NAME`` and its gradients as ``mana::NAME_backward``.

    Not by ``torch.library.custom_op``, whose first call imports the compiler (1.5 seconds).

    Args:
        name: of the operator.
        forward: query, key, value and window to the output, and numbers that no gradient flows through.
        backward: the output's gradient, query, key, value, what was saved, the window, and which gradients are needed,
            to those.
        fake: as ``forward``, for the shapes alone.
        saves: which results of ``forward`` the backward pass takes.

    Returns:
        Both operators.
    """

    def fake_gradients(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> list[Tensor]:
        return [empty_innermost(tensor) for tensor, need in zip((query, key, value), others[-1], strict=True) if need]

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.window = inputs
        ctx.save_for_backward(*tensors, *output[saves])
        ctx.mark_non_differentiable(*output[1:])

    def differentiate(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[:3])
        found = iter(gradients(grad_output, *ctx.saved_tensors, ctx.window, needs))
        return *(next(found) if need else None for need in needs), None

    operators = []
    for full, kernel, shapes in ((name, forward, fake), (f"{name}_backward", backward, fake_gradients)):
        torch.library.define(f"mana::{full}", torch.library.infer_schema(kernel, mutates_args=()))
        torch.library.impl(f"mana::{full}", "CompositeExplicitAutograd", kernel)
        torch.library.register_fake(f"mana::{full}", shapes)
        operators.append(getattr(torch.ops.mana, full).default)
    attend, gradients = operators
    torch.library.register_autograd(f"mana::{name}", differentiate, setup_context=save)
    return attend, gradients


def check_window(window: int) -> None:
    """Check the side of a search window.

    Raises:
        ValueError: it is even or not positive.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and positive, got {window}")


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check that query (B, C, H, W), key and value (B, T, C, H, W) belong together.

    Raises:
        ValueError: they do not.
    """
    if query.dim() != 4 or key.dim() != 5:
        raise ValueError(f"query must be (B, C, H, W), key (B, T, C, H, W); got {query.shape} and {key.shape}")
    if key.shape != value.shape or key.shape[:1] + key.shape[2:] != query.shape:
        raise ValueError(f"shapes do not match: query {query.shape}, key {key.shape}, value {value.shape}")


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where positions i and i + shift both lie in [0, size): the slice of i and the slice of i + shift."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))
