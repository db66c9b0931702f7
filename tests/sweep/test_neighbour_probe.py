"""The linear probe finds what neighbour frames hold where they hold something, and nothing where they do not."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mana_dist.errors import UserError
from mana_dist.ops import Search
from mana_dist.sweep import neighbour_probe
from mana_dist.sweep.neighbour_probe import ProbedSample, main, neighbour_gains
from tests.data.shards import noise_dataset

SEARCH = Search(window=5, coarse_window=0)


def clip(
    seed: int, step: tuple[int, int], side: int = 40, frames: int = 7
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Fine detail that moves by ``step`` HR pixels a frame, down and right: LR by means of 4x4, HR of the centre."""
    generator = torch.Generator().manual_seed(seed)
    margin = 4 * frames
    detail = F.avg_pool2d(
        torch.rand(1, 3, 4 * side + 2 * margin + 2, 4 * side + 2 * margin + 2, generator=generator), 3, 1
    )
    shots = []
    for number in range(frames):
        top, left = (margin + axis * (number - frames // 2) for axis in step)
        shots.append(detail[0, :, top : top + 4 * side, left : left + 4 * side])
    shot = (torch.stack(shots) * 255).round()
    lr = F.avg_pool2d(shot, 4).round().byte().permute(0, 2, 3, 1).numpy()
    return lr, shot[frames // 2].byte().permute(1, 2, 0).numpy()


def test_neighbours_between_the_pixels_help_and_those_in_the_same_place_do_not() -> None:
    moving = [ProbedSample(name, *clip(seed, (1, 1))) for seed, name in enumerate("ab")]
    assert min(neighbour_gains(moving, SEARCH).values()) > 1
    for step in (0, 4):  # by none or by whole LR pixels
        still = [ProbedSample(name, *clip(seed, (step, step))) for seed, name in enumerate("ab")]
        assert max(neighbour_gains(still, SEARCH).values()) < 0.05


def test_gains_are_those_of_a_ridge_regression_over_all_pixels() -> None:
    samples = [ProbedSample(name, *clip(seed, (1, 2), side=24)) for seed, name in enumerate("aab")]
    inputs, targets = zip(
        *(neighbour_probe._pixels(sample.lr, sample.hr, SEARCH, 3, 2) for sample in samples), strict=True
    )
    x, y = ((torch.cat(of[:2]).numpy(), of[2].numpy()) for of in (inputs, targets))
    errors = []
    for count in (
        82,
        x[0].shape[1],
    ):  # fitted to a, judged on b; the penalty as rows of its own
        rows = np.concatenate([x[0][:, :count], 0.1 * np.eye(count)])
        weights = np.linalg.lstsq(rows, np.concatenate([y[0], np.zeros((count, 16))]), rcond=None)[0]
        errors.append(np.mean((x[1][:, :count] @ weights - y[1]) ** 2))
    gain = neighbour_gains(samples, SEARCH, hood=3)["b"]
    assert gain == pytest.approx(10 * np.log10(errors[0] / errors[1]), abs=1e-6)


def test_a_dataset_of_one_clip_is_refused(tmp_path: Path) -> None:
    noise_dataset(str(tmp_path), 3, group_rows=2, side=16)
    with pytest.raises(UserError, match="are of one clip"):
        main([str(tmp_path), "--samples", "2"])


def test_wrong_sides_are_one_line(tmp_path: Path) -> None:
    noise_dataset(str(tmp_path), 3, group_rows=2, side=16)
    with pytest.raises(UserError, match="patch must be odd"):
        main([str(tmp_path), "--patch", "4"])
