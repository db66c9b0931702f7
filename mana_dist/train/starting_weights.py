"""The weights that a run begins with where ``run.init`` names a model.

The driver looks the model up once, before anything is started, and writes what the run begins with as the checkpoint of
step 0. From then on the run goes on from checkpoints and needs the model no longer; its record keeps the digest.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.errors import UserError, redacted
from mana_dist.model.grow import grown
from mana_dist.model.mana import initial_weights
from mana_dist.registry import model_folder
from mana_dist.train import run_record
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.run_record import RunRecord


@dataclass(frozen=True)
class Start:
    """The start of a run from a model.

    Attributes:
        weights: all parameters by name, fp32.
        sha256: digest of the model's weights.
    """

    weights: dict[str, Tensor]
    sha256: str


def look_up(config: Config, tracking_uri: str, record: RunRecord | None) -> Start | None:
    """Return the start that ``run.init`` gives to a run, and log what fits of the model.

    Args:
        config: the run's.
        tracking_uri: of the registry.
        record: of the run, if it is there already.

    Returns:
        The start; None if ``run.init`` is left out, or the run has checkpoints, which hold its weights.

    Raises:
        UserError: there is no such model, nothing of it fits, or the run was started from another one.
    """
    name, model = config.run.name, config.run.init
    if record is not None:
        _check_same(config, tracking_uri, record)
        if record.init is None or Checkpoints(config).newest().state is not None:
            return None
        if model is None:
            raise UserError(f"run {name} was started from a model and has no checkpoint yet; give its run.init again")
    if model is None:
        return None
    try:
        loaded = model_folder.load_identified(model, tracking_uri)
    except UserError as error:
        raise UserError(f"run.init: {error}") from error
    if record is not None and loaded.sha256 != record.init:
        raise _another(config, record, loaded.sha256)
    weights = _fitting(config, loaded)
    return Start(weights, loaded.sha256)


def digest(start: Start | None, record: RunRecord | None) -> str | None:
    """Return the digest that the run's record holds: that of the model that it begins or has begun with."""
    if start is not None:
        return start.sha256
    return None if record is None else record.init


def write(config: Config, start: Start | None, check: Callable[[], None]) -> None:
    """Write the checkpoint of step 0, unless the run has a later one, as a sweep's trial may.

    Args:
        config: the run's.
        start: what to begin with, if it is a model.
        check: called before each change of the run's folder.

    Raises:
        UserError: the storage does not take it.
    """
    if start is None:
        return
    checkpoints = Checkpoints(config, check)
    try:
        if checkpoints.newest().state is None:
            checkpoints.write(TrainState(0, start.weights, {}))
    except OSError as error:
        raise UserError(f"run.storage {config.run.storage} cannot be used ({error}); mend it to go on") from error


def _check_same(config: Config, tracking_uri: str, record: RunRecord) -> None:
    """Check that a run that goes on names no other model than it began with.

    A model of the same name that is gone is not missed, and an alias of the same name may have moved on.
    """
    model = config.run.init
    if model is None:
        return
    if record.init is None:
        raise UserError(
            f"run {config.run.name} was started without run.init, now it is {redacted(model)}; "
            "leave it out to resume the run, or give another run.name to start anew"
        )
    is_named_as_before = run_record.started_with(config).run.init == redacted(model)
    if is_named_as_before and model.startswith(model_folder.REGISTRY_SCHEME):
        return
    try:
        with model_folder.fetched(model, tracking_uri) as folder:
            now = model_folder.digest(folder)
    except UserError as error:
        if is_named_as_before:
            return
        raise UserError(f"run.init: {error}") from error
    if now != record.init:
        raise _another(config, record, now)


def _another(config: Config, record: RunRecord, now: str) -> UserError:
    return UserError(
        f"run {config.run.name} was started from a model with SHA-256 {str(record.init)[:12]}, run.init "
        f"{redacted(str(config.run.init))} has {now[:12]}; give that one or leave run.init out to resume the run, or "
        "give another run.name to start anew"
    )


def _fitting(config: Config, loaded: model_folder.Loaded) -> dict[str, Tensor]:
    """Return a run's first weights: the model's where name and shape fit, else drawn as without it; logs which.

    A network that is wider or deeper, and otherwise the model's, begins as the model.
    """
    model = redacted(str(config.run.init))
    begins = f"starting from {model} (SHA-256 {loaded.sha256[:12]})"
    larger = grown(loaded.model, config.model, config.run.seed)
    if larger is not None:
        there, here = (
            f"{sizes.channels} channels, {sizes.encoder_blocks} and {sizes.decoder_blocks} blocks"
            for sizes in (loaded.model.config, config.model)
        )
        log.info(f"{begins}: grown from {there} to {here}, as which it computes the same")
        return larger
    theirs, ours = loaded.model.state_dict(), initial_weights(config.model, config.run.seed)
    taken = {name: theirs[name] for name in ours if name in theirs and theirs[name].shape == ours[name].shape}
    if not taken:
        raise UserError(f"run.init {model}: none of its weights fits this network; name another model, or leave it out")
    anew = [_with_shapes(name, theirs, ours) for name in ours if name not in taken]
    left = [name for name in theirs if name not in ours]
    parts = [f"{len(taken)} of {len(ours)} tensors"]
    parts += [f"these start anew: {', '.join(anew)}"] if anew else []
    parts += [f"these of it are left out: {', '.join(left)}"] if left else []
    log.info(f"{begins}: {'; '.join(parts)}")
    return ours | taken


def _with_shapes(name: str, theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> str:
    if name not in theirs:
        return name
    there, here = ("x".join(map(str, tensors[name].shape)) for tensors in (theirs, ours))
    return f"{name} ({there} there, {here} here)"
