"""What the operators' tests share: the attentions by their definitions, inputs, and a count of live memory."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mana_dist.ops import one_hot, softmax_window

# The operators' Python code, by operator.
KERNELS: dict[Any, Callable[..., Any]] = {
    operator: kernel
    for module in (one_hot, softmax_window)
    for operator, kernel in ((module._attend, module._attend_kernel), (module._gradients, module._gradients_kernel))
}


def one_hot_literal(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """One-hot attention pixel by pixel, in plain Python; differentiable through autograd."""
    batch, frames, channels, height, width = key.shape
    reach = window // 2
    rows = []
    for b in range(batch):
        for t in range(frames):
            for y in range(height):
                for x in range(width):
                    best_score, best_value = None, None
                    for dy in range(-reach, reach + 1):
                        for dx in range(-reach, reach + 1):
                            ky, kx = y + dy, x + dx
                            if not (0 <= ky < height and 0 <= kx < width):
                                continue
                            score = (query[b, :, y, x] * key[b, t, :, ky, kx]).sum()
                            if best_score is None or score.item() > best_score.item():
                                best_score, best_value = score, value[b, t, :, ky, kx]
                    assert best_score is not None
                    assert best_value is not None
                    rows.append(best_score * best_value)
    return torch.stack(rows).view(batch, frames, height, width, channels).permute(0, 1, 4, 2, 3)


def softmax_literal(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Pixel by pixel, over the ``window`` around it or (None) the whole frame; differentiable through autograd."""
    batch, frames, channels, height, width = key.shape
    reach = max(height, width) if window is None else window // 2
    rows = []
    for b in range(batch):
        for t in range(frames):
            for y in range(height):
                for x in range(width):
                    inside = [
                        ky * width + kx
                        for ky in range(height)
                        for kx in range(width)
                        if abs(ky - y) <= reach and abs(kx - x) <= reach
                    ]
                    scores = query[b, :, y, x] @ key[b, t].flatten(1)[:, inside]
                    weights = (scores - scores.max()).exp()
                    rows.append(value[b, t].flatten(1)[:, inside] @ (weights / weights.sum()))
    return torch.stack(rows).view(batch, frames, height, width, channels).permute(0, 1, 4, 2, 3)


def random_inputs(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key and value of (B, T, C, H, W), which ask for gradients, and a gradient of the output."""
    generator = torch.Generator().manual_seed(sum(shape))
    batch, _, *pixels = shape
    query, key, value, grad = (
        torch.randn(size, dtype=torch.float64, generator=generator).to(dtype)
        for size in ((batch, *pixels), shape, shape, shape)
    )
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_(), grad


def channels_innermost(tensor: Tensor) -> Tensor:
    """The same numbers in the layout that convolutions leave."""
    return tensor.detach().movedim(-3, -1).contiguous().movedim(-1, -3)


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that torch's operations make, for as long as they live.

    Attributes:
        peak: the most bytes that lived at once; what an operation's kernel takes for itself is not in it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        # Whatever an operation is given was made before, here or by the caller.
        given = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, Tensor)}
        if kernel := KERNELS.get(func):  # an operator of ours: what it makes inside counts too
            with self:
                results = kernel(*args)
        else:
            results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in given | self._known:
                self._count(result.untyped_storage())
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        size, place = storage.nbytes(), storage.data_ptr()
        self._known.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size


def peak_bytes(call: Callable[[], object]) -> int:
    """What ``call`` holds at most beyond its inputs, results included."""
    with LiveMemory() as memory:
        kept = call()
    del kept
    return memory.peak
