"""The network as one graph of torch."""

import pytest
import torch

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.alignment import KINDS


def small(attention: str) -> Mana:
    torch.manual_seed(0)
    sizes = {"channels": 8, "encoder_blocks": 1, "decoder_blocks": 1, "frames": 3, "window": 3, "memory_slots": 4}
    model = Mana(ModelConfig(attention=attention, **sizes))
    if attention != "none":
        torch.nn.init.normal_(model.attention.project.weight)  # zeros would hide the attention
    return model


@pytest.mark.parametrize("attention", KINDS)
def test_exported_it_gives_the_same_frames(attention: str) -> None:
    model, frames = small(attention).eval(), torch.rand(2, 3, 3, 8, 9)
    exported = torch.export.export(model, (frames,))
    torch.testing.assert_close(exported.module()(frames), model(frames))
    targets = {str(node.target) for node in exported.graph.nodes}
    if attention in ("one_hot", "softmax_window"):  # operators of torch's
        assert f"mana.{attention}_attention.default" in targets
    if attention == "phases":
        assert {"mana.match_patches.default", "mana.sort_by_phase.default"} <= targets


def test_compiled_in_one_graph_it_trains_alike() -> None:
    model, frames = small("one_hot"), torch.rand(1, 3, 3, 8, 9)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found, expected = (torch.autograd.grad(call(frames).square().mean(), parameters) for call in (compiled, model))
    torch.testing.assert_close(found, expected)
