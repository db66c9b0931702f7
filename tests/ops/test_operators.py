"""The attentions as operators of torch: seen whole by torch.compile, torch.export and the FLOP counter."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mana_dist.ops import one_hot, one_hot_attention, softmax_window, softmax_window_attention
from tests.ops.definitions import random_inputs

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
ATTENTIONS = pytest.mark.parametrize("attention", [one_hot_attention, softmax_window_attention])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("module", [one_hot, softmax_window])
def test_torchs_own_check_of_an_operator(module, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    """Schema, autograd, and fake results of the shapes, types and strides of the real ones, fixed or symbolic."""
    query, key, value, grad = random_inputs(2, 3, 4, 6, 5, dtype=dtype)
    torch.library.opcheck(module._attend, (query, key, value, 3))
    inputs = (query.detach(), key.detach(), value.detach())
    output, *others = module._attend(*inputs, 3)
    saved = (output, *others) if module is softmax_window else others
    for needs in ([True, True, True], [True, False, True]):
        torch.library.opcheck(module._gradients, (grad, *inputs, *saved, 3, needs))


@ATTENTIONS
def test_a_call_does_not_import_the_compiler(attention: Attention) -> None:
    code = (
        "import sys, torch\n"
        f"from mana_dist.ops import {attention.__name__} as attention\n"
        "query, key = torch.ones(1, 2, 3, 3, requires_grad=True), torch.ones(1, 2, 2, 3, 3)\n"
        "attention(query, key, key, 3).sum().backward()\n"
        "assert query.grad is not None\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@ATTENTIONS
def test_compiled_in_one_graph_with_its_gradients(attention: Attention) -> None:
    query, key, value, grad = random_inputs(1, 2, 3, 5, 4)

    def layer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query * 2, key, value.relu(), 3).flatten(1, 2) + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = (call(query, key, value) for call in (compiled, layer))
    assert torch.equal(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, (query, key, value), grad.flatten(1, 2)),
        torch.autograd.grad(expected, (query, key, value), grad.flatten(1, 2)),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def counted(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def literal_pairs(window: int, height: int, width: int) -> int:
    reach = window // 2
    return sum(
        abs(y - y2) <= reach and abs(x - x2) <= reach
        for y in range(height)
        for x in range(width)
        for y2 in range(height)
        for x2 in range(width)
    )


@pytest.mark.parametrize(("attention", "device"), [(one_hot_attention, "cpu"), (one_hot_attention, "meta")])
@pytest.mark.parametrize("window", [1, 3, 9])
def test_operations_of_the_one_hot_attention(attention: Attention, device: str, window: int) -> None:
    query, key, value, grad = (tensor.detach().to(device) for tensor in random_inputs(2, 3, 4, 5, 7))
    maps, pairs = 2 * 3 * 4, literal_pairs(window, 5, 7)
    # A product for each pair, and a scaling of the winner.
    assert counted(lambda: attention(query, key, value, window)) == maps * (2 * pairs + 5 * 7)
    # Backward for the winner alone: a scaling for the value, a product for the score, and one for query and key.
    for asked, flops in (((query, key, value), 7), ((value,), 1), ((query,), 4), ((key, value), 5)):
        for tensor in (query, key, value):
            tensor.requires_grad_(any(tensor is one for one in asked))
        output = attention(query, key, value, window)
        backward = counted(lambda output=output, asked=asked: torch.autograd.grad(output, asked, grad))  # type: ignore[misc]
        assert backward == maps * flops * 5 * 7


def test_operations_of_the_softmax_attention() -> None:
    query, key, value, grad = random_inputs(2, 3, 4, 5, 7)
    maps, pairs = 2 * 3 * 4, literal_pairs(3, 5, 7)
    output = softmax_window_attention(query, key, value, 3)
    assert counted(lambda: softmax_window_attention(query, key, value, 3)) == maps * 4 * pairs
    backward = counted(lambda: torch.autograd.grad(output, (query, key, value), grad))
    assert backward == maps * (8 * pairs + 2 * 5 * 7)
