"""The three-stage schedule (paper section 3.4) and its trained parameters."""

import math
from dataclasses import dataclass

from mana_dist.config import Config
from mana_dist.schedule_config import Decay, Loss

ADAM_BETAS = (0.5, 0.99)
_LAST = 0.02  # share of the learning rate that a cosine leaves to the last step


@dataclass(frozen=True)
class Stage:
    """One stage's place in the run.

    Attributes:
        number: 1, 2 or 3.
        start: first global step.
        stop: global step after the last.
        lr: Adam's learning rate, at its highest.
        decay: the rate's course after the warm-up.
        warmup: steps in which the rate rises.
        loss: distance to the ground truth; in stage 2 there is none.
    """

    number: int
    start: int
    stop: int
    lr: float
    decay: Decay = "constant"
    warmup: int = 0
    loss: Loss = "l1"

    @property
    def trains_memory_only(self) -> bool:
        """Return whether only the memory bank is trained, by stage 2's loss."""
        return self.number == 2

    def trains(self, parameter: str) -> bool:
        """Return whether the named parameter of :class:`mana_dist.model.Mana` is trained in this stage.

        Stage 1: all but the memory module. Stage 2: the memory bank, the only part of the memory module that
        |Y - Q|_1 depends on, since Y is taken before the projection. Stage 3: everything.
        """
        if self.number == 1:
            return not parameter.startswith("memory.")
        if self.number == 2:
            return parameter == "memory.bank"
        return True


def stages(config: Config) -> tuple[Stage, ...]:
    """Return the stages of a run in order, without those of 0 steps.

    Without a memory module (``model.memory_slots`` 0) there is no stage 2; stage 3 follows stage 1.
    """
    planned = []
    start = 0
    for number, stage in enumerate((config.schedule.stage1, config.schedule.stage2, config.schedule.stage3), start=1):
        steps = 0 if number == 2 and not config.model.memory_slots else stage.steps
        if steps:
            loss = config.schedule.loss
            planned.append(Stage(number, start, start + steps, stage.lr, stage.decay, stage.warmup, loss))
        start += steps
    return tuple(planned)


def learning_rate(stage: Stage, step: int) -> float:
    """Return the learning rate of a step, which depends on nothing else.

    Args:
        stage: the step's.
        step: global steps done before it.
    """
    done = step - stage.start
    if done < stage.warmup:
        return stage.lr * (done + 1) / stage.warmup
    highest, last = max(stage.warmup - 1, 0), stage.stop - stage.start - 1
    if stage.decay == "constant" or last <= highest:
        return stage.lr
    wave = (1 + math.cos(math.pi * (done - highest) / (last - highest))) / 2
    return stage.lr * (_LAST + (1 - _LAST) * wave)
