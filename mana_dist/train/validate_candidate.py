"""The comparison of a trained model with the holder of the registry's alias ``candidate``, on validation data."""

import torch

from mana_dist import ray_runtime, storage
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.data.manifest import check_dataset
from mana_dist.errors import UserError, one_line
from mana_dist.model import Mana
from mana_dist.model.inference import choose_device
from mana_dist.registry import candidate, model_folder
from mana_dist.registry.candidate import Decision, Scores
from mana_dist.registry.versions import Registered
from mana_dist.train.elastic.interrupts import Interrupts


def settle(config: Config, model: str, version: Registered, tracking_uri: str, interrupts: Interrupts) -> Decision:
    """Decide whether the alias moves to a run's model, and move it.

    Args:
        config: the run's configuration.
        model: URI of the model's folder.
        version: the same model in the registry.
        tracking_uri: the registry's.
        interrupts: the signals, caught already.

    Raises:
        UserError: the registry refuses or cannot be reached.
        KeyboardInterrupt, Terminated: a signal requested an end.
    """

    def score(holder: Registered) -> Scores:
        log.info(f"comparing with version {holder.version}, which is @{candidate.CANDIDATE}")
        models = model_folder.load(model)[0], _comparable(config, holder, tracking_uri)
        if ray_runtime.cluster_address():
            return _on_ray(config, *models, interrupts)
        return _here(config, *models)

    has_validation = config.data.validation_path is not None
    return candidate.settle(version, tracking_uri, config.mlflow.candidate, score if has_validation else None)


def scores(uri: str, samples: int, newcomer: Mana, holder: Mana, device: str) -> Scores:
    """Score two models on the same samples of the dataset ``uri``, in fp32.

    Args:
        uri: the validation dataset's folder.
        samples: ``run.validate_samples``.
        newcomer: the model that may take the alias.
        holder: the model that has it.
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
    """Return the model that has the alias.

    Raises:
        UserError: it cannot be read, or this run's validation data does not fit it.
    """
    model = model_folder.load(holder.uri, tracking_uri)[0]
    if model.config.scale != config.model.scale:
        raise UserError(f"it upscales {model.config.scale} times per side, not {config.model.scale}")
    check_dataset(str(config.data.validation_path), "data.validation_path", model.config.frames, 1, model.config.scale)
    return model


def _here(config: Config, newcomer: Mana, holder: Mana) -> Scores:
    """Call :func:`scores` in this process, whose machine is that of the run's workers: Ray takes seconds to start.

    Raises:
        UserError: it failed.
    """
    run = config.run
    threads = torch.get_num_threads()
    try:
        on_gpu = run.device != "cpu" and torch.cuda.is_available()
        uri = storage.resolve(str(config.data.validation_path))
        return _score(run.cpus_per_worker, on_gpu, uri, run.validate_samples, newcomer, holder)
    except Exception as error:
        raise UserError(one_line(error)[:500]) from error
    finally:
        torch.set_num_threads(threads)


def _on_ray(config: Config, newcomer: Mana, holder: Mana, interrupts: Interrupts) -> Scores:
    """Call :func:`scores` on the cluster of the run's workers: the driver's machine may have neither GPU nor cores.

    Raises:
        UserError: it failed there.
    """
    run = config.run
    ray_runtime.start_ray()
    import ray

    try:
        with interrupts.awaited():
            gpus = int(run.device == "cuda" or (run.device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))
            task = ray.remote(num_cpus=run.cpus_per_worker, num_gpus=gpus)(_score)
            uri = storage.resolve(str(config.data.validation_path))
            pending = task.remote(run.cpus_per_worker, bool(gpus), uri, run.validate_samples, newcomer, holder)
            while not ray.wait([pending], timeout=0.2)[0]:
                if interrupts.requested.is_set():
                    raise interrupts.error()
            found: Scores = ray.get(pending)
    except (ray.exceptions.RayError, OSError) as error:
        raise UserError(one_line(getattr(error, "cause", None) or error)[:500]) from error
    finally:
        ray.shutdown()
    return found


def _score(threads: int, on_gpu: bool, uri: str, samples: int, newcomer: Mana, holder: Mana) -> Scores:
    """Call :func:`scores` with the threads and on the device of a worker."""
    torch.set_num_threads(threads)
    return scores(uri, samples, newcomer, holder, choose_device("cuda" if on_gpu else "cpu"))
