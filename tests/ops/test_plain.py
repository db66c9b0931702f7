"""The plain forms of operators give what the operators give; margins are what the definitions say."""

import itertools

import pytest
import torch

from mana_dist.ops import one_hot_attention, softmax_window_attention
from mana_dist.ops.patches import Search
from mana_dist.ops.plain import OPERATORS
from tests.ops import literal_phases as literal
from tests.ops.test_phases import moving


@pytest.mark.parametrize("operator", [one_hot_attention, softmax_window_attention], ids=lambda of: of.__name__)
@pytest.mark.parametrize(("height", "width", "window"), [(9, 11, 5), (2, 3, 7), (6, 1, 3), (4, 4, 1)])
def test_attentions(operator: "object", height: int, width: int, window: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, height, width, generator=generator)
    key, value = torch.randn(2, 2, 3, 4, height, width, generator=generator)
    name = operator.__name__  # type: ignore[attr-defined]
    found, *_ = OPERATORS[name].run(query, key, value, window)
    torch.testing.assert_close(found, operator(query, key, value, window))  # type: ignore[operator]


def test_the_margin_of_the_one_hot_attention() -> None:
    query, key = torch.ones(1, 1, 2, 2), torch.tensor([[[[[1.0, 4.0], [2.5, 3.0]]]]])
    margin = OPERATORS["one_hot_attention"].margin
    assert margin is not None
    assert margin(query, key, key, 3).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
    assert (margin(query, key.expand(1, 1, 1, 2, 2) * 0, key, 3) == 0).all()


@pytest.mark.parametrize("sides", [[7, 9, 17, 5], [5, 5, 0, 3], [3, 1, 3, 3]])
def test_the_margin_of_the_patch_search(sides: list[int]) -> None:
    patch, window, coarse_window, refine = sides
    search = Search(patch=patch, window=window, coarse_window=coarse_window, refine=refine)
    frames = moving(13, 18, step=3.4)
    margin = OPERATORS["match_patches"].margin
    assert margin is not None
    found = margin(frames, sides)
    greys = [grey.numpy() for grey in frames[0].double().mean(1)]
    before, centre, _ = (literal.descriptors(grey, patch) for grey in greys)
    small_before, small_centre, _ = (literal.descriptors(literal.quarter(grey), patch) for grey in greys)
    for y, x in itertools.product(range(0, 13, 4), range(0, 18, 5)):
        places = set(literal.candidates(small_centre, small_before, y, x, search))
        leads = [sorted(literal.likeness(centre, before, (y, x), place) for place in places)]
        if coarse_window:
            cell = min(y // 4, 2), min(x // 4, 3)
            there = literal.around(*cell, coarse_window)
            leads.append(sorted(literal.likeness(small_centre, small_before, cell, place) for place in there))
        expected = min(scores[-1] - scores[-2] for scores in leads)
        assert found[0, 0, y, x].item() == pytest.approx(expected, abs=1e-4)
