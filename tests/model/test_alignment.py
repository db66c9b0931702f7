"""A kind of attention from outside works wherever the network goes; those of the table are whole."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mana_dist.config import Config, load, to_yaml
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.alignment import KINDS, AttentionKind, CrossFrameAttention, Sizes
from mana_dist.model.tiling import Tiling, decoder_reach
from mana_dist.train.objective import StageObjective
from mana_dist.train.planning.costs import sample_cost
from mana_dist.train.schedule import Stage
from tests.model.test_tiling import CONFIG, random_model, whole_and_tiled


class LearnedBlur(nn.Module):
    """Filters over key and value of each frame, which it learns, times the query."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(sizes.channels, sizes.channels, sizes.window, sizes.window))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        blurred = F.conv2d((key + value).flatten(0, 1), self.filters, padding=self.filters.shape[-1] // 2)
        return query.unsqueeze(1) * blurred.view_as(value)


@pytest.fixture
def blur() -> Iterator[AttentionKind]:
    kind = AttentionKind(name="blur", build=LearnedBlur, reach=lambda sizes: sizes.window // 2)
    KINDS.add(kind)
    yield kind
    del KINDS._kinds["blur"]


@pytest.mark.usefixtures("blur")
def test_a_kind_with_parameters_of_its_own_is_configured_tiled_costed_and_trained() -> None:
    config = dataclasses.replace(CONFIG, attention="blur")
    assert load(to_yaml(Config(model=config)), "config.yaml").model == config
    model = random_model(config)
    assert model.state_dict()["attention.attend.filters"].shape == (4, 4, 5, 5)

    cut = Tiling(8, decoder_reach(config))
    whole, tiled = whole_and_tiled(model, 33, 40, cut)
    torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-10)
    model.attention.reach = 1  # less than its filters' is seen
    assert not torch.allclose(whole_and_tiled(model, 33, 40, cut)[1], whole, rtol=1e-10, atol=1e-10)

    # For each of 3 x 4 maps: three passes over a product with 4 channels; the one-hot attention's: see test_costs.
    stage, crop = Stage(1, 0, 1, 1e-4), 16
    costs = [
        sample_cost(dataclasses.replace(CONFIG, attention=name, window=1), stage, crop, "fp32").flops
        for name in ("blur", "one_hot")
    ]
    assert costs[0] - costs[1] == 3 * 4 * crop**2 * (3 * 2 * 4 - (2 + 8))

    objective = StageObjective(Mana(config), stage)
    nn.init.normal_(objective.model.attention.project.weight)
    objective(torch.randint(256, (1, 3, 3, 8, 8)), torch.randint(256, (1, 3, 32, 32))).backward()
    learned = objective.model.get_parameter("attention.attend.filters")
    assert learned.grad is not None
    assert learned.grad.abs().min() > 0


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if isinstance(kind, AttentionKind)])
def test_every_attention_has_a_reach_that_holds_and_operations_that_are_counted(name: str) -> None:
    config = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=5, attention=name)
    attention = Mana(config).attention.double()
    assert isinstance(attention, CrossFrameAttention)
    query, key, value = torch.randn(1, 4, 9, 11), torch.randn(1, 3, 4, 9, 11), torch.randn(1, 3, 4, 9, 11)
    inputs = [tensor.double().requires_grad_() for tensor in (query, key, value)]
    with FlopCounterMode(display=False) as counter:
        output = attention.attend(*inputs)
    assert output.shape == value.shape
    assert counter.get_total_flops() >= 2 * value.numel()
    for seen in torch.autograd.grad(output[..., 4, 5].sum(), inputs):
        rows, columns = (seen.abs().flatten(0, -3).amax(0) > 0).nonzero(as_tuple=True)
        reach = attention.reach if attention.reach is not None else max(value.shape)
        assert max((rows - 4).abs().max(), (columns - 5).abs().max()) <= reach


def test_a_kind_that_lacks_a_part_is_none() -> None:
    with pytest.raises(TypeError, match="reach"):
        AttentionKind(name="half", build=LearnedBlur)  # type: ignore[call-arg]
