"""Patches are matched and sorted by phase as the literal definition says, on every implementation."""

import itertools
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from mana_dist.ops import match_patches, phases_cpu, phases_loops, sort_by_phase
from mana_dist.ops.patches import Matches, Search
from tests.ops import literal_phases as literal

IMPLEMENTATIONS = [
    pytest.param(phases_loops, id="loops"),
    pytest.param(
        phases_cpu, id="fused", marks=pytest.mark.skipif(not phases_cpu.available(), reason="the kernel is not built")
    ),
]
SEARCHES = [
    Search(),
    Search(coarse_window=0),
    Search(patch=5, window=5, coarse_window=9, refine=7),
    Search(patch=3, window=1, coarse_window=3, refine=1),
]


def moving(height: int, width: int, frames: int = 3, step: float = 1.3, batch: int = 1) -> Tensor:
    """Detail that moves by ``step`` pixels a frame, aside and half as much down, with noise: (B, T, 3, H, W)."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    waves = torch.rand(8, 4, generator=generator, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    clip = []
    for number in range(frames):
        v, u = y + 0.5 * step * number, x + step * number
        phase = (waves[:, 0, None, None] - 0.5) * 2.4 * v + (waves[:, 1, None, None] - 0.5) * 2.4 * u
        grey = 0.5 + (torch.sin(phase + 6 * waves[:, 2, None, None]) * waves[:, 3, None, None]).sum(0) / 8
        clip.append(torch.stack([grey, 0.8 * grey, 1 - grey]))
    noise = 0.02 * torch.rand(batch, frames, 3, height, width, generator=generator)
    return (torch.stack(clip).float() + noise).clamp(0, 1)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize(("height", "width"), [(13, 18), (8, 3), (2, 9)])
def test_matches_are_the_literal_ones(implementation: ModuleType, search: Search, height: int, width: int) -> None:
    frames = moving(height, width, step=3.4)
    greys = [grey.numpy() for grey in frames[0].double().mean(1)]
    before, centre, after = (literal.descriptors(grey, search.patch) for grey in greys)
    smalls = [literal.descriptors(literal.quarter(grey), search.patch) for grey in greys]
    found = implementation.match(frames, search)
    for neighbour, (other, small) in enumerate(((before, smalls[0]), (after, smalls[2]))):
        for y, x in itertools.product(range(0, height, 3), range(0, width, 2)):
            score, v, u, down, right = (field[0, neighbour, y, x].item() for field in found)

            def likeness(v: int, u: int, other: literal.Array = other, at: tuple[int, int] = (y, x)) -> float:
                return literal.likeness(centre, other, at, (v, u))

            places = literal.candidates(smalls[1], small, y, x, search)
            scores = [likeness(*place) for place in places]
            assert score == pytest.approx(max(scores), abs=1e-4)
            # Of positions that rounding cannot tell apart, any may win.
            assert scores[places.index((v, u))] == pytest.approx(max(scores), abs=1e-4)
            for step, (up, below) in zip(
                (down, right), (((v - 1, u), (v + 1, u)), ((v, u - 1), (v, u + 1))), strict=True
            ):
                curve = likeness(*up), likeness(v, u), likeness(*below)
                if abs(curve[0] + curve[2] - 2 * curve[1]) > 1e-2:  # flatter ones are rounding's
                    assert step == pytest.approx(literal.offset(*curve), abs=2e-2)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("hood", "bins", "frames"), [(5, 2, 7), (3, 4, 5), (1, 1, 3), (7, 3, 3)])
def test_phases_are_the_literal_ones(implementation: ModuleType, hood: int, bins: int, frames: int) -> None:
    clip = moving(9, 11, frames)
    matches = implementation.match(clip, Search())
    found = implementation.sort(clip, matches, hood, bins, 0)
    assert found.shape == (1, bins * bins * (3 * hood * hood + 1), 9, 11)
    for y, x in itertools.product((0, 1, 4, 8), (0, 3, 10)):
        expected = literal.sort_pixel(clip[0].double().numpy(), matches, y, x, hood, bins)
        np.testing.assert_allclose(found[0, :, y, x].numpy(), expected, atol=1e-5)


def test_a_shift_by_a_fraction_of_a_pixel_is_found() -> None:
    """A closed form: smooth detail that moves by 0.3 pixels a frame is found at 0.3 pixels beside its place."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    clip = [0.5 + 0.2 * torch.sin(0.9 * (x - 0.3 * t)) + 0.2 * torch.sin(0.7 * (y + 0.2 * t)) for t in range(3)]
    frames = torch.stack(clip)[None, :, None].expand(-1, -1, 3, -1, -1)
    found = match_patches(frames, Search(window=5, coarse_window=0))
    inner = (0, slice(None), slice(8, -8), slice(8, -8))
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    right = (found.x - columns + found.right)[inner].mean((1, 2))
    down = (found.y - rows + found.down)[inner].mean((1, 2))
    torch.testing.assert_close(right, torch.tensor([-0.3, 0.3]), atol=0.05, rtol=0)
    torch.testing.assert_close(down, torch.tensor([0.2, -0.2]), atol=0.05, rtol=0)


