"""The course of an evaluation, from its options to its files."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mana_dist import __version__, ray_runtime, storage
from mana_dist.config import MlflowConfig
from mana_dist.console import log
from mana_dist.data.degradation import Degradation, find_degradation
from mana_dist.errors import UserError, one_line, redacted
from mana_dist.evaluate import metrics_file, promote, report
from mana_dist.evaluate.config import EvaluationOptions, split_label
from mana_dist.evaluate.datasets import Dataset, find_datasets
from mana_dist.evaluate.evaluation_run import Tracking
from mana_dist.evaluate.methods import Method, Wanted, load_methods, source
from mana_dist.evaluate.motion import TopMotion, parse_top_motion, top_motion
from mana_dist.evaluate.neighbours import sampled_clips
from mana_dist.evaluate.output_folder import OutputFolder
from mana_dist.evaluate.promote import Contest, Promotion
from mana_dist.evaluate.protocol import DatasetProtocol, Protocol
from mana_dist.evaluate.results import ClipScores, Evaluation
from mana_dist.evaluate.score_tasks import score_clips
from mana_dist.evaluate.scored_clips import Clip, find_clips
from mana_dist.evaluate.scoring import DIGEST_BYTES, ScoredClip, Settings
from mana_dist.evaluate.subset import parse_subset
from mana_dist.metrics import METRICS, PAPERS, Measure, PairMeasure, Unavailable, load_all
from mana_dist.model.inference import choose_device
from mana_dist.model.precision import Precision, precision_here
from mana_dist.progress import LiveLine
from mana_dist.ray_tasks import precision_on_cluster
from mana_dist.registry import pretrained
from mana_dist.registry.model_folder import REGISTRY_SCHEME
from mana_dist.registry.names import check_experiment
from mana_dist.registry.tracking_uri import resolve_tracking_uri
from mana_dist.registry.versions import Registered, move_alias, resolve
from mana_dist.storage import lease
from mana_dist.storage.lease import Lease, LostError
from mana_dist.video.frame_names import parse_frame_range


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """All that the options mean, checked and loaded.

    Attributes:
        clips: in the data's order.
        settings: of the scoring.
        protocol: complete but for the datasets' digests.
        workers: processes; None: as many as there is work and room for.
        out: the folder for the files.
        top: which clips count as those of large motion; None: not reported.
        contest: for an alias, if ``--promote-if`` was given.
        registry: URI of the model registry.
        tracking: where a run is logged, if one is.
    """

    clips: tuple[Clip, ...]
    settings: Settings
    protocol: Protocol
    workers: int | None
    out: OutputFolder
    top: TopMotion | None
    contest: Contest | None
    registry: str
    tracking: Tracking | None


def evaluate(options: EvaluationOptions) -> Evaluation:
    """Score the methods and write the report; mistakes in the options are found before the first clip.

    Returns:
        The results; ``metrics.json`` and the report are in ``options.out``.

    Raises:
        UserError: bad input, or another evaluation is writing to the folder.
    """
    prepared = _prepare(options)
    out = prepared.out.uri
    with lease.hold(out, f"--out {out}", "name another --out") as held:
        if not options.overwrite:
            prepared.out.check_free(prepared.protocol, prepared.top)  # the lease keeps others out
        return _evaluate(prepared, held)


def _evaluate(prepared: _Prepared, held: Lease) -> Evaluation:
    for dataset in prepared.protocol.datasets:
        log.info(f"data: {dataset}")
    evaluation = _score(prepared, held)
    log.info(f"\n{report.table(evaluation)}\n")
    held.check()
    prepared.out.write_metrics(metrics_file.to_json(evaluation, prepared.top))
    held.check_lately()
    files = [prepared.out.metrics, *prepared.out.publish(evaluation)]
    prepared.out.remove_others(files)
    log.info("\n".join(files))
    held.check()
    promotion, failure = _promote(prepared, evaluation)
    if promotion is not None:
        held.check_lately()  # the registry may have taken its time
        prepared.out.write_metrics(metrics_file.to_json(evaluation, prepared.top, promotion))
        if failure is None:  # else the error, the last line, says it
            log.info(f"promotion: {promotion}")
    if prepared.tracking is not None:
        tracking = prepared.tracking
        run = tracking.log(evaluation, prepared.settings.methods, files, promotion)
        log.info(f"MLflow run {run} in {tracking.experiment} at {redacted(tracking.uri)}")
    if failure is not None:
        raise failure
    return evaluation


def _prepare(options: EvaluationOptions) -> _Prepared:
    options.check()
    for name in options.methods:
        pretrained.announce(split_label(name)[1], hint="")
    top = None if options.top_motion is None else parse_top_motion(options.top_motion)
    subset = None if options.frame_subset is None else parse_subset(options.frame_subset)
    conditions = [promote.parse_condition(text) for text in options.promote_if]
    if conditions:
        promote.alias_of(conditions)
    out = OutputFolder(storage.resolve(options.out))
    start, stop = parse_frame_range(options.frames)
    degradation = find_degradation(options.degradation)
    degradation.check_scale(options.scale)

    datasets = find_datasets(options.data, degradation, options.lr, out.uri, options.scale)
    clips = tuple(find_clips(datasets, start, stop, subset))
    elsewhere = len(clips) > 1 and options.workers != 1 and bool(ray_runtime.cluster_address())
    device = _device(options.device, elsewhere=elsewhere)
    storage.check_writable(out.uri, "--out")
    tracking = _tracking(options)
    if tracking is not None:
        check_experiment(tracking.experiment, "--experiment")
        tracking.check()
    registry = resolve_tracking_uri(options.tracking_uri)
    wanted, contest = _wanted(options.methods, conditions, registry)
    choice = precision_on_cluster(options.precision, device) if elsewhere else precision_here(options.precision, device)
    if options.precision == "auto":
        log.info(f"precision: {choice}")
    methods = load_methods(wanted, clips, options.padding, registry, out.uri, choice.precision, options.scale)
    measures = load_all({"lpips": options.lpips_trunk})
    settings = Settings(
        methods=methods,
        degradation=degradation,
        measures={name: measure for name, measure in measures.items() if not isinstance(measure, Unavailable)},
        border_crop=options.border_crop,
        device=device,
        scale=options.scale,
        sampled=sampled_clips(clips),
    )
    return _Prepared(
        clips=clips,
        settings=settings,
        protocol=_protocol(
            options,
            degradation,
            datasets,
            clips,
            tuple(zip(wanted, methods, strict=True)),
            measures,
            device,
            choice.precision,
        ),
        workers=options.workers,
        out=out,
        top=top,
        contest=contest,
        registry=registry,
        tracking=tracking,
    )


def _score(prepared: _Prepared, held: Lease) -> Evaluation:
    clip_lines = _ClipLines(prepared.clips)
    finished: dict[int, ClipScores] = {}

    def take(position: int, scored: ScoredClip) -> None:
        finished[position] = scored.scores
        clip_lines.finish(position, scored)

    try:
        scored = score_clips(
            prepared.clips, prepared.settings, prepared.workers, take, clip_lines.progress, clip_lines.count
        )
    except UserError as error:
        raise UserError("; ".join([str(error), *_keep(prepared, finished, held)])) from error
    except (Exception, KeyboardInterrupt, SystemExit):
        for line in _keep(prepared, finished, held):
            log.warning(line)
        raise
    evaluation = _evaluation(prepared, tuple(entry.scores for entry in scored))
    return replace(
        evaluation,
        examples=tuple(example for entry in scored for example in entry.examples),
        top_motion=None if prepared.top is None else top_motion(evaluation.clips, prepared.top),
    )


def _keep(prepared: _Prepared, finished: Mapping[int, ClipScores], held: Lease) -> list[str]:
    """Write the scores of the clips that were finished before an error; return the lines that report it."""
    if not finished:
        return []
    try:
        held.check()
    except (LostError, OSError) as error:
        return [one_line(error)]
    results = tuple(finished[position] for position in sorted(finished))
    missing = [clip.name for position, clip in enumerate(prepared.clips) if position not in finished]
    uri = prepared.out.write_partial(metrics_file.to_json(_evaluation(prepared, results), unfinished=missing))
    if uri is None:
        return []
    return [f"the scores of the {len(results)} of {len(prepared.clips)} clips that were finished are in {uri}"]


def _evaluation(prepared: _Prepared, clips: tuple[ClipScores, ...]) -> Evaluation:
    protocol = prepared.protocol
    return Evaluation(
        protocol=replace(protocol, datasets=_with_digests(protocol.datasets, clips)),
        methods=tuple(method.name for method in prepared.settings.methods),
        clips=clips,
    )


def _promote(prepared: _Prepared, evaluation: Evaluation) -> tuple[Promotion | None, UserError | None]:
    """Move the alias if all conditions hold; return the decision, and the error if the registry refused."""
    contest = prepared.contest
    if contest is None:
        return None, None
    promotion = promote.decide(contest, evaluation)
    if promotion.promoted:
        try:
            move_alias(contest.version, contest.alias, prepared.registry, {"mana_dist.promotion": str(promotion)})
        except UserError as error:
            return replace(promotion, promoted=False, reasons=(*promotion.reasons, str(error))), error
    return promotion, None


def _device(name: str, *, elsewhere: bool) -> str:
    # The GPUs may be other nodes' of a cluster.
    if name == "cuda" and elsewhere:
        return name
    return choose_device(name)


def _tracking(options: EvaluationOptions) -> Tracking | None:
    """Return where a run is to be logged; None: nowhere."""
    if not (options.tracking_uri or options.experiment is not None or os.environ.get("MLFLOW_TRACKING_URI")):
        return None
    experiment = MlflowConfig().experiment if options.experiment is None else options.experiment
    return Tracking(resolve_tracking_uri(options.tracking_uri), experiment)


def _wanted(
    names: Sequence[str], conditions: Sequence[promote.Condition], registry: str
) -> tuple[tuple[Wanted, ...], Contest | None]:
    """Return the methods to evaluate, and which of them compete for an alias."""

    def version(name: str) -> Registered | None:
        return resolve(name, registry) if name.startswith(REGISTRY_SCHEME) else None

    wanted = tuple(Wanted(model, version(model), label) for label, model in map(split_label, names))
    if not conditions:
        return wanted, None
    contest, wanted = promote.arrange(conditions, wanted, version)
    return wanted, contest


def _protocol(
    options: EvaluationOptions,
    degradation: Degradation,
    datasets: Sequence[Dataset],
    clips: Sequence[Clip],
    methods: Sequence[tuple[Wanted, Method]],
    measures: Mapping[str, Measure | PairMeasure | Unavailable],
    device: str,
    precision: Precision,
) -> Protocol:
    subsets = {clip.dataset: str(clip.subset) for clip in clips}
    definitions = {name: METRICS[name].described(measure) for name, measure in measures.items()}
    return Protocol(
        data=[redacted(uri) for uri in options.data],
        degradation=degradation.name,
        degradation_definition=degradation.definition,
        degradation_version=degradation.version,
        frames="all" if options.frames == ":" else options.frames,
        lpips=definitions.pop("lpips"),
        metrics={name: text for name, text in definitions.items() if name not in PAPERS},
        padding=options.padding,
        device=device,
        precision=precision,
        scale=options.scale,
        bicubic=Protocol.bicubic.replace("by 4", f"by {options.scale}"),
        size=Protocol.size.replace("of 4", f"of {options.scale}"),
        mana_dist=__version__,
        datasets=tuple(
            DatasetProtocol(
                name=dataset.name,
                uri=redacted(dataset.uri),
                layout=dataset.layout,
                clips=len(dataset.clips),
                lr=dataset.lr,
                frame_subset=subsets[dataset.name],
                notes=dataset.notes,
            )
            for dataset in datasets
        ),
        models=tuple(source(method, loaded) for method, loaded in methods),
        lr=options.lr,
        border_crop=options.border_crop,
        frame_subset=options.frame_subset or Protocol.frame_subset,
    )


def _with_digests(datasets: Sequence[DatasetProtocol], clips: Sequence[ClipScores]) -> tuple[DatasetProtocol, ...]:
    """Return the datasets with their digests; those with missing clips have none."""
    found = []
    for dataset in datasets:
        digests = sorted(clip.digest for clip in clips if clip.dataset == dataset.name)
        digest = hashlib.blake2b("".join(digests).encode(), digest_size=DIGEST_BYTES).hexdigest()
        found.append(replace(dataset, digest=digest if len(digests) == dataset.clips else ""))
    return tuple(found)


class _ClipLines:
    """The console's lines on the clips."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips
        self._done = 0
        lengths = [clip.length for clip in clips if clip.length is not None]
        self._all = LiveLine(f"{len(clips)} clips", sum(lengths) if len(lengths) == len(clips) else None)
        self._live: LiveLine | None = None

    def progress(self, position: int) -> Callable[[], None]:
        """Return what is to be called after each frame of the clip of that position."""
        clip = self._clips[position]
        self._live = LiveLine(f"clip {position + 1}/{len(self._clips)} {clip.name}", clip.length)
        return self._live.step

    def count(self, frames: int) -> None:
        """Show how many frames of all clips the workers have scored."""
        self._all.step(frames - self._all.count)

    def finish(self, position: int, scored: ScoredClip) -> None:
        """Log the line of a clip that is done."""
        (self._live or self._all).close()
        self._done += 1
        seconds = (self._live or self._all).seconds
        rate = f", {scored.frames / max(seconds, 1e-9):.2f} frames/s" if self._live is not None else ""
        notes = "".join(f"; {note}" for note in scored.scores.notes)
        name = self._clips[position].name
        log.info(f"clip {self._done}/{len(self._clips)} {name}: {scored.frames} frames{rate}{notes}")
