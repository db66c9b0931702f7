"""The keys of the schedule: what each stage's steps are and how they learn."""

from dataclasses import dataclass, field
from typing import Literal

Decay = Literal["constant", "cosine"]
Loss = Literal["l1", "charbonnier"]


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of the schedule.

    Attributes:
        steps: optimizer steps; 0 skips the stage.
        lr: Adam's learning rate, at its highest.
        decay: the rate's course: ``constant``, or ``cosine``, half a wave down to 2 % of it at the stage's last step.
        warmup: first steps, in which the rate rises linearly from 0; the last of them has the whole rate.
    """

    steps: int = 0
    lr: float = 1e-4
    decay: Decay = "constant"
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"schedule.*.steps must not be negative, got {self.steps}")
        if not self.lr > 0:
            raise ValueError(f"schedule.*.lr must be positive, got {self.lr}")
        if self.warmup < 0:
            raise ValueError(f"schedule.*.warmup must not be negative, got {self.warmup}")
        if self.steps and self.warmup > self.steps:
            raise ValueError(f"schedule.*.warmup must not exceed the stage's steps ({self.steps}), got {self.warmup}")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The paper's three stages (section 3.4).

    Attributes:
        loss: distance to the ground truth in stages 1 and 3: ``l1``, or ``charbonnier``, the mean sqrt(d^2 + 0.001^2).
        stage1: all but the memory module, by the loss.
        stage2: the memory bank alone, |Y - Q|_1.
        stage3: everything, by the loss.
    """

    loss: Loss = "l1"
    stage1: StageConfig = field(default_factory=lambda: StageConfig(steps=90_000, lr=1e-4))
    stage2: StageConfig = field(default_factory=lambda: StageConfig(steps=30_000, lr=1e-4))
    stage3: StageConfig = field(default_factory=lambda: StageConfig(steps=30_000, lr=1e-5))
