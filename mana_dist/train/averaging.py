"""The moving average of the weights over the steps of a run (``run.ema``).

In its first steps a run forgets faster, so that the average leaves the random start behind:
after n steps of the run, an update keeps min(ema, (1 + n) / (10 + n)) of it. It goes on from stage to stage.
"""

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def kept(ema: float, steps: int) -> float:
    """Return the share of the average that the update after ``steps`` steps of the run keeps."""
    return min(ema, (1 + steps) / (10 + steps))


def update(average: list[Tensor], weights: list[Tensor], ema: float, steps: int) -> None:
    """Add the weights after ``steps`` steps of the run to their average, in place."""
    get_ema_multi_avg_fn(kept(ema, steps))(average, weights, steps)
