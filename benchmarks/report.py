"""What a part has found: lines of JSON while it runs, so that a part that is ended leaves what it had; then tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A measured figure.

    Attributes:
        name: what was measured.
        value: the figure.
        unit: its unit.
        ratio: how many times better than ``of`` it is; None: nothing to compare with.
        of: what it is compared with.
    """

    name: str
    value: float
    unit: str
    ratio: float | None = None
    of: str = ""

    @property
    def compared(self) -> str:
        """The ratio in words."""
        return f"{self.ratio:.2f}x {self.of}" if self.ratio is not None else self.of


@dataclass(frozen=True)
class Check:
    """Something that must hold.

    Attributes:
        name: what.
        passed: whether it does.
        detail: figures, or why not.
    """

    name: str
    passed: bool
    detail: str = ""


@dataclass
class PartResult:
    """All that a part has left.

    Attributes:
        part: its name.
        seconds: how long it took.
        error: why it did not come to its end; empty if it did.
        rows: figures.
        checks: what must hold.
        notes: sentences.
        curves: named lists of points.
    """

    part: str
    seconds: float = 0.0
    error: str = ""
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether it came to its end and every check holds."""
        return not self.error and all(check.passed for check in self.checks)


class Report:
    """Writes a part's findings to a file, each as a line, and prints them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def row(self, name: str, value: float, unit: str, ratio: float | None = None, of: str = "") -> None:
        """Add a figure."""
        self.add(Row(name, value, unit, ratio, of))

    def add(self, row: Row) -> None:
        """Add a figure."""
        self._write("row", asdict(row))
        show([row])

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Add something that must hold."""
        self._write("check", asdict(Check(name, passed, detail)))
        print(f"  {'ok' if passed else 'FAILED'}: {name} {detail}", flush=True)

    def note(self, text: str) -> None:
        """Add a sentence."""
        self._write("note", text)
        print(f"  {text}", flush=True)

    def curve(self, name: str, points: Iterable[Sequence[float]]) -> None:
        """Add points, such as a loss by step."""
        self._write("curve", {"name": name, "points": [list(point) for point in points]})

    def _write(self, kind: str, content: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({kind: content}) + "\n")


def show(rows: Iterable[Row]) -> None:
    """Print figures as they come."""
    for row in rows:
        print(f"  {row.name}: {row.value:.4g} {row.unit}" + (f", {row.compared}" if row.compared else ""), flush=True)


def read_part(path: Path, part: str, seconds: float, error: str) -> PartResult:
    """Return what a part has left in its file."""
    result = PartResult(part, seconds, error)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # the part was ended while it wrote
            continue
        if "row" in entry:
            result.rows.append(Row(**entry["row"]))
        elif "check" in entry:
            result.checks.append(Check(**entry["check"]))
        elif "note" in entry:
            result.notes.append(entry["note"])
        else:
            result.curves[entry["curve"]["name"]] = entry["curve"]["points"]
    return result


def markdown(title: str, results: Iterable[PartResult]) -> str:
    """Return all findings as one page; what failed comes first."""
    results = list(results)
    lines = [f"# {title}", ""]
    for result in results:
        failures = [f"{check.name}: {check.detail}" for check in result.checks if not check.passed]
        lines += [
            f"* **failed**, {result.part}: {text}" for text in ([result.error] if result.error else []) + failures
        ]
    count = sum(len(result.checks) for result in results)
    held = sum(check.passed for result in results for check in result.checks)
    lines += ["", f"{held} of {count} checks hold.", ""]
    lines += table(results)
    for result in results:
        state = "did not end" if result.error else "ended"
        lines += ["", f"## {result.part}: {state}, {result.seconds:.0f} s", ""]
        lines += [f"* {'ok' if check.passed else '**FAILED**'}: {check.name} {check.detail}" for check in result.checks]
        lines += [f"* {note}" for note in result.notes]
        for name, points in result.curves.items():
            shown = points[:: max(1, len(points) // 12)]
            lines.append(f"* {name}: " + ", ".join(f"{point[0]:g}: {point[1]:.4g}" for point in shown))
    return "\n".join(lines) + "\n"


def table(results: Iterable[PartResult]) -> list[str]:
    """Return the lines of a table of all figures."""
    return ["| part | what | figure | ratio |", "| --- | --- | --- | --- |"] + [
        f"| {result.part} | {row.name} | {row.value:.4g} {row.unit} | {row.compared} |"
        for result in results
        for row in result.rows
    ]


def as_json(title: str, results: Iterable[PartResult]) -> str:
    """Return all findings as JSON."""
    return json.dumps({"title": title, "parts": [asdict(result) for result in results]}, indent=1)
