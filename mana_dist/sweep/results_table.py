"""The paper's Table 3 from the trials' outcomes: a row per setting, three metrics per dataset, the best two marked."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mana_dist.evaluate.neighbours import GAIN
from mana_dist.evaluate.report import markdown
from mana_dist.evaluate.report.metrics_table import NOTHING, marked
from mana_dist.evaluate.results import Scores
from mana_dist.metrics import METRICS, Metric
from mana_dist.model.mana import parameter_count
from mana_dist.progress import count
from mana_dist.report_pages import tables
from mana_dist.report_pages.tables import Cell, Column, Links
from mana_dist.report_pages.text import to_markdown
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import Plan, Trial
from mana_dist.sweep.variations import Setting, Sweep

COLUMNS = tuple(metric for metric in METRICS.values() if metric.in_sweeps)
"""Metrics shown for each dataset: PSNR, SSIM and LPIPS over RGB, as in the paper."""
ALL = "mean over all clips"
_ASIDE = ("neighbour gain (dB)", "parameters", "s / step", "GiB / worker")


@dataclass(frozen=True)
class Value:
    """A number of a setting over its seeds."""

    mean: float | None  # over the seeds; None where there is none
    spread: float | None = None  # standard deviation over the seeds; None for one seed


@dataclass(frozen=True)
class Row:
    """A setting's results."""

    setting: Setting  # what was trained
    trials: tuple[Trial, ...]  # those that finished
    values: tuple[Value, ...]  # by dataset, then by metric, in the table's order
    step_seconds: Value  # of an optimizer step of the last stage
    memory_bytes: Value  # the most that a worker took
    neighbour_gain: Value = Value(None)  # over all clips, dB; of models that see neighbour frames
    parameters: int | None = None  # of the model
    note: str = ""  # which trials are missing and why; mostly empty
    links: tuple[tuple[str, str], ...] = ()  # to its trials: text and address


@dataclass(frozen=True)
class Table:
    """All results of a sweep: a group of columns per dataset, a row per setting, with ``seeds`` trainings each."""

    title: str
    datasets: tuple[str, ...]
    rows: tuple[Row, ...]
    seeds: int


