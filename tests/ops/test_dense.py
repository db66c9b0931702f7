"""Dense attention against a literal per-pixel loop in double precision."""

import pytest
import torch

from mana_dist.ops import dense_attention
from tests.ops.definitions import channels_innermost, peak_bytes, random_inputs, softmax_literal


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 6, 5), (1, 2, 3, 7, 9), (1, 1, 2, 1, 12), (1, 2, 1, 1, 1), (1, 3, 5, 8, 3)]
)
def test_values_and_gradients_equal_the_definition(shape: tuple[int, ...]) -> None:
    query, key, value, grad = random_inputs(*shape)
    expected = softmax_literal(query, key, value, None)
    expected_grads = torch.autograd.grad(expected, (query, key, value), grad)
    output = dense_attention(query, key, value)
    grads = torch.autograd.grad(output, (query, key, value), grad)
    torch.testing.assert_close((output, *grads), (expected, *expected_grads), rtol=1e-11, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    query, key, value, _ = random_inputs(1, 2, 3, 3, 3)
    assert torch.autograd.gradcheck(dense_attention, (query, key, value))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2**-6)])
def test_lower_precisions(dtype: torch.dtype, tolerance: float) -> None:
    """Torch's kernel also rounds the weights to bfloat16."""
    query, key, value, grad = random_inputs(1, 2, 8, 6, 5, dtype=dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    expected = softmax_literal(exact[0], exact[1], exact[2], None)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    output = dense_attention(query, key, value)
    grads = torch.autograd.grad(output, (query, key, value), grad)
    for actual, wanted in zip((output, *grads), (expected, *expected_grads), strict=True):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


def test_frames_do_not_see_each_other() -> None:
    query, key, value, _ = (tensor.detach() for tensor in random_inputs(1, 3, 4, 5, 4))
    together = dense_attention(query, key, value)
    alone = [dense_attention(query, key[:, t : t + 1], value[:, t : t + 1]) for t in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, 1))


@pytest.mark.parametrize("layout", [torch.Tensor.detach, channels_innermost])
def test_no_matrix_of_all_pairs_is_made_on_a_cpu(layout) -> None:  # type: ignore[no-untyped-def]
    query, key, value, grad = (layout(tensor) for tensor in random_inputs(1, 2, 8, 40, 41, dtype=torch.float32))
    for tensor in (query, key, value):
        tensor.requires_grad_()
    inputs = (query, key, value)
    peak = peak_bytes(lambda: torch.autograd.grad(dense_attention(*inputs), inputs, grad))
    matrix = 4 * 2 * (40 * 41) ** 2
    assert peak < matrix / 10


def test_shapes_that_do_not_match_are_refused() -> None:
    query, key, value, _ = random_inputs(1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="shapes do not match"):
        dense_attention(query[..., :4], key, value)
