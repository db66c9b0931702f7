"""Run every part, each in a process of its own with a limit of time, and write one page and one JSON.

``python -m benchmarks.gpu [--device cuda|cpu] [--small] [--out DIR] [--data FILE] [--seconds 520] [--only PART ...]``.
The exit code is 1 where a check failed or a part did not come to its end.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu import kernels, speed, training
from benchmarks.gpu.task import Task
from benchmarks.processes import ended
from benchmarks.report import PartResult, Report, as_json, markdown, read_part

DATA = Path(".gpu/clips.npz")
_GRACE = 15.0
"""Seconds that a part may take beyond its own time, for what it has begun."""


@dataclass(frozen=True)
class Part:
    """One thing that the script does.

    Attributes:
        run: does it.
        seconds: its time on a GPU, start of its process included.
    """

    run: Callable[[Task], None]
    seconds: float


# What matters most comes first; their times add up to less than nine minutes.
PARTS = {
    "kernel checks": Part(kernels.checks, 80),
    "attention": Part(speed.operator, 45),
    "training steps": Part(speed.steps, 75),
    "training": Part(training.training, 110),
    "precision": Part(training.precision, 20),
    "resume": Part(training.resume, 40),
    "video frames": Part(speed.frames, 40),
    "tile sizes": Part(kernels.tiles, 45),
    "torch.compile": Part(speed.compiled, 60),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a dry run: every size as small as it can be, one process")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")), help="folder to write")
    parser.add_argument(
        "--data", type=Path, default=DATA, help=f"file of real clips ({DATA}; made up where it is missing)"
    )
    parser.add_argument("--seconds", type=float, default=520, help="time for all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, options, options.seconds)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: torch finds no GPU here; --device cpu --small is a dry run", file=sys.stderr)
        return 2
    results: list[PartResult] = []
    end = time.monotonic() + options.seconds
    title = f"{describe(options.device)}{', dry run' if options.small else ''}"
    for name in options.only:
        # What a part leaves over goes to those after it, the training first.
        later = sum(PARTS[other].seconds for other in options.only[options.only.index(name) + 1 :])
        own = PARTS[name].seconds
        seconds = min(end - time.monotonic(), max(own, end - time.monotonic() - later) if name == "training" else own)
        print(f"== {name} ({seconds:.0f} s)", flush=True)
        results.append(contained(name, options, seconds))
        # After each part, so that what there is survives whatever ends the script.
        (options.out / "results.md").write_text(markdown(title, results), encoding="utf-8")
        (options.out / "results.json").write_text(as_json(title, results), encoding="utf-8")
    print(markdown(title, results))
    return 0 if all(result.passed for result in results) else 1


def contained(name: str, options: argparse.Namespace, seconds: float) -> PartResult:
    """Run a part in a process of its own, which is ended when its time is up: a fault on the GPU stays in it."""
    begun = time.monotonic()
    log = findings(options.out, name)
    log.unlink(missing_ok=True)
    if seconds <= 0:
        return PartResult(name, 0.0, "left out: no time left")
    if options.small:
        error = ""
        try:
            run_part(name, options, seconds)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
    else:
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--device", options.device]
        command += ["--out", str(options.out), "--data", str(options.data), "--seconds", str(seconds)]
        # So that algorithms which torch calls deterministic are; read when CUDA starts.
        error = ended(command, seconds + _GRACE, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    result = read_part(log, name, time.monotonic() - begun, error)
    log.unlink(missing_ok=True)
    return result


def findings(out: Path, name: str) -> Path:
    """The file of a part's findings."""
    return out / f".{name.replace(' ', '-')}.jsonl"


def run_part(name: str, options: argparse.Namespace, seconds: float) -> None:
    """Run a part in this process."""
    data = options.data if options.data.is_file() and not options.small else None
    report = Report(findings(options.out, name))
    task = Task(options.device, options.small, options.out, data, time.monotonic() + seconds, report)
    PARTS[name].run(task)


def describe(device: str) -> str:
    """The machine, the versions and the time."""
    try:
        import triton

        compiler = f"Triton {triton.__version__}"
    except ImportError:
        compiler = "no Triton"
    name = platform.processor() or platform.machine()
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name = f"{properties.name}, {properties.multi_processor_count} multiprocessors"
    return f"{name}; torch {torch.__version__}, {compiler}; {time.strftime('%Y-%m-%d %H:%M')}"


if __name__ == "__main__":
    sys.exit(main())
