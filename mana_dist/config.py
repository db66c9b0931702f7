"""One typed configuration from top to bottom: presets, YAML files and the command line, through jsonargparse."""

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from mana_dist import model_names, storage
from mana_dist.errors import UserError
from mana_dist.model.config import ModelConfig
from mana_dist.model.precision import Precision

# Names of this module too.
from mana_dist.schedule_config import ScheduleConfig as ScheduleConfig  # noqa: PLC0414
from mana_dist.schedule_config import StageConfig as StageConfig  # noqa: PLC0414

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

PRESETS = ("tiny", "small", "paper", "finetune")
# Options that all commands spell alike, and the keys that they set here.
_ALIASES = {
    "--device": "--run.device",
    "--precision": "--run.precision",
    "--workers": "--run.workers",
    "--tracking-uri": "--mlflow.tracking_uri",
    "--experiment": "--mlflow.experiment",
}
_ALSO = f"As in other commands, {', '.join(_ALIASES)} are taken too, for the keys of that name."
_LONGEST_RUN_NAME = 128  # a folder and others below it have it in their names


@dataclass(frozen=True, kw_only=True)
class MoreData:
    """Another dataset to train on.

    Attributes:
        path: URI of its sample shards.
        weight: how often each of its samples comes in an epoch.
    """

    path: str
    weight: int = 1

    def __post_init__(self) -> None:
        _check_least("data.more", self, {"weight": 1})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training data and its feed.

    Attributes:
        path: URI of the sample shards that ``mana ingest`` wrote.
        weight: how often each of their samples comes in an epoch; for where there is more data.
        more: datasets to train on beside them, as ``[{path: URI, weight: 3}]``.
        validation_path: URI of shards to validate on; without it there is no validation.
        batch_size: samples per optimizer step over all workers together.
        crop: side of the LR crop, pixels.
        reverse: turn the frames of every other sample, by chance, to run backwards.
        shuffle_groups: row groups whose samples are shuffled among each other.
        motion: how often a sample that moves by a LR pixel a frame or more comes in an epoch; one that stands still
            comes once, others in between.
        prefetch: batches that each worker prepares ahead.
        readers: threads of each worker that fetch and decode row groups ahead of their use.
        cache_mb: decoded samples that each worker keeps, MiB; a dataset that fits is decoded once. Half of it may be
            samples read ahead. Never less than the shuffle windows that the worker is walking through.
        disk_cache: folder on a local disk of each node where decoded samples are kept for later epochs and runs, for
            shards in object storage or on slow disks; left out, there is none. Jobs may share it.
        disk_cache_mb: bound of that folder, MiB, whoever writes to it.
    """

    path: str | None = None
    weight: int = 1
    more: tuple[MoreData, ...] = ()
    validation_path: str | None = None
    batch_size: int = 16
    crop: int = 64
    reverse: bool = False
    shuffle_groups: int = 4
    motion: int = 1
    prefetch: int = 4
    readers: int = 2
    cache_mb: int = 1024
    disk_cache: str | None = None
    disk_cache_mb: int = 65536

    def __post_init__(self) -> None:
        ones = ("batch_size", "weight", "crop", "shuffle_groups", "motion", "prefetch", "readers", "disk_cache_mb")
        _check_least("data", self, {"cache_mb": 0, **dict.fromkeys(ones, 1)})
        if self.disk_cache and storage.is_remote(self.disk_cache):
            raise ValueError(f"data.disk_cache must be a folder on a local disk, got {self.disk_cache}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run: its name, storage, workers, arithmetic and intervals.

    Attributes:
        name: the run's name; the same name again resumes. Left out, one is made from the time.
        storage: URI under which ``<storage>/<name>/`` holds everything of the run; for several nodes, shared by all.
        workers: training workers, or ``MIN-MAX`` for an elastic run.
        cpus_per_worker: CPU cores (and compute threads) of each worker.
        device: ``auto`` takes the cluster's GPUs, one per worker, where it has any.
        zero_stage: DeepSpeed ZeRO stage.
        precision: ``bf16`` (with fp32 master weights), ``fp32``, or ``auto``: bf16 where all
            workers' processors gain by it, else fp32; decided once, when the run begins.
        micro_batch: samples that a worker computes at once; it adds up the gradients of its share of the batch in as
            many parts as that takes. 0: the whole share at once.
        clip_gradients: the largest L2 norm of all gradients together; larger ones are scaled down to it. 0: as they
            come.
        ema: the share of the weights' moving average that a step keeps, such as 0.998; validations, pictures and the
            finished model then are the average's. 0: there is none.
        checkpoint_activations: less memory for about a third more time (see :class:`mana_dist.model.Mana`).
        compile: run the residual blocks and the upsampler through ``torch.compile``; takes minutes at the start.
        init: model to start from, as other commands take it: a model or checkpoint folder, or a ``models:/`` name.
            Its weights go in where name and shape fit; the others, and all without it, start at random.
        seed: fixes the initial weights and, with the step, every sample, crop, flip and reversal.
        checkpoint_every: optimizer steps between checkpoints.
        keep_checkpoints: number of newest checkpoints that are kept.
        keep_best: the score, ``psnr`` or ``ssim``, by which the best validated checkpoint is kept beside the newest and
            becomes the finished model; each validation then has its checkpoint. Left out, the last becomes it.
        log_every: optimizer steps between log lines.
        validate_every: optimizer steps between validations.
        validate_samples: samples, evenly spaced over the validation set, that one validation looks at.
        max_failures: failed workers or nodes in a row, without a new checkpoint, that a run survives by restarting.
        stall_timeout: seconds without a step after which a worker counts as stalled, and is restarted like a failed
            one.
    """

    name: str | None = None
    storage: str = "runs"
    workers: int | str = 1
    cpus_per_worker: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["auto", "bf16", "fp32"] = "bf16"
    micro_batch: int = 0
    clip_gradients: float = 0.0
    ema: float = 0.0
    checkpoint_activations: bool = False
    compile: bool = False
    init: str | None = None
    seed: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    keep_best: Literal["psnr", "ssim"] | None = None
    log_every: int = 50
    validate_every: int = 5000
    validate_samples: int = 32
    max_failures: int = 3
    stall_timeout: int = 600

    def __post_init__(self) -> None:
        ones = [
            *("cpus_per_worker", "checkpoint_every", "keep_checkpoints", "log_every", "validate_every"),
            *("validate_samples", "stall_timeout"),
        ]
        zeros = ["max_failures", "seed", "micro_batch", "clip_gradients"]
        _check_least("run", self, {**dict.fromkeys(ones, 1), **dict.fromkeys(zeros, 0)})
        if not 0 <= self.ema < 1:
            raise ValueError(f"run.ema must be at least 0 and less than 1, got {self.ema}")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"run.name may hold letters, digits, '.', '_' and '-', got {self.name!r}")
        if self.name is not None and len(self.name) > _LONGEST_RUN_NAME:
            raise ValueError(f"run.name may have {_LONGEST_RUN_NAME} characters, got {len(self.name)}")
        low, high = self.worker_range
        if not 1 <= low <= high:
            raise ValueError(f"run.workers must be at least 1 and MIN-MAX in order, got {self.workers}")

    @property
    def arithmetic(self) -> Precision:
        """The precision to compute in; the driver has put it in the place of ``auto``."""
        if self.precision == "auto":
            raise ValueError("run.precision auto has not been resolved")
        return self.precision

    @property
    def worker_range(self) -> tuple[int, int]:
        """The smallest and the largest number of workers; equal unless the run is elastic."""
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(self.workers))
        if match is None:
            raise ValueError(f"run.workers must be a number or MIN-MAX (like 2-8), got {self.workers}")
        return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    """The MLflow server and what goes there.

    Attributes:
        tracking_uri: MLflow server or database; left out, ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` (sqlite) in
            the working folder.
        experiment: MLflow experiment.
        registered_model: name in the model registry under which finished models go, with ``{scale}`` for the model's
            scale; null: they are not registered.
        candidate: when the registry's alias ``candidate`` moves to a finished model. ``better``: where it points at
            none, or where the model has a higher PSNR than the one that it points at, and than bicubic, on the
            validation data. ``always`` and ``never``: without comparing.
    """

    tracking_uri: str | None = None
    experiment: str = "mana"
    registered_model: str | None = "mana-x{scale}"
    candidate: Literal["better", "always", "never"] = "better"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)
    mlflow: MlflowConfig = field(default_factory=MlflowConfig)

    def __post_init__(self) -> None:
        if self.run.worker_range[1] > self.data.batch_size:
            raise ValueError(
                f"run.workers ({self.run.workers}) must not exceed data.batch_size ({self.data.batch_size}): "
                "every worker needs a sample per step"
            )

    @property
    def registered_model(self) -> str | None:
        """``mlflow.registered_model`` with the model's scale in it."""
        name = self.mlflow.registered_model
        return name and name.replace("{scale}", str(self.model.scale))


