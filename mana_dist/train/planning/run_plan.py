"""``--dry-run``: the plan of a training, checked and printed without Ray and without a GPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mana_dist import ray_runtime
from mana_dist.config import Config, RunConfig
from mana_dist.console import log
from mana_dist.data.mixture import Dataset, Mixture, samples
from mana_dist.errors import redacted
from mana_dist.model import Mana
from mana_dist.model.mana import parameter_count
from mana_dist.model.precision import PrecisionChoice, precision_here
from mana_dist.progress import duration
from mana_dist.registry.tracking_uri import failures, quiet_mlflow, resolve_tracking_uri
from mana_dist.train import run_record, starting_weights
from mana_dist.train.engine import micro_batches
from mana_dist.train.objective import StageObjective
from mana_dist.train.planning.checks import check_inputs
from mana_dist.train.planning.costs import Memory, memory, sample_cost, trained_parameters
from mana_dist.train.run_record import RunRecord
from mana_dist.train.schedule import ADAM_BETAS, Stage, stages

_MIB = 2**20
_REFERENCE = 100e12  # FLOP/s assumed for GPUs, which cannot be measured before they are taken


@dataclass(frozen=True)
class StagePlan:
    """The plan of one stage.

    Attributes:
        stage: its place in the schedule.
        epochs: passes over the data.
        trained: number of parameters that are trained.
        step_flops: floating-point operations of one optimizer step over all workers, forward and backward.
        memory: estimate for one worker's device.
    """

    stage: Stage
    epochs: float
    trained: int
    step_flops: int
    memory: Memory


@dataclass(frozen=True)
class Plan:
    """The plan of a training.

    Attributes:
        parameters: number of the network's parameters.
        workers: the run's smallest number of workers, which memory and time are given for.
        samples: samples in the dataset, so in an epoch.
        passes: forward and backward passes of a worker in an optimizer step.
        stages: in order.
    """

    parameters: int
    workers: int
    samples: int
    passes: int
    stages: tuple[StagePlan, ...]


@dataclass(frozen=True)
class Pace:
    """The time that steps take.

    Attributes:
        seconds: time of one optimizer step, by stage number.
        source: origin of the figures.
    """

    seconds: dict[int, float]
    source: str


def make_plan(config: Config, samples: int) -> Plan:
    """Return the plan of a training over a dataset of ``samples``, by arithmetic alone."""
    run, data = config.run, config.data
    workers = run.worker_range[0]
    share = -(-data.batch_size // workers)
    parts = micro_batches(share, data.batch_size, workers, run.micro_batch)
    parameters = parameter_count(config.model)

    def stage_plan(stage: Stage) -> StagePlan:
        cost = sample_cost(
            config.model, stage, data.crop, run.arithmetic, checkpoint_activations=run.checkpoint_activations
        )
        trained = trained_parameters(config.model, stage)
        activations = cost.activation_bytes * max(map(len, parts))
        return StagePlan(
            stage=stage,
            epochs=(stage.stop - stage.start) * data.batch_size / samples,
            trained=trained,
            step_flops=cost.flops * data.batch_size,
            memory=memory(
                parameters, trained, run.zero_stage, run.arithmetic, workers, activations, averaged=run.ema > 0
            ),
        )

    return Plan(parameters, workers, samples, len(parts), tuple(stage_plan(stage) for stage in stages(config)))


def dry_run(config: Config) -> None:
    """Check everything that a training needs, and log its plan.

    Raises:
        UserError: the data, the storage or the tracking server cannot be used, or the run of this name is another
            training.
    """
    mixture = check_inputs(config)
    quiet_mlflow()
    from mana_dist.train.tracking.mlflow_run import check_server  # MLflow takes seconds to import

    tracking_uri = resolve_tracking_uri(config.mlflow.tracking_uri)
    check_server(tracking_uri, config.mlflow.experiment)
    record = run_record.load(config) if config.run.name else None
    if record:
        run_record.check_same_training(config, mixture, record)
    starting_weights.look_up(config, tracking_uri, record)
    config = with_precision(config, record, _precision_here)
    plan = make_plan(config, samples(mixture))
    for line in (*_target(config, mixture, tracking_uri, record), *describe(config, plan)):
        log.info(line)
    log.info(_expected_time(plan, pace(config, plan, record)))
    log.info("dry run: data, storage and tracking server can be used; nothing was started")


def with_precision(config: Config, record: RunRecord | None, choose: Callable[[RunConfig], PrecisionChoice]) -> Config:
    """Return the configuration with the precision that ``auto`` means: of a run that goes on, the one it began with.

    Args:
        config: the run's.
        record: of the run, if there is one.
        choose: decides for a new run.
    """
    run = config.run
    if run.precision != "auto":
        return config
    before = run_record.precision(config) if record else None
    choice = choose(run) if before is None else PrecisionChoice(before, "as the run began")
    log.info(f"precision: {choice}")
    return replace(config, run=replace(run, precision=choice.precision))


def _precision_here(run: RunConfig) -> PrecisionChoice:
    """Return what ``auto`` would mean if the workers ran on this machine."""
    on_gpus = torch.cuda.is_available() and (run.device == "cuda" or torch.cuda.device_count() >= run.worker_range[0])
    choice = precision_here("auto", "cuda" if on_gpus and run.device != "cpu" else "cpu")
    differs = "; the cluster's nodes may differ" if ray_runtime.cluster_address() else ""
    return replace(choice, reason=choice.reason + differs)


def _target(config: Config, mixture: Mixture, tracking_uri: str, record: RunRecord | None) -> list[str]:
    run, data = config.run, config.data
    name = run.name or "(named after the time)"
    validation = f"validation: {data.validation_path}" if data.validation_path else "no validation"
    workers = f"{run.workers} of {run.cpus_per_worker} CPU(s), device {run.device}, {run.precision}"
    return [
        f"run {name} in {run.storage}{' (exists: would resume)' if record else ''}",
        f"tracked in {redacted(tracking_uri)}, experiment {config.mlflow.experiment}",
        *(_described(dataset) for dataset in mixture),
        validation,
        f"workers: {workers}, ZeRO stage {run.zero_stage}",
    ]


def _described(dataset: Dataset) -> str:
    often = f", each {dataset.weight} times an epoch" if dataset.weight > 1 else ""
    manifest = dataset.manifest
    return f"data: {dataset.uri}: {manifest.samples} samples in {len(manifest.shards)} shard(s){often}"


def describe(config: Config, plan: Plan) -> list[str]:
    """Return the plan as lines for the console."""
    data = config.data
    accumulated = f" in {plan.passes} passes each" if plan.passes > 1 else ""
    batch = f"{data.batch_size} crops of {data.crop}x{data.crop} over {plan.workers} worker(s){accumulated}"
    least = "at least " if data.motion > 1 else ""  # and epochs at most those below: flows are not looked at here
    lines = [
        f"model: {plan.parameters:,} parameters",
        f"batch: {batch}; {least}{plan.samples} samples an epoch, {plan.samples / data.batch_size:.1f} steps",
        "stage   steps  epochs       trained  TFLOP/step  MiB per device, estimated",
    ]
    for planned in plan.stages:
        stage, size = planned.stage, planned.memory
        parts = ", ".join(
            f"{name} {getattr(size, name) / _MIB:.1f}" for name in ("weights", "gradients", "optimizer", "activations")
        )
        lines.append(
            f"{stage.number:5} {stage.stop - stage.start:7} {planned.epochs:7.1f} {planned.trained:13,} "
            f"{planned.step_flops / 1e12:11.3g}  {size.total / _MIB:.1f} ({parts})"
        )
    return lines


def pace(config: Config, plan: Plan, record: RunRecord | None) -> Pace | None:
    """Return the time that steps will take: as in the run so far, else measured if it surely uses CPUs, else None.

    The measurement is one sample's forward pass, backward pass and Adam step in each stage, with a worker's threads.
    It assumes that workers do not disturb each other and that communication is free.
    """
    tracking_uri = resolve_tracking_uri(config.mlflow.tracking_uri)
    rate = _last_rate(record, tracking_uri) if record and record.is_tracked_in(tracking_uri) else None
    if rate:
        stage, samples_per_second = rate
        flops = {planned.stage.number: planned.step_flops for planned in plan.stages}
        if stage in flops:
            step_seconds = config.data.batch_size / samples_per_second
            seconds = {number: step_seconds * flop / flops[stage] for number, flop in flops.items()}
            return Pace(seconds, f"from the run's own rate in stage {stage}, scaled by operations")
    device = config.run.device
    may_have_gpus = ray_runtime.cluster_address() or torch.cuda.device_count() >= plan.workers
    if device == "cuda" or (device == "auto" and may_have_gpus):
        return None
    share = -(-config.data.batch_size // plan.workers)
    seconds = {planned.stage.number: _measured(config, planned.stage) * share for planned in plan.stages}
    threads = f"{config.run.cpus_per_worker} thread(s) of this machine's CPU"
    elsewhere = "; the cluster's may differ" if ray_runtime.cluster_address() else ""
    return Pace(seconds, f"one sample measured on {threads}, without DeepSpeed{elsewhere}")


def _last_rate(record: RunRecord, tracking_uri: str) -> tuple[int, float] | None:
    """Return stage and samples a second of the run's last report."""
    from mlflow import MlflowClient

    try:
        metrics = MlflowClient(tracking_uri).get_run(record.mlflow_run_id).data.metrics
    except failures():
        return None
    if "train/samples_per_second" not in metrics or "train/stage" not in metrics:
        return None
    return int(metrics["train/stage"]), metrics["train/samples_per_second"]