def make_table(
    sweep: Sweep, plan: Plan, outcomes: Mapping[str, Outcome], links: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """Return the table of what has finished; what has not is in the rows' notes.

    Args:
        sweep: its settings are the rows.
        plan: the trials.
        outcomes: by the trials' names.
        links: the trials' addresses, by their names.
    """
    finished = [outcome for outcome in outcomes.values() if outcome.status is Status.FINISHED and outcome.scores]
    datasets = tuple(dict.fromkeys(name for outcome in finished for name in outcome.scores))
    if len(datasets) > 1:
        datasets = (*datasets, ALL)
    rows = tuple(_row(setting, plan, outcomes, datasets, links) for setting in sweep.settings)
    return Table(sweep.title, datasets, rows, len({trial.seed for trial in plan.trials}))


def best(table: Table, outcomes: Mapping[str, Outcome]) -> Trial | None:
    """Return the trial with the best PSNR, of the setting with the best mean PSNR over all clips; None: none finished.

    Settings with all their seeds come first: of others, ASHA has left only the good trials, whose mean is too high.
    """

    def psnr(trial: Trial) -> float:
        mean = outcomes[trial.name].mean
        return -1.0 if mean is None else mean.psnr_rgb

    rows = [row for row in table.rows if len(row.trials) == table.seeds] or [row for row in table.rows if row.trials]
    if not rows:
        return None
    row = max(rows, key=lambda row: statistics.fmean(map(psnr, row.trials)))
    return max(row.trials, key=psnr)


def cells(table: Table) -> list[tuple[Cell, ...]]:
    """Return each row's cells of the datasets' columns; marks compare means as shown, of rows with all their seeds."""
    columns: list[list[Cell]] = []
    for number in range(len(table.datasets) * len(COLUMNS)):
        metric = COLUMNS[number % len(COLUMNS)]
        values = [row.values[number] for row in table.rows]
        whole = [len(row.trials) == table.seeds for row in table.rows]
        means = [value.mean if is_whole else None for value, is_whole in zip(values, whole, strict=True)]
        places = marked(means, metric.digits, metric.larger_is_better)
        texts = marked([value.mean for value in values], metric.digits, metric.larger_is_better)
        shown = [replace(text, mark=place.mark) for text, place in zip(texts, places, strict=True)]
        columns.append([_with_spread(cell, value, metric) for cell, value in zip(shown, values, strict=True)])
    return list(zip(*columns, strict=True)) if columns else [() for _ in table.rows]


def to_markdown_text(table: Table) -> str:
    """Return a Markdown table: Table 3, and columns about the model; failures below."""
    head = ["", *(f"{to_markdown(name)} {column.heading}" for name in table.datasets for column in COLUMNS)]
    head += [*_ASIDE]
    lines = [head, ["---"] * len(head)]
    for row, shown in zip(table.rows, cells(table), strict=True):
        lines.append([to_markdown(label(row, table)), *map(markdown.marked, shown), *costs(row)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [f"* {to_markdown(row.setting.label)}: {to_markdown(row.note)}" for row in table.rows if row.note]
    return "\n\n".join([f"{markdown.LEGEND}{spread(table)}", text, *(["\n".join(notes)] if notes else [])]) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV, for machines: numbers in full, spreads in columns of their own."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    keys = [f"{name} {column.title}" for name in table.datasets for column in COLUMNS]
    keys += ["seconds per step", "bytes per worker", "neighbour gain (dB)"]
    writer.writerow(["setting", "seeds", *(part for key in keys for part in (key, f"{key} spread")), "note"])
    for row in table.rows:
        values = [*row.values, row.step_seconds, row.memory_bytes, row.neighbour_gain]
        numbers = [number for value in values for number in (value.mean, value.spread)]
        writer.writerow([row.setting.label, len(row.trials), *("" if n is None else n for n in numbers), row.note])
    return stream.getvalue()


def to_html_table(table: Table) -> str:
    """Return the table as an HTML element."""
    columns = [Column("setting")]
    columns += [Column(metric.heading, metric.what, "number", name) for name in table.datasets for metric in COLUMNS]
    columns += [Column(name, kind="number", over="model") for name in _ASIDE]
    linked = any(row.links for row in table.rows)
    columns += [Column("trials")] * linked
    rows: list[tables.LinkedRow] = []
    for row, shown in zip(table.rows, cells(table), strict=True):
        rows.append((label(row, table), *shown, *map(Cell, costs(row)), *[Links(row.links)] * linked))
    return tables.table("A row per setting", columns, rows)


def spread(table: Table) -> str:
    """Return what the signs after a number mean, to follow the explanation of the marks."""
    if table.seeds == 1:
        return "; one seed each: --samples 3 would tell how much of a difference is chance"
    return f"; mean ± standard deviation over {count(table.seeds, 'seed')}"


def label(row: Row, table: Table) -> str:
    """Return a row's name, with the number of its seeds where some are missing."""
    some = 0 < len(row.trials) < table.seeds
    return row.setting.label + (f" ({len(row.trials)} of {count(table.seeds, 'seed')})" if some else "")


def costs(row: Row) -> list[str]:
    """Return what a row says about the model beside its quality, as shown."""
    seconds, memory, gain = row.step_seconds.mean, row.memory_bytes.mean, row.neighbour_gain.mean
    return [
        NOTHING if gain is None else f"{gain:+.2f}",
        NOTHING if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
        NOTHING if seconds is None else f"{seconds:#.3g}".rstrip("."),
        NOTHING if memory is None else f"{memory / 2**30:.2f}",
    ]


def _row(
    setting: Setting,
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    datasets: Sequence[str],
    links: Mapping[str, str],
) -> Row:
    trials = [trial for trial in plan.trials if trial.setting == setting]
    scored = {name for name, outcome in outcomes.items() if outcome.status is Status.FINISHED and outcome.scores}
    done = tuple(trial for trial in trials if trial.name in scored)
    found = [outcomes[trial.name] for trial in done]
    values = [
        _over_seeds([outcome.mean if dataset == ALL else outcome.scores.get(dataset) for outcome in found], column)
        for dataset in datasets
        for column in COLUMNS
    ]
    notes = [f"failed: {setting.problem}"] if setting.problem else []
    for trial in trials:
        outcome = outcomes.get(trial.name)
        if trial not in done:
            notes.append(f"seed {trial.seed} {f'{outcome.status}: {outcome.reason}' if outcome else 'not done'}")
    seconds, memory = [outcome.step_seconds for outcome in found], [outcome.memory_bytes for outcome in found]
    gains = [None if outcome.mean is None else outcome.mean.sampled.get(GAIN.name) for outcome in found]
    return Row(
        setting=setting,
        trials=done,
        values=tuple(values),
        step_seconds=_value(seconds),
        memory_bytes=_value(memory),
        note="; ".join(notes),
        neighbour_gain=_value(gains),
        links=tuple((f"seed {trial.seed}", links[trial.name]) for trial in trials if trial.name in links),
        parameters=None if setting.model is None else parameter_count(setting.model),
    )


def _over_seeds(scores: Sequence[Scores | None], metric: Metric) -> Value:
    return _value([None if entry is None else entry[metric] for entry in scores])


def _value(numbers: Sequence[float | None]) -> Value:
    present = [number for number in numbers if number is not None]
    if not present or len(present) < len(numbers):
        return Value(None)
    # Equal pictures have an infinite PSNR, which has no deviation.
    has_spread = len(present) > 1 and all(map(math.isfinite, present))
    return Value(statistics.fmean(present), statistics.stdev(present) if has_spread else None)


def _with_spread(cell: Cell, value: Value, metric: Metric) -> Cell:
    if value.spread is None:
        return cell
    return Cell(f"{cell.text} ± {value.spread:.{metric.digits}f}", cell.value, cell.mark)
