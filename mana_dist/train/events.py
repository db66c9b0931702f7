"""What rank 0 tells the driver while training; the driver alone prints and talks to MLflow."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Started:
    """Training begins, or goes on.

    Attributes:
        step: global steps already done.
        workers: workers in this attempt.
        device: what a worker computes on.
        losses: of the last steps done, as the checkpoint remembers them: a driver that was killed may not have
            logged them.
    """

    step: int
    workers: int
    device: str
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Failed:
    """A worker failed; Ray Train restarts all of them from the newest checkpoint, or gives up.

    Attributes:
        rank: the worker's.
        reason: what it died of, one line.
    """

    rank: int
    reason: str


@dataclass(frozen=True)
class Progress:
    """Steps since the last report.

    Attributes:
        stage: 1 to 3.
        step: global steps done.
        total: global steps of the run.
        losses: the global batch's mean loss of each step since the last report, oldest first.
        lr: learning rate.
        samples_per_second: over all workers.
        data_wait: share of the time that rank 0 waited for data, [0, 1].
        eta_seconds: expected time to the end.
    """

    stage: int
    step: int
    total: int
    losses: tuple[float, ...]
    lr: float
    samples_per_second: float
    data_wait: float
    eta_seconds: float


@dataclass(frozen=True)
class Validated:
    """A validation's result: means over its samples.

    Attributes:
        step: global steps done.
        psnr: dB, RGB.
        ssim: RGB.
        psnr_bicubic: the same for bicubic upsampling.
        ssim_bicubic: the same for bicubic upsampling.
        picture: LR | bicubic | MANA | HR side by side, (H, W, 3) uint8.
    """

    step: int
    psnr: float
    ssim: float
    psnr_bicubic: float
    ssim_bicubic: float
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint lies in the run's storage.

    Attributes:
        step: global steps done.
        seconds: time it took all workers.
    """

    step: int
    seconds: float


Event = Started | Failed | Progress | Validated | Checkpointed