def _measured(config: Config, stage: Stage) -> float:
    """Return the seconds that a sample takes on this machine's CPU, in the second of two steps."""
    dtype = torch.bfloat16 if config.run.arithmetic == "bf16" else torch.float32
    crop, scale = config.data.crop, config.model.scale
    lr = torch.zeros(1, config.model.frames, 3, crop, crop, dtype=torch.uint8)
    hr = torch.zeros(1, 3, scale * crop, scale * crop, dtype=torch.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.run.cpus_per_worker)
    try:
        model = Mana(config.model).to(dtype)
        model.checkpoint_activations = config.run.checkpoint_activations
        objective = StageObjective(model, stage)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], stage.lr, betas=ADAM_BETAS)
        for _ in range(2):
            before = time.perf_counter()
            objective(lr, hr).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds = time.perf_counter() - before
    finally:
        torch.set_num_threads(threads)
    return seconds


def _expected_time(plan: Plan, measured: Pace | None) -> str:
    def total(seconds: dict[int, float]) -> float:
        return sum(
            (planned.stage.stop - planned.stage.start) * seconds[planned.stage.number] for planned in plan.stages
        )

    if measured:
        time_ = duration(total(measured.seconds))
        return f"expected time: {time_} ({measured.source}); checkpoints and validation come on top"
    seconds = {planned.stage.number: planned.step_flops / (_REFERENCE * plan.workers) for planned in plan.stages}
    reason = "GPUs are not measured before they are taken"
    if ray_runtime.cluster_address():
        reason = "the cluster at RAY_ADDRESS is not asked; --run.device cpu measures this machine's CPU instead"
    reached = f"if a worker's GPU reaches {_REFERENCE / 1e12:.0f} TFLOP/s"
    return f"expected time: {duration(total(seconds))} {reached} ({reason})"
