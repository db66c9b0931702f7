"""The error of matches against a loop over pixels, frames and positions."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.match_error import match_error
from tests.ops.literal_phases import around, candidates, descriptors, likeness, quarter

HEIGHT, WIDTH, FRAMES, WINDOW = 11, 13, 5, 5


def model(attention: str, channels: int = 8) -> Mana:
    torch.manual_seed(1)
    sizes = {"channels": channels, "encoder_blocks": 1, "decoder_blocks": 0, "memory_slots": 0}
    return Mana(ModelConfig(**sizes, frames=FRAMES, window=WINDOW, attention=attention)).eval()


def windows(frames: int = FRAMES) -> torch.Tensor:
    return torch.rand(1, frames, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))


def inside(y: int, x: int) -> bool:
    return 0 <= y < HEIGHT and 0 <= x < WIDTH


def neighbour_pixels(window: torch.Tensor) -> Iterator[tuple[int, int, int]]:
    """Frame, row and column of each pixel of each frame but the middle one."""
    frames = [frame for frame in range(window.shape[1]) if frame != window.shape[1] // 2]
    yield from itertools.product(frames, range(HEIGHT), range(WIDTH))


def of_one_hot(network: Mana, window: torch.Tensor) -> float:
    """By the definition of the paper: the largest product of embeddings, position by position."""
    middle = window.shape[1] // 2
    grey = window[0].double().mean(1) * 255
    with torch.no_grad():
        keys = network.embed(window[0]).key.double()
        query = network.attention.query(network.encode(window[0, middle : middle + 1]))[0].double()
    errors = []
    for frame, y, x in neighbour_pixels(window):
        places = [place for place in around(y, x, WINDOW) if inside(*place)]
        scores = [float(query[:, y, x] @ keys[frame, :, v, u]) for v, u in places]
        v, u = places[int(np.argmax(scores))]
        errors.append(abs(float(grey[frame, v, u] - grey[middle, y, x])))
    return float(np.mean(errors))


def of_patches(network: Mana, window: torch.Tensor) -> float:
    """The literal matching of the operator's own tests."""
    search = network.attention.search
    middle = window.shape[1] // 2
    grey: NDArray[np.float64] = window[0].double().mean(1).numpy()
    fine = [descriptors(frame, search.patch) for frame in grey]  # type: ignore[union-attr, arg-type]
    small = [descriptors(quarter(frame), search.patch) for frame in grey]  # type: ignore[union-attr, arg-type]
    errors = []
    for frame, y, x in neighbour_pixels(window):
        places = candidates(small[middle], small[frame], y, x, search)  # type: ignore[arg-type]
        scores = [likeness(fine[middle], fine[frame], (y, x), place) for place in places]
        v, u = places[int(np.argmax(scores))]
        errors.append(255 * abs(grey[frame, v, u] - grey[middle, y, x]))
    return float(np.mean(errors))


def in_place(window: torch.Tensor) -> float:
    grey = window[0].numpy().mean(1) * 255.0
    middle = len(grey) // 2
    return float(np.mean([np.abs(frame - grey[middle]) for n, frame in enumerate(grey) if n != middle]))


@pytest.mark.parametrize("frames", [FRAMES, 3])
@pytest.mark.parametrize("channels", [2, 8])
def test_of_the_one_hot_attention(channels: int, frames: int) -> None:
    network, window = model("one_hot", channels), windows(frames)
    found = match_error(network, window)
    assert found is not None
    assert found.matched == pytest.approx(of_one_hot(network, window), rel=1e-4)
    assert found.in_place == pytest.approx(in_place(window), rel=1e-5)
    assert found.ratio == pytest.approx(found.matched / found.in_place)


def test_of_matched_patches() -> None:
    network, window = model("phases"), windows()
    found = match_error(network, window)
    assert found is not None
    assert found.matched == pytest.approx(of_patches(network, window), rel=1e-3)
    assert found.in_place == pytest.approx(in_place(window), rel=1e-5)


def test_patches_of_a_moving_texture_are_found_again() -> None:
    texture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(3))
    window = torch.stack([texture[..., 4 + n : 32 + n, 4:36] for n in (-1, 0, 1)], 1)
    network = model("phases")
    found = match_error(network, window)
    assert found is not None
    assert found.ratio is not None
    assert found.ratio < 0.1


@pytest.mark.parametrize("attention", ["softmax_window", "dense", "none"])
def test_an_alignment_without_winners_has_none(attention: str) -> None:
    assert match_error(model(attention), windows()) is None


def test_of_a_still_there_is_no_ratio() -> None:
    found = match_error(model("phases"), windows()[:, :1].expand(-1, 3, -1, -1, -1))
    assert found is not None
    assert (found.in_place, found.ratio) == (0, None)
