"""Alignment by phases: what it looks at, how it starts, and the same result band by band, streamed and trained."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.alignment import phases
from mana_dist.train.objective import StageObjective
from mana_dist.train.planning.costs import sample_cost
from mana_dist.train.schedule import Stage

CONFIG = ModelConfig(
    channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=5, memory_slots=0, attention="phases"
)
STAGE = Stage(1, 0, 1, 1e-4)


def random_model(config: ModelConfig = CONFIG) -> Mana:
    torch.manual_seed(0)
    model = Mana(config)
    torch.nn.init.normal_(model.attention.project.weight, std=0.1)
    return model


def test_it_starts_as_the_network_of_a_single_frame() -> None:
    torch.manual_seed(0)
    model, clip = Mana(CONFIG), torch.rand(1, 5, 3, 9, 12)
    alone = model.upsample(clip[:, 2]) + model.decode(model.encode(clip[:, 2]))
    assert torch.equal(model(clip), alone)


def test_neighbours_are_looked_at_but_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip, encoded = random_model(), torch.rand(2, 5, 3, 9, 12), []

    def encode(frames: Tensor) -> Tensor:
        encoded.append(frames.shape)
        return Mana.encode(model, frames)

    monkeypatch.setattr(model, "encode", encode)
    whole = model(clip)
    assert encoded == [(2, 3, 9, 12)]
    changed = clip.clone()
    changed[:, 4] = clip[:, 4].roll(1, -1)
    assert not torch.equal(model(changed), whole)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = random_model(), torch.rand(1, 5, 3, 50, 12)
    with torch.no_grad():
        whole = model(clip)
        monkeypatch.setattr(phases, "_BAND", 1)
        torch.testing.assert_close(model(clip), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("slots", [0, 3])
def test_it_is_trained_and_its_cost_is_counted(slots: int) -> None:
    config = dataclasses.replace(CONFIG, memory_slots=slots)
    objective = StageObjective(random_model(config), STAGE)
    objective(torch.randint(256, (1, 5, 3, 8, 8)), torch.randint(256, (1, 3, 32, 32))).backward()
    for name, parameter in objective.model.named_parameters():
        if STAGE.trains(name):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert objective.model.get_parameter("attention.fuse1.weight").grad.abs().sum() > 0  # type: ignore[union-attr]
    # Of a pixel, forward and backward: at least three times its convolutions' products.
    crop, weights = 16, sum(p.numel() for n, p in objective.model.named_parameters() if "fuse" in n)
    assert sample_cost(config, STAGE, crop, "fp32").flops > 5 * weights * crop**2


def test_the_memory_asks_with_a_query_of_its_own() -> None:
    model = random_model(dataclasses.replace(CONFIG, memory_slots=3))
    frames = torch.rand(1, 3, 6, 7)
    reading, query = model.memory_reading(frames)
    assert reading.shape == query.shape == (1, 4, 6, 7)
    own = model.attention.get_parameter("to_query.weight"), model.attention.get_parameter("to_query.bias")
    torch.testing.assert_close(query, torch.nn.functional.conv2d(model.encode(frames), *own))
