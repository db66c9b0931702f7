"""Windows upscaled together give what each gives alone, in few calls of the network, within the memory."""

import numpy as np
import pytest
import torch

from mana_dist.model import Mana
from mana_dist.model.inference import super_resolve_window, to_tensor
from mana_dist.model.tiling import bytes_per_pixel
from mana_dist.serve.batches import super_resolve_each, super_resolve_windows
from tests.serve.models import CONFIG, tiny_model, window

PLENTY = 2**30
SIZES = [(12, 10), (9, 14), (12, 10), (12, 10)]


def of_calls(model: Mana) -> list[int]:
    """Batch sizes of the calls of ``model`` from now on."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize(
    ("memory", "calls"),
    [
        (PLENTY, [3, 1]),
        (2 * 12 * 10 * bytes_per_pixel(CONFIG.model, 4), [2, 1, 1]),  # 9 x 14 are more pixels: one at a time
        (125 * bytes_per_pixel(CONFIG.model, 4), [1, 1, 1]),  # and here it is done in tiles, which are not calls of it
    ],
)
def test_windows_of_one_size_go_together_as_far_as_memory_goes(memory: int, calls: list[int]) -> None:
    model = tiny_model()
    windows = [window(*size, seed=seed) for seed, size in enumerate(SIZES)]
    alone = [super_resolve_window(model, one) for one in windows]
    sizes = of_calls(model)
    together = super_resolve_windows(model, windows, "cpu", "fp32", memory)
    assert sizes == calls
    for one, other in zip(together, alone, strict=True):
        assert one.dtype == np.uint8
        # A batch, or tiles, may round differently; windows mixed up would differ by tens.
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= 1


def test_a_window_that_fails_takes_no_other_with_it() -> None:
    model = tiny_model()
    good, bad = window(), window(seed=1)

    def fails(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if any(torch.equal(one, to_tensor(bad)) for one in inputs[0]):
            raise RuntimeError("out of memory")

    model.register_forward_pre_hook(fails)
    first, second, third = super_resolve_each(model, [good, bad, good], "cpu", "fp32", PLENTY)
    assert isinstance(second, RuntimeError)
    for result in (first, third):
        assert not isinstance(result, Exception)
        np.testing.assert_array_equal(result, super_resolve_window(model, good))
    assert isinstance(super_resolve_each(model, [bad], "cpu", "fp32", PLENTY)[0], RuntimeError)


def test_precision_is_the_networks() -> None:
    model = tiny_model()
    seen: list[torch.dtype] = []
    convolution = next(part for part in model.modules() if isinstance(part, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda _, __, result: seen.append(result.dtype))
    super_resolve_windows(model, [window()], "cpu", "fp32", PLENTY)
    super_resolve_windows(model, [window()], "cpu", "bf16", PLENTY)
    assert seen == [torch.float32, torch.bfloat16]
