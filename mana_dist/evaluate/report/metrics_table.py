"""The tables' cells, for HTML and Markdown alike: numbers as shown, with best and second best marked.

The layout is that of the paper's Table 1 (and Table 2 for the clips with the largest motion): a row per method, the
RGB metrics first.
"""

import math
from collections.abc import Sequence

import numpy as np

from mana_dist.evaluate import neighbours
from mana_dist.evaluate.config import BICUBIC
from mana_dist.evaluate.neighbours import NeighbourMetric
from mana_dist.evaluate.results import ClipScores, Evaluation, Scores
from mana_dist.metrics import METRICS, Metric
from mana_dist.progress import count
from mana_dist.report_pages.tables import Cell, Column, Group, Mark, Row

NOTHING = "\N{EN DASH}"
LEAST_CLIPS = 5


GAIN = "gain over bicubic (dB)"


def columns(evaluation: Evaluation) -> list[Column]:
    """Return the columns of numbers: metrics, the gain over bicubic and, where there are any, neighbour metrics."""
    found = [(metric.heading, metric.what) for metric in _metrics(evaluation)]
    found.append((GAIN, "PSNR over that of bicubic"))
    found += [(metric.heading, metric.what) for metric in _neighbour_metrics(evaluation)]
    return [Column(heading, meaning, "number") for heading, meaning in found]


def groups(evaluation: Evaluation) -> list[Group]:
    """Return Table 1: a group per dataset, and where there are several a last one over all clips.

    A row has a method's name and a number for each of the :func:`columns`.
    """
    found = [_means(evaluation, name, evaluation.of_dataset(name)) for name in evaluation.datasets]
    if len(found) > 1:
        found.append(_means(evaluation, "mean over all clips", evaluation.clips))
    return found


def top_motion(evaluation: Evaluation) -> Group | None:
    """Return Table 2: the mean over the clips with the largest motion; None where that is not reported."""
    clips = evaluation.of_top_motion()
    if not clips:
        return None
    least = min((clip.motion for clip in clips if clip.motion is not None), default=None)
    title = f"the {len(clips)} of {count(len(evaluation.clips), 'clip')} with the largest motion"
    motion = "" if least is None else f", {least:.2f} LR pixels per frame or more"
    return _means(evaluation, title + motion, clips)


def clip_rows(evaluation: Evaluation, limit: int) -> tuple[list[Row], int]:
    """Return a row for each method of the ``limit`` clips in which methods differ most, and the number of other clips.

    A row has what :func:`clip_columns` says.
    """
    shown = most_different_clips(evaluation, limit)
    several = len(evaluation.datasets) > 1
    rows: list[Row] = []
    for clip in shown:
        motion = Cell(NOTHING if clip.motion is None else f"{clip.motion:.2f}", clip.motion)
        means = _means(evaluation, clip.clip, [clip])
        where = [clip.clip, *([clip.dataset] if several else [])]
        for row, scores in zip(means.rows, clip.scores, strict=True):
            rows.append([*where, *row, motion, Cell(str(scores.frames), scores.frames)])
    return rows, len(evaluation.clips) - len(shown)


def clip_columns(evaluation: Evaluation) -> list[Column]:
    """Return the columns of the table of clips: names, :func:`columns`, motion and frames."""
    dataset = [Column("dataset", kind="short")] if len(evaluation.datasets) > 1 else []
    last = [Column("motion (LR px/frame)", "LR pixels per frame", "number"), Column("frames", kind="number")]
    return [Column("clip"), *dataset, Column("method"), *columns(evaluation), *last]


def most_different_clips(evaluation: Evaluation, limit: int) -> list[ClipScores]:
    """Return at most ``limit`` clips, those in which the methods' PSNR differ most, in the data's order."""

    def spread(position: int) -> float:
        values = [scores.psnr_rgb for scores in evaluation.clips[position].scores]
        return max(values) - min(values) if math.isfinite(min(values)) else 0.0

    chosen = sorted(range(len(evaluation.clips)), key=spread, reverse=True)[:limit]
    return [evaluation.clips[position] for position in sorted(chosen)]


def footnotes(evaluation: Evaluation) -> list[str]:
    """Return what cells of this evaluation's tables need a word on, as plain text; mostly why some are empty."""
    scores = [entry for clip in evaluation.clips for entry in clip.scores]
    notes = []
    for metric in _metrics(evaluation):
        missing = [entry[metric] is None for entry in scores]
        definition = evaluation.protocol.metrics.get(metric.name, evaluation.protocol.lpips)
        if metric.partial:
            notes.append(f"{metric.title}: {metric.what}{', over the clips that have one' if any(missing) else ''}")
        elif all(missing):
            notes.append(f"{metric.label} {NOTHING}: {definition}")
        elif any(missing):
            notes.append(
                f"{metric.label} {NOTHING}: some clip in that mean has none, as its frames are too small for it "
                f"({definition})"
            )
    if BICUBIC not in evaluation.methods:
        notes.append(f"{GAIN} {NOTHING}: {BICUBIC} is not among the methods")
    notes += [
        f"{sampled.heading}: {sampled.what}, of models, on the protocol's sample of frames"
        for sampled in _neighbour_metrics(evaluation)
    ]
    notes += paired_differences(evaluation)
    if any(value == math.inf for entry in scores for value in entry.values.values()):
        notes.append(f"PSNR ∞: some frame equals the ground truth; null in metrics.json, and without a {GAIN}")
    return notes