def parse(arguments: Sequence[str], prog: str = "mana train") -> Config:
    """Return the configuration that a command line describes: ``--config PRESET|FILE.yaml``, ``--key.path VALUE``.

    With several ``--config``, later ones win over earlier ones, and single keys over all of them. Local paths come
    back absolute, since workers run in other folders.

    Raises:
        UserError: unknown key (names the nearest valid one), wrong type, invalid value, missing or broken file.
    """
    parser = _parser(prog)
    command_line = [part for argument in arguments for part in _split_assignment(argument)]
    options = ("config", "help", "print_config")
    _check_keys((part[2:] for part in command_line if part.startswith("--")), "command line", options)
    files, keys = _split_files(command_line)
    given: list[str] = []
    for name, path in files.items():
        with open(path, encoding="utf-8") as stream:
            values = yaml_mapping(stream.read(), name)
        _parsed(parser, values, name)
        given += ("--config", path) if values else ()
    for key, value in itertools.pairwise(keys):
        if key == "--data.more":
            _check_more(yaml_mapping(f"{{more: {value}}}", "command line: data.more").get("more"), "command line")
    with _named_errors("command line"):
        namespace = parser.parse_args([*given, *keys])
    return resolved(_built(parser, namespace, " and ".join([*files, *(["command line"] if keys else [])])))


