"""The comparison of a sweep's best model with the holder of the registry's alias ``candidate``, on the sweep's data."""

import tempfile

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.registry import candidate, model_folder
from mana_dist.registry.candidate import Decision, Scores
from mana_dist.registry.versions import Registered
from mana_dist.sweep.config import Judging
from mana_dist.sweep.trial import EVALUATION_FOLDER
from mana_dist.sweep.trial_outcomes import Outcome


def settle(
    config: Config, outcome: Outcome, judging: Judging, version: Registered, tracking_uri: str, folder: str
) -> Decision:
    """Decide whether the alias moves to ``version``, the model of the best trial, and move it.

    ``config`` and ``outcome`` are those of that trial, ``folder`` is the sweep's.

    Raises:
        UserError: the registry refuses or cannot be reached.
    """

    def score(holder: Registered) -> Scores:
        from mana_dist.evaluate import evaluate

        if outcome.mean is None:
            raise UserError("the best model has no scores")
        log.info(f"comparing with version {holder.version}, which is @{candidate.CANDIDATE}")
        out = storage.join(folder, EVALUATION_FOLDER, candidate.CANDIDATE)
        with tempfile.TemporaryDirectory(prefix="mana_dist-candidate-") as local:
            model_folder.copy(holder.uri, local, tracking_uri)
            found = evaluate(judging.options(config.run, ["bicubic", local], out, config.model.scale))
        bicubic, held = (found.mean(index).psnr_rgb for index in range(2))
        return Scores(outcome.mean.psnr_rgb, held, bicubic)

    return candidate.settle(version, tracking_uri, config.mlflow.candidate, score)
