"""Tiles give the frame that the whole gives."""

import dataclasses

import pytest
import torch

from mana_dist.model import Mana, ModelConfig, tiling
from mana_dist.model.tiling import Tiling, decoder_reach, encoder_reach, tiling_for

CONFIG = ModelConfig(channels=8, encoder_blocks=2, decoder_blocks=3, frames=3, window=5, memory_slots=4)


def random_model(config: ModelConfig = CONFIG) -> Mana:
    torch.manual_seed(0)
    model = Mana(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def whole_and_tiled(model: Mana, height: int, width: int, cut: Tiling) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    frames = torch.rand(1, 3, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        embedded = [tiling.embed(model, frames[:, t], cut) for t in range(3)]
        key, value = (torch.stack([getattr(e, name) for e in embedded], 1) for name in ("key", "value"))
        tiled = tiling.reconstruct(model, frames[:, 1], embedded[1].feature, key, value, cut)
        return model(frames), tiled


@pytest.mark.parametrize("attention", ["one_hot", "softmax_window", "dense", "phases"])
@pytest.mark.parametrize(("height", "width"), [(40, 33), (17, 64), (16, 16), (5, 50)])
@pytest.mark.parametrize(("side", "scale"), [(8, 4), (16, 4), (8, 2), (16, 3)])
def test_with_the_whole_receptive_field_as_overlap_tiles_are_exact(
    height: int, width: int, side: int, scale: int, attention: str
) -> None:
    model = random_model(dataclasses.replace(CONFIG, attention=attention, scale=scale))
    whole, tiled = whole_and_tiled(model, height, width, Tiling(side, decoder_reach(CONFIG)))
    torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-10)


def test_one_pixel_less_overlap_is_not_exact() -> None:
    """So the receptive field is not overstated."""
    whole, tiled = whole_and_tiled(random_model(), 40, 40, Tiling(8, decoder_reach(CONFIG) - 1))
    assert not torch.allclose(tiled, whole, rtol=1e-10, atol=1e-10)


def test_a_change_beyond_the_encoders_reach_does_not_move_a_feature() -> None:
    model, reach = random_model(), encoder_reach(CONFIG)
    frame = torch.rand(1, 3, 4 * reach, 9, dtype=torch.float64)
    changed = frame.clone()
    changed[:, :, 0] += 1
    with torch.no_grad():
        moved = (model.encode(frame) != model.encode(changed)).any(1).any(-1)[0]
    assert moved.tolist() == [True] * (reach + 1) + [False] * (3 * reach - 1)


def test_at_the_papers_depth_the_default_overlap_stays_far_below_a_grey_level() -> None:
    """Forty decoder blocks reach 82 pixels; with 24 of them the 8-bit frame is the same to half a level at most."""
    config = ModelConfig(channels=16, encoder_blocks=5, decoder_blocks=40, frames=1, window=9, memory_slots=16)
    torch.manual_seed(0)
    model = Mana(config)
    frame = torch.rand(1, 1, 3, 80, 150)
    with torch.no_grad():
        whole = model(frame)
        embedded = tiling.embed(model, frame[:, 0], Tiling(40))
        key, value = embedded.key.unsqueeze(1), embedded.value.unsqueeze(1)
        tiled = tiling.reconstruct(model, frame[:, 0], embedded.feature, key, value, Tiling(40))
    assert (tiled - whole).abs().max() < 0.5 / 255


@pytest.mark.parametrize("budget", [2**20, 2**24, 2**28])
def test_tiles_follow_the_budget(budget: int) -> None:
    config = ModelConfig()
    cut = tiling_for(config, 270, 480, budget)
    if cut is None:
        assert 270 * 480 * tiling.bytes_per_pixel(config, 4) <= budget
        return
    padded = cut.side + 2 * cut.halo
    fits = padded**2 * tiling.bytes_per_pixel(config, 4) <= budget
    assert fits or cut.side == tiling.LEAST_SIDE


def test_a_small_frame_is_not_cut() -> None:
    assert tiling_for(ModelConfig(), 64, 64, 2**30) is None
