"""A trained model against the one that has the registry's alias ``candidate``, on the run's validation data."""

import dataclasses
from typing import Any

import torch

from mana_dist import ray_runtime, storage
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.data.feed import check_dataset
from mana_dist.errors import UserError, one_line
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.inference import choose_device
from mana_dist.registry import candidate, model_folder
from mana_dist.registry.candidate import Decision, Scores
from mana_dist.registry.versions import Registered
from mana_dist.train.elastic.interrupts import Interrupts


def settle(config: Config, model: str, version: Registered, tracking_uri: str, interrupts: Interrupts) -> Decision:
    """Decide whether the alias moves to a run's model, and move it.

    Args:
        config: of the run.
        model: URI of the model's folder.
        version: the same model in the registry.
        tracking_uri: of the registry.
        interrupts: the signals, caught already.

    Raises:
        UserError: the registry refuses or cannot be reached.
        KeyboardInterrupt, Terminated: a signal asked for an end.
    """

    def score(holder: Registered) -> Scores:
        log.info(f"comparing with version {holder.version}, which is @{candidate.CANDIDATE}")
        models = model_folder.load(model)[0], _comparable(config, holder, tracking_uri)
        return _on_ray(config, *models, interrupts)

    has_validation = config.data.validation_path is not None
    return candidate.settle(version, tracking_uri, config.mlflow.candidate, score if has_validation else None)


def scores(uri: str, samples: int, newcomer: Mana, holder: Mana, device: str) -> Scores:
    """Score two models on the same samples of the dataset ``uri``, in fp32.

    Args:
        uri: the validation dataset's folder.
        samples: how many, as ``run.validate_samples``.
        newcomer: which may take the alias.
        holder: which has it.
        device: ``cpu`` or ``cuda``.
    """
    from mana_dist.train.validation import Validation

    place = torch.device(device)
    found = []
    for model in (newcomer, holder):
        validation = Validation(uri, model.config.frames, samples, rank=0, world_size=1)
        found.append(validation.psnr(model.float().eval().to(place), place))
    return Scores(found[0][0], found[1][0], found[0][1])


def _comparable(config: Config, holder: Registered, tracking_uri: str) -> Mana:
    """The model that has the alias, if this run's validation data can be given to it.

    Raises:
        UserError: it cannot be read, or takes other data.
    """
    model = model_folder.load(holder.uri, tracking_uri)[0]
    if model.config.scale != config.model.scale:
        raise UserError(f"it upscales {model.config.scale} times per side, not {config.model.scale}")
    check_dataset(str(config.data.validation_path), "data.validation_path", model.config.frames, crop=1)
    return model


def _on_ray(config: Config, newcomer: Mana, holder: Mana, interrupts: Interrupts) -> Scores:
    """:func:`scores` where the run's workers were: the driver's machine may have neither GPU nor cores for it.

    Raises:
        UserError: it failed there.
    """
    run = config.run
    ray_runtime.start_ray(cpus=run.worker_range[1] * run.cpus_per_worker)
    import ray

    try:
        with interrupts.awaited():
            gpus = int(run.device == "cuda" or (run.device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))
            task = ray.remote(num_cpus=run.cpus_per_worker, num_gpus=gpus)(_score)
            models = [(dataclasses.asdict(model.config), model.state_dict()) for model in (newcomer, holder)]
            uri = storage.resolve(str(config.data.validation_path))
            asked = task.remote(uri, run.validate_samples, models, run.cpus_per_worker, bool(gpus))
            while not ray.wait([asked], timeout=0.2)[0]:
                if interrupts.requested.is_set():
                    raise interrupts.error()
            found: Scores = ray.get(asked)
    except (ray.exceptions.RayError, OSError) as error:
        raise UserError(one_line(getattr(error, "cause", None) or error)[:500]) from error
    finally:
        ray.shutdown()
    return found


def _score(uri: str, samples: int, models: list[tuple[dict[str, Any], Any]], threads: int, on_gpu: bool) -> Scores:
    """The task."""
    torch.set_num_threads(threads)
    made = []
    for config, weights in models:
        made.append(Mana(ModelConfig(**config)))
        made[-1].load_state_dict(weights)
    return scores(uri, samples, made[0], made[1], choose_device("cuda" if on_gpu else "cpu"))
