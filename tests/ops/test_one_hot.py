"""One-hot attention against a literal per-pixel loop over the definition (paper equations 1 and 2)."""

import math

import pytest
import torch
from torch import Tensor

from mana_dist.ops import one_hot_attention
from tests.ops.definitions import one_hot_literal


def inputs(
    batch: int, frames: int, channels: int, height: int, width: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    shape = (batch, frames, channels, height, width)
    return make(batch, channels, height, width), make(*shape), make(*shape)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3, 4, 6, 5), 3),
        ((1, 2, 3, 7, 9), 5),
        ((1, 1, 2, 4, 12), 9),  # the window is larger than the frame's height
        ((1, 2, 1, 1, 1), 9),  # a frame of one pixel
        ((1, 3, 5, 8, 3), 1),  # the pixel itself alone
    ],
)
def test_values_and_gradients_equal_the_definition(shape: tuple[int, int, int, int, int], window: int) -> None:
    query, key, value = inputs(*shape)
    weights = torch.randn(shape[0], shape[1], shape[2], *shape[3:], dtype=torch.float64)

    expected = one_hot_literal(query, key, value, window)
    expected_grads = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    output = one_hot_attention(query, key, value, window)
    grads = torch.autograd.grad((output * weights).sum(), (query, key, value))

    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    query, key, value = inputs(1, 2, 3, 4, 4, seed=1)
    assert torch.autograd.gradcheck(lambda q, k, v: one_hot_attention(q, k, v, 3), (query, key, value), eps=1e-7)


def test_only_the_asked_gradients_are_made() -> None:
    query, key, value = inputs(1, 2, 3, 4, 4)
    key = key.detach()
    one_hot_attention(query, key, value, 3).sum().backward()
    assert query.grad is not None
    assert value.grad is not None
    assert key.grad is None


def test_of_equal_scores_the_first_in_row_major_order_wins() -> None:
    value = torch.arange(25.0).view(1, 1, 1, 5, 5)
    output = one_hot_attention(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 1, 5, 5), value, 3)
    # The first position inside the frame is up and left where there is one.
    expected = [[max(y - 1, 0) * 5 + max(x - 1, 0) for x in range(5)] for y in range(5)]
    assert output[0, 0, 0].tolist() == expected


def test_positions_outside_the_frame_never_win_even_against_negative_scores() -> None:
    query = torch.ones(1, 1, 3, 3)
    output = one_hot_attention(query, torch.full((1, 1, 1, 3, 3), -2.0), torch.full((1, 1, 1, 3, 3), 5.0), 9)
    assert torch.equal(output, torch.full((1, 1, 1, 3, 3), -10.0))


def test_minus_infinity_everywhere_is_kept() -> None:
    output = one_hot_attention(
        torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 2, 2), -math.inf), torch.ones(1, 1, 1, 2, 2), 3
    )
    assert torch.equal(output, torch.full((1, 1, 1, 2, 2), -math.inf))


def test_nan_shows_in_every_window_that_sees_it_and_nowhere_else() -> None:
    query, key, value = (tensor.detach() for tensor in inputs(1, 1, 2, 7, 7))
    key[0, 0, 0, 3, 3] = math.nan
    broken = one_hot_attention(query, key, value, 3)[0, 0].isnan().any(0)
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[2:5, 2:5] = True
    assert torch.equal(broken, expected)


def test_layout_does_not_matter() -> None:
    query, key, value = (tensor.detach() for tensor in inputs(2, 3, 4, 6, 5))
    strided = key.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert torch.equal(
        one_hot_attention(query.contiguous(memory_format=torch.channels_last), strided, value, 5),
        one_hot_attention(query, key, value, 5),
    )


@pytest.mark.parametrize("window", [0, 2, -1])
def test_an_even_or_empty_window_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        one_hot_attention(*inputs(1, 1, 2, 3, 3), window)


def test_shapes_that_do_not_match_are_refused() -> None:
    query, key, value = inputs(1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="shapes do not match"):
        one_hot_attention(query[..., :4], key, value, 3)
    with pytest.raises(ValueError, match="shapes do not match"):
        one_hot_attention(query, key, value[:, :1], 3)
    with pytest.raises(ValueError, match="must be"):
        one_hot_attention(query, query, value, 3)
