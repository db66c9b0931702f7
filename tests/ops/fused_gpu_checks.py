"""What the Triton kernels must do, as functions of a device.

Run as a program, it runs every check on CPU tensors and prints, as JSON, the traceback of each that failed. Triton
reads TRITON_INTERPRET when it is imported, so its interpreter needs a process of its own: see test_fused_gpu.
"""

import json
import math
import traceback
from collections.abc import Callable
from itertools import zip_longest
from unittest import mock

import torch
from torch import Tensor

from mana_dist.ops import fused_gpu
from tests.ops.definitions import one_hot_literal

Shape = tuple[int, int, int, int, int]


def random(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and the gradient of the output; scores of about one whatever the number of channels."""
    generator = torch.Generator().manual_seed(sum(shape))
    shapes = ((shape[0], *shape[2:]), shape, shape, shape)
    query, key, value, grad = (torch.randn(s, generator=generator).to(device, dtype) for s in shapes)
    return query * shape[2] ** -0.5, key, value, grad


def expect_the_definition(query: Tensor, key: Tensor, value: Tensor, grad: Tensor, window: int) -> None:
    """Compares output and gradients with the per-pixel definition in float64."""
    exact = [tensor.detach().cpu().double().requires_grad_() for tensor in (query, key, value)]
    expected = one_hot_literal(exact[0], exact[1], exact[2], window)
    expected_grads = torch.autograd.grad(expected, exact, grad.cpu().double())

    output, score, index = fused_gpu.forward(query, key, value, window)
    grads = fused_gpu.backward(grad, query, key, value, score, index, window)

    # Sums are taken in float32: what is left is the rounding of the results.
    rtol, atol = (1e-5, 1e-5) if query.dtype == torch.float32 else (torch.finfo(query.dtype).eps, 1e-5)
    assert output.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)
    assert (score.dtype, index.dtype) == (torch.float32, torch.int32)
    for actual, wanted in zip((output, *grads), (expected, *expected_grads), strict=True):
        assert actual is not None
        assert actual.dtype == query.dtype
        torch.testing.assert_close(actual.cpu().double(), wanted.detach(), rtol=rtol, atol=atol)


def check_float32(device: torch.device) -> None:
    cases: tuple[tuple[Shape, int], ...] = (
        ((2, 3, 4, 6, 5), 3),
        ((1, 2, 3, 7, 9), 5),
        ((1, 2, 6, 6, 8), 7),
        ((1, 1, 2, 4, 12), 9),  # the window is larger than the frame's height
        ((1, 1, 2, 7, 6), 11),
        ((1, 2, 2, 5, 5), 13),  # and than the whole frame
        ((1, 1, 2, 10, 8), 15),
        ((1, 2, 1, 1, 1), 9),  # a frame of one pixel
        ((1, 3, 5, 8, 3), 1),  # the pixel itself alone
        ((1, 2, 64, 7, 11), 3),  # several tiles in a frame, the last one not full
    )
    for shape, window in cases:
        expect_the_definition(*random(shape, torch.float32, device), window)


def check_half_precision(device: torch.device) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        expect_the_definition(*random((2, 2, 12, 5, 7), dtype, device), 5)
        expect_the_definition(*random((1, 1, 64, 6, 7), dtype, device), 3)


def check_more_channels_than_a_tile_has_elements(device: torch.device) -> None:
    expect_the_definition(*random((1, 1, 2100, 2, 2), torch.float32, device), 3)


def check_layouts(device: torch.device) -> None:
    query, key, value, grad = random((2, 2, 6, 5, 4), torch.float32, device)
    query_last = query.contiguous(memory_format=torch.channels_last)
    # As a convolution of all frames leaves them: channels last, key and value side by side in one tensor.
    joint = torch.cat([key, value], 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    key_last, value_last = joint.view(2, 2, 12, 5, 4).chunk(2, dim=2)
    one = torch.ones((), device=device).expand(key.shape)  # every stride is zero, as after sum()
    expect_the_definition(query_last, key_last, value_last, grad, 3)
    expect_the_definition(query_last, key, value_last, one, 3)
    expect_the_definition(query.mT.contiguous().mT, key.mT.contiguous().mT, value, grad.flip(1), 3)


def check_offsets_beyond_32_bits(device: torch.device) -> None:
    query, key, value, grad = random((1, 3, 2, 5, 3), torch.bfloat16, device)
    # Four gigabytes, of which a few pages are touched.
    storage = torch.empty(2**31 + 128, dtype=torch.bfloat16, device=device)
    rows_apart = (0, 16, 1, 2**29, 4)
    frames_apart = (0, 2**30, 1, 16, 4)
    for strides in (rows_apart, frames_apart):
        far_key = storage.as_strided(key.shape, strides).copy_(key)
        far_value = storage.as_strided(key.shape, strides, 2).copy_(value)
        expect_the_definition(query, far_key, far_value, grad, 3)
        far_grad = storage.as_strided(key.shape, strides).copy_(grad)
        expect_the_definition(query, key, value, far_grad, 3)


def check_only_the_asked_gradients(device: torch.device) -> None:
    query, key, value, grad = random((1, 2, 3, 4, 4), torch.float32, device)
    _, score, index = fused_gpu.forward(query, key, value, 3)
    everything = fused_gpu.backward(grad, query, key, value, score, index, 3)
    before = [tensor.clone() for tensor in (query, key, value, score)]
    for mask in range(8):
        needs = (bool(mask & 1), bool(mask & 2), bool(mask & 4))
        some = fused_gpu.backward(grad, query, key, value, score, index, 3, needs)
        for wanted, actual, expected in zip(needs, some, everything, strict=True):
            assert (actual is not None) == wanted
            if actual is not None:
                torch.testing.assert_close(actual, expected)
    for tensor, copy in zip((query, key, value, score), before, strict=True):
        assert torch.equal(tensor, copy)


def check_ties(device: torch.device) -> None:
    ones = torch.ones(1, 1, 1, 5, 5, device=device)
    for window in (3, 5, 15):
        _, score, index = fused_gpu.forward(ones[0], ones, ones, window)
        # The first position inside the frame is up and left where there is one.
        reach = window // 2
        assert index[0, 0].tolist() == [[max(y - reach, 0) * 5 + max(x - reach, 0) for x in range(5)] for y in range(5)]
        assert torch.equal(score, ones[0])


def check_outside_positions_never_win(device: torch.device) -> None:
    query = torch.ones(1, 1, 3, 3, device=device)
    low = torch.full((1, 1, 1, 3, 3), -2.0, device=device)
    output, score, index = fused_gpu.forward(query, low, low, 9)
    assert torch.equal(score, low[0])
    assert torch.equal(output, torch.full_like(low, 4.0))
    assert not index.any()


def check_minus_infinity_everywhere(device: torch.device) -> None:
    query = torch.ones(1, 1, 3, 4, device=device)
    key = torch.full((1, 1, 1, 3, 4), -math.inf, device=device)
    value = torch.arange(1.0, 13.0, device=device).view(1, 1, 1, 3, 4)
    output, score, index = fused_gpu.forward(query, key, value, 3)
    assert torch.equal(score, key[0])
    assert torch.equal(output, key)
    assert index[0, 0].tolist() == [[max(y - 1, 0) * 4 + max(x - 1, 0) for x in range(4)] for y in range(3)]


def check_infinity(device: torch.device) -> None:
    query = torch.ones(1, 1, 5, 5, device=device)
    key = torch.zeros(1, 1, 1, 5, 5, device=device)
    key[..., 2, 2] = math.inf
    output, score, index = fused_gpu.forward(query, key, torch.ones_like(key), 3)
    sees = torch.zeros(5, 5, dtype=torch.bool, device=device)
    sees[1:4, 1:4] = True
    assert torch.equal(score[0, 0].isinf(), sees)
    assert torch.equal(index[0, 0] == 12, sees)
    assert torch.equal(output[0, 0, 0], torch.where(sees, math.inf, 0.0))
    # The gradient of the key is finite; an infinite score times a gradient of zero is NaN where it belongs, alone.
    grads = fused_gpu.backward(torch.zeros_like(output), query, key, torch.ones_like(key), score, index, 3)
    assert grads[1] is not None
    assert grads[2] is not None
    assert torch.equal(grads[1], torch.zeros_like(key))
    assert torch.equal(grads[2].isnan(), key.isinf())


def check_nan(device: torch.device) -> None:
    query, key, value, _ = random((1, 1, 2, 7, 7), torch.float32, device)
    key[..., 3, 3] = math.inf
    key[..., 3, 2] = key[..., 4, 3] = math.nan
    output, score, index = fused_gpu.forward(query.abs(), key, value, 3)
    for y in range(7):
        for x in range(7):
            sees = [p for p in ((3, 2), (4, 3)) if abs(p[0] - y) <= 1 and abs(p[1] - x) <= 1]
            assert score[0, 0, y, x].isnan().item() == bool(sees)
            assert output[0, 0, :, y, x].isnan().all().item() == bool(sees)
            if sees:  # NaN wins over infinity, and the first NaN over later ones
                assert index[0, 0, y, x].item() == sees[0][0] * 7 + sees[0][1]


def check_sums_in_row_major_order(device: torch.device) -> None:
    query = torch.ones(1, 1, 9, 9, device=device)
    key = torch.zeros(1, 1, 1, 9, 9, device=device)
    key[..., 4, 4] = 1.0
    grad = torch.randn(81, generator=torch.Generator().manual_seed(0)).exp().pow(3)
    _, score, index = fused_gpu.forward(query, key, key, 7)
    grads = fused_gpu.backward(grad.view(1, 1, 1, 9, 9).to(device), query, key, key, score, index, 7)
    expected = torch.zeros(())
    for y in range(1, 8):
        for x in range(1, 8):
            expected += grad[y * 9 + x]
    assert grads[2] is not None
    assert grads[2][0, 0, 0, 4, 4].item() == expected.item()  # every score is 1: the order alone could differ


def check_equal_inputs_give_equal_bits(device: torch.device) -> None:
    query, key, value, grad = random((1, 2, 12, 6, 7), torch.float32, device)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            output, score, index = fused_gpu.forward(query, key, value, 5)
            runs.append((output, *fused_gpu.backward(grad, query, key, value, score, index, 5)))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def check_every_tile_gives_the_same(device: torch.device) -> None:
    """Tiles are tuned on a GPU alone; here each is taken as if it had been the fastest."""
    query, key, value, grad = random((1, 2, 64, 7, 7), torch.float32, device)
    output, score, index = fused_gpu.forward(query, key, value, 3)
    expected = (output, *fused_gpu.backward(grad, query, key, value, score, index, 3))
    pixel_tiles, chosen_tiles = fused_gpu._PIXEL_TILES, fused_gpu._CHOSEN_TILES
    for pixel, chosen in zip_longest(pixel_tiles, chosen_tiles, fillvalue=chosen_tiles[0]):
        with (
            mock.patch.object(fused_gpu, "_PIXEL_TILES", (pixel,)),
            mock.patch.object(fused_gpu, "_CHOSEN_TILES", (chosen,)),
            mock.patch.object(torch.Tensor, "is_cuda", True),  # goes by Triton's tuner
        ):
            output, score, index = fused_gpu.forward(query, key, value, 3)
            actual = (output, *fused_gpu.backward(grad, query, key, value, score, index, 3))
        torch.testing.assert_close(actual, expected)


CHECKS: tuple[Callable[[torch.device], None], ...] = (
    check_float32,
    check_half_precision,
    check_more_channels_than_a_tile_has_elements,
    check_layouts,
    check_offsets_beyond_32_bits,
    check_only_the_asked_gradients,
    check_ties,
    check_outside_positions_never_win,
    check_minus_infinity_everywhere,
    check_infinity,
    check_nan,
    check_sums_in_row_major_order,
    check_equal_inputs_give_equal_bits,
    check_every_tile_gives_the_same,
)


def main() -> None:
    """Prints {name of check: traceback, or null where it passed}."""
    results: dict[str, str | None] = {}
    for check in CHECKS:
        try:
            check(torch.device("cpu"))
            results[check.__name__] = None
        except Exception:
            results[check.__name__] = traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
