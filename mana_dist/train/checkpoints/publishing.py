"""The finished model of a run, taken from the checkpoint that it is to be."""

import contextlib
from collections.abc import Callable

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.registry import model_folder
from mana_dist.storage.retry import persistently
from mana_dist.train.checkpoints.checkpoint import DamagedError
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.run_record import model_folder_of
from mana_dist.train.schedule import stages


def publish(config: Config, checkpoints: Checkpoints, check: Callable[[], None]) -> None:
    """Write the finished model into the run's folder, the weights last: they make it whole.

    Args:
        config: the run's.
        checkpoints: the run's, that of the last step among them.
        check: called before the folder changes.

    Raises:
        OSError: the storage cannot be used.
    """
    chosen = checkpoints.folder(chosen_step(config, checkpoints, log.info))
    weights = persistently(storage.read_bytes, storage.join(chosen, model_folder.WEIGHTS_FILE))
    model = model_folder_of(config)
    check()
    # A run whose steps were raised has the model of fewer steps there.
    with contextlib.suppress(FileNotFoundError):
        persistently(storage.delete, storage.join(model, model_folder.WEIGHTS_FILE))
    persistently(storage.write_bytes, storage.join(model, model_folder.CONFIG_FILE), model_folder.describe(config))
    persistently(storage.write_bytes, storage.join(model, model_folder.WEIGHTS_FILE), weights)


def chosen_step(config: Config, checkpoints: Checkpoints, say: Callable[[str], None] = lambda _: None) -> int:
    """Return the step of the checkpoint that is, or becomes, the finished model.

    Args:
        config: the run's.
        checkpoints: the run's, that of the last step among them.
        say: takes a line on the choice, where there was one.

    Raises:
        OSError: the storage cannot be used.
    """
    return _best(config, checkpoints, say) or stages(config)[-1].stop


def _best(config: Config, checkpoints: Checkpoints, say: Callable[[str], None]) -> int | None:
    """Return the step of the checkpoint that was validated best and is whole; None where the last is to be taken."""
    best = checkpoints.best()
    if best is None:
        return None
    try:
        checkpoints.read(best.step)
    except DamagedError as error:
        say(f"checkpoint {checkpoints.folder(best.step)}, the best, is damaged ({error}); taking the last one")
        return None
    say(f"the finished model is that of step {best.step}, whose {config.run.keep_best} is the best: {best.score:.4f}")
    return best.step
