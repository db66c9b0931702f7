"""Networks that begin as smaller ones: they compute the same, and their copies of a channel learn different things."""

import dataclasses
from typing import Any

import pytest
import torch

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.grow import grown

SMALL = ModelConfig(
    channels=4, encoder_blocks=1, decoder_blocks=1, frames=3, window=5, memory_slots=0, attention="phases"
)


def trained(config: ModelConfig) -> Mana:
    """A network none of whose weights is zero."""
    torch.manual_seed(3)
    model = Mana(config)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.4, 0.4)
    return model


def larger(model: Mana, **changes: Any) -> Mana:
    config = dataclasses.replace(model.config, **changes)
    weights = grown(model, config, seed=0)
    assert weights is not None
    network = Mana(config)
    network.load_state_dict(weights)
    return network


@pytest.mark.parametrize("attention", ["phases", "none"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 8},
        {"channels": 12, "encoder_blocks": 2},
        {"encoder_blocks": 3, "decoder_blocks": 2},
    ],
)
def test_a_grown_network_computes_what_the_smaller_one_does(
    attention: str, scale: int, changes: dict[str, Any]
) -> None:
    model = trained(dataclasses.replace(SMALL, attention=attention, scale=scale))
    frames = torch.rand(2, 3, 3, 17, 22)
    with torch.no_grad():
        torch.testing.assert_close(larger(model, **changes)(frames), model(frames), rtol=1e-4, atol=1e-5)


def test_copies_of_a_channel_learn_different_things() -> None:
    network = larger(trained(SMALL), channels=8, decoder_blocks=2)
    network(torch.rand(1, 3, 3, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        if parameter.shape[0] == 8 and "decoder.1" not in name:
            assert not torch.allclose(parameter.grad[:4], parameter.grad[4:], rtol=0.01), name
    new = network.get_parameter("decoder.1.conv2.weight").grad  # a new block learns from the first step
    assert new is not None
    assert new.abs().min() > 0


def test_a_seed_gives_the_same_weights() -> None:
    model, config = trained(SMALL), dataclasses.replace(SMALL, channels=8)
    first, again, other = (grown(model, config, seed) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "changes", [{}, {"channels": 6}, {"channels": 2}, {"decoder_blocks": 0}, {"frames": 5}, {"memory_slots": 4}]
)
def test_other_networks_are_not_grown(changes: dict[str, Any]) -> None:
    assert grown(trained(SMALL), dataclasses.replace(SMALL, **changes), seed=0) is None


def test_an_attention_by_dot_products_can_be_made_deeper_alone() -> None:
    model = trained(dataclasses.replace(SMALL, attention="one_hot", memory_slots=4))
    assert grown(model, dataclasses.replace(model.config, channels=8), seed=0) is None
    frames = torch.rand(1, 3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(larger(model, decoder_blocks=3)(frames), model(frames))
