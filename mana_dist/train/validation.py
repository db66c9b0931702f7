"""Validation during training: PSNR and SSIM of whole frames, divided among the workers."""

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mana_dist import pictures
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.data.feed import centre_frames
from mana_dist.data.manifest import load_manifest
from mana_dist.data.mixture import Dataset
from mana_dist.data.order import evenly_spaced
from mana_dist.data.row_groups import RowGroups
from mana_dist.metrics import psnr, ssim
from mana_dist.model import Mana
from mana_dist.model.inference import to_frame, to_tensor
from mana_dist.train.schedule import Stage
from mana_dist.train.tracking.events import Validated

GAIN_SAMPLES = 8
"""Largest number of samples on which the neighbour gain is taken."""


class Validation:
    """A fixed, evenly spaced choice of validation samples; each worker holds and computes every R-th.

    Args:
        uri: the validation dataset's folder.
        frames: T of the model.
        samples: number of samples.
        rank: this worker's rank.
        world_size: number of workers.
    """

    def __init__(self, uri: str, frames: int, samples: int, rank: int, world_size: int) -> None:
        with RowGroups([Dataset(uri, load_manifest(uri))], least=1, budget=0) as groups:
            places = [(group, row) for group, rows in enumerate(groups.rows) for row in range(rows)]
            chosen = evenly_spaced(samples, len(places))
            mine = ((groups[places[index][0]], places[index][1]) for index in chosen[rank::world_size])  # one by one
            self._samples = [(centre_frames(group.lr[row], frames).copy(), group.hr[row].copy()) for group, row in mine]
        self._count = len(chosen)
        gained = np.isin(np.arange(self._count), evenly_spaced(GAIN_SAMPLES, self._count))
        self._gained: list[bool] = gained[rank::world_size].tolist()
        self._bicubic = [_scores(_bicubic(lr[frames // 2], hr), hr) for lr, hr in self._samples]

    def run(self, model: Mana, step: int, device: torch.device, ended_stage: int | None = None) -> Validated:
        """Return the model's scores, and a picture of rank 0's first sample; collective.

        Args:
            model: to score; one that sees single frames has no neighbour gain.
            step: global steps done.
            device: where the model is.
            ended_stage: the stage of which this is the last validation, if it is.
        """
        before = time.perf_counter()
        sums, picture = self._measure(model, device, with_gain=model.sees_neighbours)
        sums = sums.to(device)
        dist.all_reduce(sums)
        *scores, gain, gains = map(float, sums)
        psnr_, ssim_, psnr_bicubic, ssim_bicubic = (score / self._count for score in scores)
        return Validated(
            *(step, psnr_, ssim_, psnr_bicubic, ssim_bicubic, picture),
            seconds=time.perf_counter() - before,
            neighbour_gain=gain / gains if gains else None,
            ended_stage=ended_stage,
        )

    def psnr(self, model: Mana, device: torch.device) -> tuple[float, float]:
        """Return the mean PSNR of the model and of bicubic; for one worker that holds all samples."""
        sums, _ = self._measure(model, device, with_gain=False)
        return float(sums[0]) / self._count, float(sums[2]) / self._count

    def _measure(self, model: Mana, device: torch.device, *, with_gain: bool) -> tuple[Tensor, NDArray[np.uint8]]:
        """Return sums over this worker's samples, and the first one's picture.

        The sums: the model's scores, bicubic's, the neighbour gains that are finite, and their number.
        """
        sums = torch.zeros(6, dtype=torch.float64)
        picture = np.zeros((1, 1, 3), dtype=np.uint8)
        for index, (lr, hr) in enumerate(self._samples):
            window = to_tensor(lr)[None].to(device)
            output = to_frame(_forward(model, window))
            scores = _scores(output, hr)
            sums[:4] += torch.tensor([*scores, *self._bicubic[index]], dtype=torch.float64)
            if with_gain and self._gained[index]:
                gain = scores[0] - psnr(to_frame(_forward_alone(model, window[:, lr.shape[0] // 2])), hr)
                if math.isfinite(gain):
                    sums[4:] += torch.tensor([gain, 1.0], dtype=torch.float64)
            if index == 0:
                centre = lr[lr.shape[0] // 2]
                picture = _picture(centre, output, hr)
        return sums, picture


@torch.inference_mode()
def _forward(model: Mana, frames: Tensor) -> Tensor:
    return model(frames)


@torch.inference_mode()
def _forward_alone(model: Mana, centre: Tensor) -> Tensor:
    """Return what the model makes of frames (1, 3, h, w) if each of their neighbours is the frame itself."""
    feature, *rest = model.embed(centre)
    key, value = (tensor[:, None].expand(-1, model.config.frames, -1, -1, -1) for tensor in rest)
    return model.reconstruct(centre, feature, key, value)


def ended_stage(step: int, every: int, stages: Sequence[Stage]) -> int | None:
    """Return the number of the stage of which the validation at ``step`` is the last one; None: of no stage.

    Args:
        step: global steps done.
        every: optimizer steps between validations; there is one at the end of the run, too.
        stages: of the run.
    """
    total = stages[-1].stop
    following = min((step // every + 1) * every, total)
    for stage in stages:
        if stage.start < step <= stage.stop and (step == total or following > stage.stop):
            return stage.number
    return None


def _picture(lr: NDArray[np.uint8], output: NDArray[np.uint8], hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return LR, bicubic, output and HR side by side, cut to the region where bicubic differs most from HR."""
    bicubic = _bicubic(lr, hr)
    region = pictures.most_different_region(bicubic, hr, hr.shape[0] // lr.shape[0])
    return pictures.side_by_side(region.of_lr(lr), *(region.of(frame) for frame in (bicubic, output, hr)))


def _bicubic(lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return bicubic_upsample(lr, hr.shape[0] // lr.shape[0])


def _scores(output: NDArray[np.uint8], hr: NDArray[np.uint8]) -> tuple[float, float]:
    return psnr(output, hr), ssim(output, hr)