@pytest.mark.parametrize("step", [-32, 19, 33])
def test_large_motion_is_found_coarse_to_fine(step: int) -> None:
    detail = torch.rand(40, 160, generator=torch.Generator().manual_seed(1))
    detail = torch.nn.functional.avg_pool2d(detail[None], 5, 1, 2)[0]
    clip = torch.stack([detail.roll(step * (t - 1), 1) for t in range(3)])
    found = match_patches(clip[None, :, None].expand(-1, -1, 3, -1, -1))
    inner = (slice(8, -8), slice(48, -48))
    columns = torch.arange(160).expand(40, -1)
    for neighbour, sign in ((0, -1), (1, 1)):
        right = (found.x[0, neighbour] - columns)[inner]
        assert (right == sign * step).float().mean() > 0.95


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_some_rows_are_those_of_the_whole_frame(implementation: ModuleType) -> None:
    frames = moving(22, 37, batch=2)
    matches = match_patches(frames)
    part = Matches(*(field[:, :, 5:19] for field in matches))
    whole, rows = (implementation.sort(frames, of, 5, 2, top) for of, top in ((matches, 0), (part, 5)))
    assert torch.equal(rows, whole[:, :, 5:19])


def test_threads_and_batches_do_not_change_the_result() -> None:
    frames = moving(64, 70, frames=5, batch=2)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            matches = match_patches(frames)
            results.append((*matches, sort_by_phase(frames, matches)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for expected, found in zip(results[0], other, strict=True):
            assert torch.equal(expected, found)
    for number in range(2):
        alone = match_patches(frames[number : number + 1])
        assert all(torch.equal(one[0], both[number]) for one, both in zip(alone, results[0], strict=False))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 1.0])
def test_frames_without_detail_or_numbers_keep_their_place(implementation: ModuleType, value: float) -> None:
    frames = torch.full((1, 3, 3, 12, 12), value)
    found = implementation.match(frames, Search())
    assert ((found.y >= 0) & (found.y < 12) & (found.x >= 0) & (found.x < 12)).all()
    phases = implementation.sort(frames, found, 3, 2, 0)
    if value in (0.0, 1.0):
        assert phases.isfinite().all()


def test_any_layout_and_dtype_is_read() -> None:
    frames = moving(10, 12)
    expected = Matches(*match_patches(frames))
    innermost = frames.movedim(2, -1).contiguous().movedim(-1, 2)
    for found, of in zip(match_patches(innermost), expected, strict=True):
        assert torch.equal(found, of)
    assert match_patches(frames.double()).score.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"patch": 4}, {"patch": 17}, {"window": 0}, {"coarse_window": 2}, {"refine": -1}])
def test_sides_that_are_not_odd_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Search(**wrong)
