"""Run every part, each in a process of its own with a limit of time, and print one table, which is also in a file.

``python -m benchmarks [--small] [--only PART ...] [--out bench.md] [--seconds 885]``. The exit code is 1 where a part
did not come to its end; the others run all the same.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import ended
from benchmarks.report import PartResult, Report, Row, read_part, table

LIBRARIES = ("torch", "ray", "deepspeed", "av", "pillow", "h5py", "pyarrow")


@dataclass(frozen=True)
class Part:
    """Something that is measured.

    Attributes:
        function: ``module:name`` of a function, which is imported in the part's process alone; takes whether every size
            shall be as small as it can be, and gives rows.
        seconds: its time, start of its process included.
    """

    function: str
    seconds: float


# Their times add up to less than fifteen minutes.
PARTS = {
    "paper's network": Part("benchmarks.model:paper_rows", 120),
    "training": Part("benchmarks.model:training_rows", 75),
    "upscaling": Part("benchmarks.upscale:rows", 100),
    "attention": Part("benchmarks.attention:rows", 110),
    "video frames": Part("benchmarks.model:frame_rows", 50),
    "feed": Part("benchmarks.feed:rows", 130),
    "ingest": Part("benchmarks.ingest:rows", 95),
    "Ray Train": Part("benchmarks.train:step_rows", 45),
    "wait for data": Part("benchmarks.train:wait_rows", 80),
    "memory": Part("benchmarks.memory:rows", 35),
    "starts": Part("benchmarks.starts:rows", 45),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a dry run: every size as small as it can be")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("bench.md"), help="file to write (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=885, help="time for all parts together")
    parser.add_argument("--function", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.function:
        measure(options.function, Report(options.out), small=options.small)
        return 0
    title = f"{machine()}{', dry run' if options.small else ''}"
    results: list[PartResult] = []
    end = time.monotonic() + options.seconds
    for number, name in enumerate(options.only):
        # A part may have what those before it left over.
        later = sum(PARTS[other].seconds for other in options.only[number + 1 :])
        left = end - time.monotonic()
        results.append(contained(name, min(left, max(PARTS[name].seconds, left - later)), small=options.small))
        # After each part, so that what there is survives whatever ends the script.
        options.out.write_text(page(title, results), encoding="utf-8")
    print(page(title, results))
    return 1 if any(result.error for result in results) else 0


def measure(function: str, report: Report, *, small: bool) -> None:
    """Run a part in this process."""
    module, _, name = function.partition(":")
    rows: Iterable[Row] = getattr(importlib.import_module(module), name)(small)
    for row in rows:
        report.add(row)


def contained(name: str, seconds: float, *, small: bool) -> PartResult:
    """Run a part in a process of its own, which is ended when its time is up; what it had measured by then counts."""
    print(f"== {name} (at most {max(seconds, 0):.0f} s)", flush=True)
    if seconds <= 0:
        return PartResult(name, 0.0, "left out: no time left")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mana-bench-") as folder:
        log = Path(folder) / "rows.jsonl"
        command = [sys.executable, "-m", "benchmarks", "--function", PARTS[name].function, "--out", str(log)]
        # What the part leaves lying about when it is ended goes with the folder.
        threads = {"OMP_NUM_THREADS": "1" if small else "2"}  # on machines with more cores too, to compare
        error = ended(command + ["--small"] * small, seconds, {"TMPDIR": folder, **threads})
        return read_part(log, name, time.monotonic() - begun, error)


def page(title: str, results: list[PartResult]) -> str:
    """Return the results as Markdown; what failed comes first."""
    failed = [f"* **failed**, {result.part}: {result.error}" for result in results if result.error]
    times = "Seconds: " + ", ".join(f"{result.part} {result.seconds:.0f}" for result in results)
    return "\n".join([f"# {title}", "", *failed, "", *table(results), "", f"{times}."]) + "\n"


def machine() -> str:
    """Return the machine, the versions and the date in words."""
    from mana_dist.model.precision import processor_here

    processor = processor_here("cpu")
    unit = processor.bf16 or "no unit for bf16"
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    load = os.getloadavg()[0]
    return (
        f"{processor.name}, {unit}, {os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}, "
        f"{libraries}; {time.strftime('%Y-%m-%d %H:%M')}"
    )


if __name__ == "__main__":
    sys.exit(main())