def preset(name: str) -> Config:
    """Return the configuration of a preset, ``tiny``, ``small``, ``paper`` or ``finetune``.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {name}; there are {', '.join(PRESETS)}")
    return load((resources.files("mana_dist") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"), name)


def load(text: str, name: str) -> Config:
    """Return the configuration that the YAML ``text`` holds; missing keys keep the paper's values.

    Raises:
        UserError: as :func:`parse`; names ``name``.
    """
    parser = _parser(name)
    return _built(parser, _parsed(parser, yaml_mapping(text, name), name), name)


def to_mapping(config: Config) -> dict[str, Any]:
    """Return the configuration as nested plain values."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML, keys in their documented order."""
    import yaml

    return yaml.safe_dump(to_mapping(config), sort_keys=False)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested ``values`` as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _parser(prog: str) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=prog, exit_on_error=False, description=f"{Config.__doc__} {_ALSO}")
    parser.add_argument("--config", action="config", help=f"a preset ({', '.join(PRESETS)}) or a YAML file")
    for section in dataclasses.fields(Config):
        parser.add_class_arguments(get_type_hints(Config)[section.name], section.name)
    return parser


def _split_assignment(argument: str) -> list[str]:
    if not argument.startswith("--"):
        return [argument]
    name, *value = argument.split("=", 1)
    return [_ALIASES.get(name, name), *value]