def paired_differences(evaluation: Evaluation) -> list[str]:
    """Return how sure it is that the best method is better than each other one, from the clips' own differences.

    Nothing for fewer than :data:`LEAST_CLIPS` clips whose PSNR is finite by both, of which an interval would say too
    little, and nothing where the two never differ.
    """
    from scipy.stats import bootstrap  # scipy's statistics take long to import

    means = [evaluation.mean(method).psnr_rgb for method in range(len(evaluation.methods))]
    best = max(range(len(means)), key=means.__getitem__)
    notes = []
    for other, name in enumerate(evaluation.methods):
        pairs = [(clip.scores[best].psnr_rgb, clip.scores[other].psnr_rgb) for clip in evaluation.clips]
        leads = [lead for pair in pairs if (lead := gain(*pair)) is not None]
        if other == best or len(leads) < LEAST_CLIPS or not any(leads):
            continue
        drawn = bootstrap((leads,), np.mean, n_resamples=2000, batch=200, method="percentile", rng=0)
        interval = drawn.confidence_interval
        notes.append(
            f"{evaluation.methods[best]} against {name}, PSNR clip by clip: {signed(float(np.mean(leads)))} dB "
            f"({signed(interval.low)} to {signed(interval.high)} dB in 95 % of resamplings of the {len(leads)} clips)"
        )
    return notes


def notes_by_text(evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the clips' notes, each with the names of the clips that have it, in the data's order."""
    found: dict[str, list[str]] = {}
    for clip in evaluation.clips:
        for note in clip.notes:
            found.setdefault(note, []).append(clip.clip)
    return found


def marked(values: Sequence[float | None], digits: int, larger_is_better: bool) -> list[Cell]:
    """Return a column's cells, the best and the second best marked.

    Marks compare the numbers as shown, so that equal texts have equal marks; several may be best, and the next number
    is second best.

    Args:
        values: one per method.
        digits: shown after the point.
        larger_is_better: whether the largest value is the best.
    """
    texts = [_shown(value, digits) for value in values]
    numbers = {text: float(text.replace("∞", "inf")) for text in texts if text != NOTHING}
    several = sum(text != NOTHING for text in texts) > 1
    order = sorted(set(numbers.values()), reverse=larger_is_better) if several else []
    places = dict(zip(order, (Mark.BEST, Mark.SECOND), strict=False))
    marks = {text: places.get(number, Mark.NONE) for text, number in numbers.items()}
    return [Cell(text, value, marks.get(text, Mark.NONE)) for text, value in zip(texts, values, strict=True)]


def _means(evaluation: Evaluation, title: str, clips: Sequence[ClipScores]) -> Group:
    scores = [evaluation.mean(method, clips) for method in range(len(evaluation.methods))]
    cells = [
        marked([entry[metric] for entry in scores], metric.digits, metric.larger_is_better)
        for metric in _metrics(evaluation)
    ]
    cells.append(_gains(evaluation, scores))
    for metric in _neighbour_metrics(evaluation):
        values = [entry.sampled.get(metric.name) for entry in scores]
        cells.append([Cell(NOTHING if value is None else _formatted(value, metric.format), value) for value in values])
    clip_count = "" if len(clips) == 1 and title == clips[0].clip else count(len(clips), "clip") + ", "
    rows = tuple(zip(evaluation.methods, *cells, strict=True))
    return Group(title, clip_count + count(scores[0].frames, "frame"), rows)


def gain(psnr: float, base: float) -> float | None:
    """Return the gain in PSNR over bicubic, dB; None where either is infinite."""
    return psnr - base if math.isfinite(psnr) and math.isfinite(base) else None


def _gains(evaluation: Evaluation, scores: Sequence[Scores]) -> list[Cell]:
    # Not marked: it is rounded otherwise than PSNR, so that its marks could contradict PSNR's.
    if BICUBIC not in evaluation.methods:
        return [Cell(NOTHING, None)] * len(scores)
    base = scores[evaluation.methods.index(BICUBIC)].psnr_rgb
    gains = [gain(entry.psnr_rgb, base) for entry in scores]
    return [Cell(NOTHING if value is None else signed(value), value) for value in gains]


def _metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the table's metrics: all, but of partial ones those that some clip has."""
    scores = [entry for clip in evaluation.clips for entry in clip.scores]
    return [
        metric
        for metric in METRICS.values()
        if not metric.partial or any(entry[metric] is not None for entry in scores)
    ]


def _neighbour_metrics(evaluation: Evaluation) -> list[NeighbourMetric]:
    """Return those that some method has on some clip."""
    taken = {name for clip in evaluation.clips for scores in clip.scores for name in scores.sampled}
    return [metric for metric in neighbours.METRICS if metric.name in taken]


def signed(value: float) -> str:
    """Return the value with its sign and two digits, never as -0.00."""
    return _formatted(value, "+.2f")


def _formatted(value: float, form: str) -> str:
    return f"{float(format(value, form)) + 0.0:{form}}"  # so that nothing is -0.00


def _shown(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"
