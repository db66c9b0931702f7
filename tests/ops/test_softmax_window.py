"""Softmax attention in a window against a literal per-pixel loop in double precision."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mana_dist.ops import softmax_window_attention
from tests.ops.definitions import channels_innermost, peak_bytes, random_inputs, softmax_literal


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3, 4, 6, 5), 3),
        ((1, 2, 3, 7, 9), 5),
        ((1, 1, 2, 4, 12), 9),  # the window is larger than the frame's height
        ((1, 2, 2, 3, 4), 13),  # and than the whole frame
        ((1, 2, 1, 1, 1), 9),  # a frame of one pixel
        ((1, 3, 5, 8, 3), 1),  # the pixel itself alone
    ],
)
def test_values_and_gradients_equal_the_definition(shape: tuple[int, ...], window: int) -> None:
    query, key, value, grad = random_inputs(*shape)
    expected = softmax_literal(query, key, value, window)
    expected_grads = torch.autograd.grad(expected, (query, key, value), grad)
    output = softmax_window_attention(query, key, value, window)
    grads = torch.autograd.grad(output, (query, key, value), grad)
    torch.testing.assert_close((output, *grads), (expected, *expected_grads), rtol=1e-11, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    query, key, value, _ = random_inputs(1, 2, 3, 4, 3)
    assert torch.autograd.gradcheck(lambda q, k, v: softmax_window_attention(q, k, v, 3), (query, key, value))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2**-7)])
def test_lower_precisions_round_the_results_alone(dtype: torch.dtype, tolerance: float) -> None:
    """Sums are taken in float32; of bfloat16, the output's rounding enters the gradients once more."""
    query, key, value, grad = random_inputs(1, 2, 8, 6, 5, dtype=dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    expected = softmax_literal(exact[0], exact[1], exact[2], 5)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    output = softmax_window_attention(query, key, value, 5)
    grads = torch.autograd.grad(output, (query, key, value), grad)
    for actual, wanted in zip((output, *grads), (expected, *expected_grads), strict=True):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


@pytest.mark.parametrize("score", [0.0, 500.0, -500.0])
def test_equal_scores_give_the_mean_of_the_positions_inside_the_frame(score: float) -> None:
    query, value = torch.full((1, 2, 6, 7), 0.5), torch.randn(1, 1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    output = softmax_window_attention(query, torch.full_like(value, score), value, 3)
    mean = F.avg_pool2d(value[0], 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(output[0], mean)


@pytest.mark.parametrize("size", [1e3, 1e20, 1e38])
def test_large_scores_neither_overflow_nor_vanish(size: float) -> None:
    """The best match alone is left, and it is not multiplied by its score."""
    key = torch.tensor([-1.0, 0.5, 1.0, -0.5, 0.0]).view(1, 1, 1, 1, 5)
    value = torch.arange(5.0).view(1, 1, 1, 1, 5)
    query = torch.full((1, 1, 1, 5), size)
    assert softmax_window_attention(query, key, value, 3).flatten().tolist() == [1, 2, 2, 2, 4]
    assert softmax_window_attention(-query, key, value, 3).flatten().tolist() == [0, 0, 3, 3, 3]


def test_a_score_of_minus_infinity_weighs_nothing() -> None:
    key = torch.zeros(1, 1, 1, 1, 4)
    key[..., :2] = -math.inf
    value = torch.arange(4.0).view(1, 1, 1, 1, 4)
    output = softmax_window_attention(torch.ones(1, 1, 1, 4), key, value, 3).flatten()
    assert output[1:].tolist() == [2, 2.5, 2.5]
    assert output[0].isnan()  # as of torch.softmax: there is nothing to choose from


def test_nan_shows_in_every_window_that_sees_it_and_nowhere_else() -> None:
    query, key, value, _ = (tensor.detach() for tensor in random_inputs(1, 1, 2, 7, 7))
    key[0, 0, 0, 3, 3] = math.nan
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[2:5, 2:5] = True
    assert torch.equal(softmax_window_attention(query, key, value, 3)[0, 0].isnan().all(0), expected)


def test_layout_does_not_matter_and_the_output_is_ready_for_a_convolution() -> None:
    query, key, value, grad = random_inputs(2, 3, 4, 6, 5, dtype=torch.float32)
    outputs = []
    for change in (torch.Tensor.detach, channels_innermost):
        inputs = [change(tensor).requires_grad_() for tensor in (query, key, value)]
        output = softmax_window_attention(inputs[0], inputs[1], inputs[2], 5)
        assert output.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)
        outputs.append((output, *torch.autograd.grad(output, inputs, change(grad))))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)


def test_a_gradient_that_is_one_number_everywhere() -> None:
    """As ``sum()`` gives it: every stride is zero."""
    query, key, value, grad = random_inputs(1, 2, 3, 4, 5)
    output = softmax_window_attention(query, key, value, 3)
    expected = torch.autograd.grad(output, (query, key, value), torch.ones_like(grad), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(output.sum(), (query, key, value)), expected, rtol=0, atol=0)


def test_inputs_that_share_memory_keep_gradients_of_their_own() -> None:
    query, key, _, grad = random_inputs(1, 3, 2, 4, 4)
    one = key[:, :1].detach().requires_grad_()
    shared = one.expand(-1, 3, -1, -1, -1)
    (actual,) = torch.autograd.grad(softmax_window_attention(query, shared, shared, 3), one, grad)
    (expected,) = torch.autograd.grad(softmax_literal(query, shared, shared, 3), one, grad)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("asked", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_asked_gradients_are_made(asked: tuple[bool, bool, bool]) -> None:
    query, key, value, grad = random_inputs(1, 2, 3, 4, 4)
    everything = torch.autograd.grad(softmax_window_attention(query, key, value, 3), (query, key, value), grad)
    inputs = [tensor.detach().requires_grad_(ask) for tensor, ask in zip((query, key, value), asked, strict=True)]
    softmax_window_attention(inputs[0], inputs[1], inputs[2], 3).backward(grad)
    for tensor, ask, expected in zip(inputs, asked, everything, strict=True):
        assert (tensor.grad is not None) == ask
        if tensor.grad is not None:
            assert torch.equal(tensor.grad, expected)


def test_equal_inputs_give_equal_bits_and_deterministic_algorithms_are_enough() -> None:
    query, key, value, grad = random_inputs(1, 3, 16, 20, 21, dtype=torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            output = softmax_window_attention(query, key, value, 9)
            runs.append((output, *torch.autograd.grad(output, (query, key, value), grad)))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def unfolded(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """The definition through copies of every window."""
    batch, frames, channels, height, width = key.shape
    taps, padding = window * window, window // 2
    keys, values = (
        F.unfold(tensor.flatten(0, 1), window, padding=padding).view(batch, frames, channels, taps, -1)
        for tensor in (key, value)
    )
    inside = F.unfold(key.new_ones(1, 1, height, width), window, padding=padding).view(taps, -1) > 0
    scores = (query.flatten(2)[:, None, :, None] * keys).sum(2).masked_fill(~inside, -math.inf)
    return (scores.softmax(2).unsqueeze(2) * values).sum(3).view(key.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_a_few_feature_maps_where_unfold_takes_hundreds(dtype: torch.dtype) -> None:
    query, key, value, grad = random_inputs(1, 2, 16, 24, 24, dtype=dtype)
    query, key, value, grad = (channels_innermost(tensor) for tensor in (query, key, value, grad))
    for tensor in (query, key, value):
        tensor.requires_grad_()

    def forward_and_backward(attention) -> int:  # type: ignore[no-untyped-def]
        return peak_bytes(lambda: torch.autograd.grad(attention(query, key, value, 9), (query, key, value), grad))

    map_in_float32 = 4 * key.numel()
    # The output, the gradients of key and value, and two products of which one is about to go; bf16: float32 copies.
    few = 6 if dtype == torch.float32 else 10
    assert forward_and_backward(softmax_window_attention) < few * map_in_float32
    assert forward_and_backward(unfolded) > 81 * 2 * key.numel() * key.element_size()


@pytest.mark.parametrize("window", [0, 2, -1])
def test_an_even_or_empty_window_is_refused(window: int) -> None:
    query, key, value, _ = random_inputs(1, 1, 2, 3, 3)
    with pytest.raises(ValueError, match="window must be odd"):
        softmax_window_attention(query, key, value, window)


def test_shapes_that_do_not_match_are_refused() -> None:
    query, key, value, _ = random_inputs(1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="shapes do not match"):
        softmax_window_attention(query, key, value[:, :1], 3)
