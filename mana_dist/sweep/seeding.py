"""The start of a trial from a stage 1 that was trained once for all trials of a seed.

Stage 1 does not train the memory, and the memory does not change what is trained: its projection starts at zero, so it
adds exact zeros to features and to gradients. Nor does it change the other initial weights: its own are drawn last. So
the weights after stage 1 are those of the shared training and the trial's own memory as it was drawn, to the bit.

Where the memory alone needs a query (:class:`~mana_dist.model.alignment.cross_frame.FrameAlignment`), the shared
training has none, and the trial's own is as it was drawn, too. It is drawn before the decoder: a training from scratch
draws another decoder.
"""

from collections.abc import Mapping

from torch import Tensor

from mana_dist.errors import UserError
from mana_dist.model.mana import initial_weights
from mana_dist.sweep import trial_outcomes
from mana_dist.sweep.trial_plan import Trial, total_steps
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints

MEMORY, QUERY = "memory.", "attention.to_query."


def seeded(base: TrainState, trial: Trial) -> TrainState:
    """Return the state of ``trial`` after stage 1, from that of its base."""
    own = initial_weights(trial.config.model, trial.seed)
    kept = {name for name in own if name.startswith(MEMORY)}
    kept |= {name for name in own if name.startswith(QUERY)} - base.weights.keys()

    def with_own_memory(shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: own[name] if name in kept else shared[name] for name in own}

    average = with_own_memory(base.average) if base.average else {}
    return TrainState(base.step, with_own_memory(base.weights), {}, base.losses, average)


def seed(trial: Trial) -> bool:
    """Give a new trial a checkpoint of the end of stage 1; False if it has checkpoints or shares nothing.

    Raises:
        UserError: the shared stage 1 is not there.
        OSError: the storage cannot be reached.
    """
    if trial.base is None:
        return False
    checkpoints = Checkpoints(trial.config)
    if checkpoints.newest().state is not None:
        return False
    base = Checkpoints(trial.base.config).newest().state
    if base is None or base.step != total_steps(trial.base.config):
        noted = f"{trial_outcomes.LEDGER_FOLDER}/{trial.base.name}.json"
        raise UserError(
            f"the shared stage 1 {trial.base.name} is not finished or its last checkpoint is gone; delete {noted} in "
            "the sweep's folder if it is there, and run the sweep again"
        )
    checkpoints.write(seeded(base, trial))
    return True