def _split_files(command_line: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return what ``--config`` names, with the path of each file, and the rest of the command line."""
    files: dict[str, str] = {}
    rest = []
    parts = iter(command_line)
    for part in parts:
        if part != "--config":
            rest.append(part)
            continue
        name = next(parts, None)
        if name is None:
            raise UserError(f"--config needs a value: a preset ({', '.join(PRESETS)}) or a YAML file")
        files[name] = str(resources.files("mana_dist") / "presets" / f"{name}.yaml") if name in PRESETS else name
        if not os.path.isfile(files[name]):
            raise UserError(f"--config {name}: no such file, nor a preset ({', '.join(PRESETS)})")
    return files, rest


def _parsed(parser: "ArgumentParser", values: dict[str, Any], name: str) -> "Namespace":
    """Parse nested ``values``; unknown keys and wrong types raise a UserError that names ``name``."""
    data = values.get("data")
    _check_more(data.get("more", []) if isinstance(data, Mapping) else [], name)
    _check_keys(flatten(values), name)
    with _named_errors(name):
        return parser.parse_object(values)


def _built(parser: "ArgumentParser", namespace: "Namespace", name: str) -> Config:
    namespace.pop("config", None)
    with _named_errors(name):
        return Config(**vars(parser.instantiate(namespace)))


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn whatever jsonargparse wraps and dataclasses raise, all from the user's input, into a UserError."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{name}: {in_plain_words(error)}") from error


def _check_least(section: str, values: object, least: Mapping[str, int]) -> None:
    for name, minimum in least.items():
        if getattr(values, name) < minimum:
            raise ValueError(f"{section}.{name} must be at least {minimum}, got {getattr(values, name)}")


def yaml_mapping(text: str, name: str) -> dict[str, Any]:
    """Return the nested values that the YAML ``text`` holds.

    Raises:
        UserError: it is no YAML, or holds something else; names ``name``.
    """
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not valid YAML: {in_plain_words(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{name}: must hold keys and values, not a {type(values).__name__}")
    return values


def _check_more(more: object, where: str) -> None:
    """Check the form of ``data.more``, of which jsonargparse would speak in terms of its own."""
    known = [field.name for field in dataclasses.fields(MoreData)]
    datasets = more if isinstance(more, list) else [None]
    for place, each in enumerate(datasets):
        for key in each if isinstance(each, Mapping) else ():
            if key not in known:
                raise UserError(f"{where}: unknown key data.more[{place}].{key}; did you mean {nearest(key, known)}?")
    if not all(isinstance(each, Mapping) and "path" in each for each in datasets):
        raise UserError(f"{where}: data.more: write a list of datasets, [{{path: URI, weight: 3}}]")


def _check_keys(keys: Iterable[str], where: str, also: Collection[str] = ()) -> None:
    valid = list(flatten(to_mapping(Config())))
    sections = {".".join(key.split(".")[:depth]) for key in valid for depth in range(1, key.count(".") + 1)}
    for key in keys:
        if key in valid or key in also:
            continue
        if key in sections:
            raise UserError(f"{where}: {key} is a group of keys, not a key; name one of its keys ({key}.…)")
        raise UserError(f"{where}: unknown key {key}; did you mean {nearest(key, valid)}?")


def nearest(key: object, valid: Sequence[str]) -> str:
    """Return the valid key that is most like one that is not."""
    return difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)[0]


def in_plain_words(error: Exception) -> str:
    """Return jsonargparse's message in plain words: 'run.seed: expected int, got value: x'."""
    text = re.sub(r'Parser key "([^"]+)":', r"\1:", str(error))
    text = re.sub(r"Expected a (?:<class '(\w+)'>|typing\.(.+?\]))\. Got", r"expected \1\2, got", text)
    text = text.replace("Literal[", "one of [")
    return " ".join(text.split())


def resolved(config: Config) -> Config:
    """Return the configuration with absolute local paths, since workers run in other folders, and the model's name."""
    names = ("path", "validation_path", "disk_cache")
    paths: dict[str, Any] = {name: storage.resolve(path) for name in names if (path := getattr(config.data, name))}
    more = tuple(dataclasses.replace(each, path=storage.resolve(each.path)) for each in config.data.more)
    init = config.run.init
    if init and model_names.is_folder(init):
        init = storage.resolve(init)
    run = dataclasses.replace(config.run, storage=storage.resolve(config.run.storage), init=init or None)
    mlflow = dataclasses.replace(config.mlflow, registered_model=config.registered_model)
    data = dataclasses.replace(config.data, **paths, more=more)
    return dataclasses.replace(config, data=data, run=run, mlflow=mlflow)
