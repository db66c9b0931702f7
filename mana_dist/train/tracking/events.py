"""The events that workers send to the driver, which alone prints and talks to MLflow."""

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
        losses: the last steps' losses in the checkpoint: a driver that was killed may not have logged them.
        peak: one worker's peak, which ``peak_share`` of the reports refers to, in words.
    """

    step: int
    workers: int
    device: str
    losses: tuple[float, ...]
    peak: str = ""


@dataclass(frozen=True)
class Failed:
    """A worker failed; Ray Train restarts all of them from the newest checkpoint, or gives up.

    Attributes:
        rank: the worker's.
        reason: the error, one line.
    """

    rank: int
    reason: str


@dataclass(frozen=True)
class Usage:
    """How much of rank 0's machine was in use, by everything that runs there; shares, [0, 1].

    Attributes:
        cpu: of the cores, since the last report.
        memory: of the memory.
        gpu: of the time that rank 0's GPU was at work; None where there is none, or its driver's library is missing.
        gpu_memory: of that GPU's memory; None where there is none.
    """

    cpu: float
    memory: float
    gpu: float | None = None
    gpu_memory: float | None = None


@dataclass(frozen=True)
class Progress:
    """A report on the steps since the last one.

    Attributes:
        stage: 1 to 3.
        step: global steps done.
        total: global steps of the run.
        losses: the global batch's mean loss of each step since the last report, oldest first.
        lr: learning rate of the last step.
        samples_per_second: rate of all workers together.
        data_wait: share of the time that rank 0 waited for data, [0, 1].
        eta_seconds: expected time to the end.
        seconds: training time that the pace was measured over, without reports, checkpoints and validations.
        samples: samples trained in those seconds.
        gradient_norms: gradient norm of each step in ``losses``: L2 over all trained parameters, before clipping.
        tflops: the model's floating-point operations a second over all workers, 10^12; recomputed activations are not
            counted.
        peak_share: ``tflops`` over the devices' peak, [0, 1]; None where that is unknown.
        memory: rank 0's peak memory so far, bytes: GPU memory, else resident memory.
        usage: of rank 0's machine.
    """

    stage: int
    step: int
    total: int
    losses: tuple[float, ...]
    lr: float
    samples_per_second: float
    data_wait: float
    eta_seconds: float
    seconds: float = 0.0
    samples: int = 0
    gradient_norms: tuple[float, ...] = ()
    tflops: float = 0.0
    peak_share: float | None = None
    memory: int = 0
    usage: Usage | None = None


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
        seconds: time that training stood still for it.
        neighbour_gain: PSNR over that with the centre frame in place of each neighbour, dB, of some of the samples;
            None for a model that sees single frames.
        ended_stage: number of the stage of which this is the last validation, if it is.
    """

    step: int
    psnr: float
    ssim: float
    psnr_bicubic: float
    ssim_bicubic: float
    picture: NDArray[np.uint8]
    seconds: float = 0.0
    neighbour_gain: float | None = None
    ended_stage: int | None = None


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint lies whole in the run's storage.

    Attributes:
        step: global steps done.
        seconds: time from the beginning until it was whole.
        waited: part of it in which training stood still.
    """

    step: int
    seconds: float
    waited: float = 0.0


@dataclass(frozen=True)
class Damaged:
    """A checkpoint cannot be used, so that training goes on from one before it.

    Attributes:
        checkpoint: its URI.
        reason: what is wrong with it, one line.
    """

    checkpoint: str
    reason: str


@dataclass(frozen=True)
class Stalled:
    """A worker has made no step for too long.

    Attributes:
        rank: the worker's.
        seconds: since its last sign of life.
        stacks: stacks of all its threads, as ``faulthandler`` writes them.
    """

    rank: int
    seconds: float
    stacks: str


@dataclass(frozen=True)
class Stopped:
    """Training ends before the schedule does, with a checkpoint.

    Attributes:
        step: global steps done, all of them in the checkpoint.
        reason: what requested it, such as ``SIGTERM``.
    """

    step: int
    reason: str


Event = Started | Failed | Progress | Validated | Checkpointed | Damaged | Stalled | Stopped
