"""A training's MLflow run: opened and fed by the driver alone, so that there is one however many workers."""

import time
from typing import Literal, Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mana_dist import config as configuration
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.tracking_uri import artifact_location
from mana_dist.train.events import Checkpointed, Event, Progress, Started, Validated
from mana_dist.train.run_record import RunRecord

BATCH = 1000  # MLflow's limit of metrics per request


class Tracker:
    """One MLflow run.

    Args:
        tracking_uri: server or database.
        run_id: an existing run.
    """

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        self._client = MlflowClient(tracking_uri)
        self.run_id = run_id
        # Steps that a resumed run does again are not logged again.
        self._logged = {key: self._last_step(key) for key in ("train/loss", "val/psnr")}

    @classmethod
    def open(cls, config: Config, tracking_uri: str, record: RunRecord | None) -> Self:
        """The run of ``record`` where it still exists, else a new one with all parameters and the whole config.

        Raises:
            UserError: the tracking server cannot be reached or refuses.
        """
        try:
            client = MlflowClient(tracking_uri)
            if record and record.tracking_uri == tracking_uri and _exists(client, record.mlflow_run_id):
                client.update_run(record.mlflow_run_id, status="RUNNING")
                return cls(tracking_uri, record.mlflow_run_id)
            run = client.create_run(_experiment_id(client, config.mlflow.experiment), run_name=config.run.name)
            values = configuration.flatten(configuration.to_mapping(config))
            client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in values.items()])
            client.log_text(run.info.run_id, configuration.to_yaml(config), "config.yaml")
        except (MlflowException, ImportError, OSError) as error:  # ImportError: a database's driver is not installed
            raise UserError(
                f"mlflow.tracking_uri {tracking_uri} cannot be used ({error}); start it or name another"
            ) from error
        return cls(tracking_uri, run.info.run_id)

    def log(self, event: Event) -> None:
        """Log what an event holds and MLflow does not have yet."""
        if isinstance(event, Started):
            self._log_losses(event.step, event.losses)
            self._log(event.step, {"train/workers": float(event.workers)})
        elif isinstance(event, Progress) and self._log_losses(event.step, event.losses):
            self._log(
                event.step,
                {
                    "train/stage": float(event.stage),
                    "train/lr": event.lr,
                    "train/samples_per_second": event.samples_per_second,
                    "train/data_wait": event.data_wait,
                },
            )
        elif isinstance(event, Validated) and event.step > self._logged["val/psnr"]:
            self._log(
                event.step,
                {
                    "val/psnr": event.psnr,
                    "val/ssim": event.ssim,
                    "val/psnr_bicubic": event.psnr_bicubic,
                    "val/ssim_bicubic": event.ssim_bicubic,
                    "val/psnr_gain": event.psnr - event.psnr_bicubic,
                },
            )
            self._client.log_image(self.run_id, event.picture, key="validation", step=event.step)
            self._logged["val/psnr"] = event.step
        elif isinstance(event, Checkpointed):
            self._log(event.step, {"train/checkpoint_seconds": event.seconds})

    def _log_losses(self, last_step: int, losses: tuple[float, ...]) -> bool:
        """Log the losses of the steps up to ``last_step``; False if MLflow had them all."""
        first = last_step - len(losses) + 1
        new = [(step, loss) for step, loss in enumerate(losses, first) if step > self._logged["train/loss"]]
        for start in range(0, len(new), BATCH):
            metrics = [Metric("train/loss", loss, _now(), step) for step, loss in new[start : start + BATCH]]
            self._client.log_batch(self.run_id, metrics=metrics)
        self._logged["train/loss"] = max(self._logged["train/loss"], last_step)
        return bool(new)

    def _log(self, step: int, values: dict[str, float]) -> None:
        metrics = [Metric(key, value, _now(), step) for key, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _last_step(self, key: str) -> int:
        return max((point.step for point in self._client.get_metric_history(self.run_id, key)), default=0)

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, status)


def _now() -> int:
    return int(time.time() * 1000)


def _exists(client: MlflowClient, run_id: str) -> bool:
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False


def _experiment_id(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment:
        return experiment.experiment_id
    return client.create_experiment(name, artifact_location=artifact_location(client.tracking_uri))
