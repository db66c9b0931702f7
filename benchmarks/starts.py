"""How long commands take until they work: this checkout, and another one in turns.

``python -m benchmarks.starts [--other CHECKOUT] [--rounds 3] [--only PATTERN] [--processes]``. Prints for each command
the least seconds on the clock and the least seconds of processor time of all its processes together, which say more
where others use the machine too: of each command's help, of mistakes on the command line, of a training of 20 steps
of the ``tiny`` preset (to its first step, and whole) and of the ingest of one short clip.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.feed import make_samples
from benchmarks.ingest import make_videos
from benchmarks.report import Row

HERE = Path(__file__).parents[1]
TICK = os.sysconf("SC_CLK_TCK")
ENDED = "ended"  # a process that cannot be asked for its name any more
LOOK_EVERY = 0.1  # seconds between looks at the processes, whose last such span is not counted
COMMANDS = ("train", "ingest", "evaluate", "upscale", "sweep memory", "serve", "stack")

TRAINING = "train --config tiny --data.path samples --data.validation_path samples --run.log_every 1"
for number, steps in enumerate((12, 4, 4), 1):
    TRAINING += f" --schedule.stage{number}.steps {steps}"

CASES: dict[str, tuple[str, int]] = {
    "mana --help": ("--help", 0),
    **{f"mana {name} --help": (f"{name} --help", 0) for name in COMMANDS},
    "no such command": ("trian", 2),
    **{f"{name}: no such option": (f"{name} --no-such-option 1", 2) for name in COMMANDS},
    "train: a wrong value": ("train --config tiny --run.seed x", 2),
    "train: a value out of range": ("train --config tiny --run.seed -1", 2),
    "train: no such preset": ("train --config none", 2),
    "train: no data": ("train --config tiny", 2),
    "train: no such data": ("train --config tiny --data.path none", 2),
    "ingest: a wrong value": ("ingest --source clip.mp4 --out new --stride x", 2),
    "ingest: no such file": ("ingest --source none.mp4 --out new", 2),
    "evaluate: a wrong value": ("evaluate --data clip.mp4 --method bicubic --out new --frames x", 2),
    "evaluate: no such file": ("evaluate --data none.mp4 --method bicubic --out new", 2),
    "upscale: a wrong value": ("upscale clip.mp4 new.mp4 --model none --crf x", 2),
    "upscale: no such file": ("upscale none.mp4 new.mp4 --model none", 2),
    "upscale: no such model": ("upscale clip.mp4 new.mp4 --model none", 2),
    "sweep: a wrong value": ("sweep memory --slots x --evaluate-on clip.mp4", 2),
    "serve: a wrong value": ("serve --model none --cpus x", 2),
    "serve: no such model": ("serve --model none", 2),
    "training of 20 steps": (TRAINING, 0),
    "ingest of one clip": ("ingest --source clip.mp4 --out new", 0),
}
"""By name: the command line, and its exit code."""


MEASURED = ("mana --help", "train: no such data", "upscale: no such file", "training of 20 steps", "ingest of one clip")
"""What :func:`rows` runs."""


@dataclass
class Cost:
    """What one run of a command took.

    Attributes:
        wall: seconds on the clock until its end.
        first_step: seconds on the clock until the line of its first step; None where there is none.
        processor: seconds of processor time of all its processes, by the kind of process.
    """

    wall: float = 0.0
    first_step: float | None = None
    processor: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds of processor time."""
        return sum(self.processor.values())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--other", type=Path, metavar="CHECKOUT", help="an older checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each command (default %(default)s)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="a regular expression: the commands to run")
    parser.add_argument("--processes", action="store_true", help="also print processor time by kind of process")
    options = parser.parse_args()
    checkouts = [HERE, *([options.other.resolve()] if options.other else [])]
    heads = ["wall s", "processor s"]
    if options.other:
        heads = [f"{side} {head}" for head in heads for side in ("other", "here")] + ["wall ratio", "processor ratio"]
    print("| command |", " | ".join(heads), "|")
    print("| --- |", " --- |" * len(heads))
    with tempfile.TemporaryDirectory(prefix="mana-starts-") as temporary:
        folder = Path(temporary)
        prepare(folder)
        for name, (words, code) in CASES.items():
            if not re.search(options.only, name):
                continue
            costs: list[list[Cost]] = [[] for _ in checkouts]
            for _ in range(options.rounds):
                for mine, checkout in zip(costs, checkouts, strict=True):
                    mine.append(run(checkout, folder, words, code))
            row(name, [[cost.wall for cost in mine] for mine in costs], costs)
            if any(cost.first_step is not None for mine in costs for cost in mine):
                row(f"{name}: first step", [[cost.first_step or 0.0 for cost in mine] for mine in costs], None)
            if options.processes:
                for mine, checkout in zip(costs, checkouts, strict=True):
                    least = min(mine, key=lambda cost: cost.total).processor
                    for kind, seconds in sorted(least.items(), key=lambda item: -item[1]):
                        print(f"    {checkout.name}: {seconds:6.2f} s {kind}")


def rows(small: bool) -> Iterator[Row]:
    """Some of the commands, once each."""
    with tempfile.TemporaryDirectory(prefix="mana-starts-") as temporary:
        folder = Path(temporary)
        prepare(folder)
        for name in MEASURED[:2] if small else MEASURED:
            cost = run(HERE, folder, *CASES[name])
            yield Row(name, cost.wall, "s")
            if cost.first_step is not None:
                yield Row(f"{name}: its first step", cost.first_step, "s")


def prepare(folder: Path) -> None:
    """Make what the commands work on."""
    make_samples(str(folder / "samples"), "448x256", samples=64)
    make_videos(folder / "made", 50, count=1)[0].rename(folder / "clip.mp4")


def row(name: str, walls: list[list[float]], costs: list[list[Cost]] | None) -> None:
    """Print a command's line; the other checkout comes first."""
    wall = [min(mine) for mine in walls][::-1]
    processor = [min(cost.total for cost in mine) for mine in costs][::-1] if costs else []
    cells = [f"{value:.2f}" for value in (*wall, *processor)] + ([] if costs else [""] * len(wall))
    if len(wall) == 2:
        cells += [f"{wall[1] / wall[0]:.2f}", f"{processor[1] / processor[0]:.2f}" if processor else ""]
    print(f"| {name} |", " | ".join(cells), "|", flush=True)


def run(checkout: Path, folder: Path, words: str, code: int) -> Cost:
    """Run a command of a checkout in a new folder beside the samples and the clip."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
        for name in ("samples", "clip.mp4"):
            os.symlink(folder / name, Path(work) / name)
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1"}
        cost, begun = Cost(), time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "mana_dist.cli", *words.split()],
            cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        seen = _Processes(process.pid)
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if cost.first_step is None and line.startswith("step 1/"):
                cost.first_step = time.perf_counter() - begun
        _, status, used = os.wait4(process.pid, 0)  # what /proc is too coarse for, where there is one process
        cost.wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        cost.processor = seen.end()
        cost.processor["the command"] = max(cost.processor.pop("the command", 0.0), 0.0)
        if len(cost.processor) == 1:
            cost.processor["the command"] = used.ru_utime + used.ru_stime
        if process.returncode != code:
            raise SystemExit(f"mana {words}: exit code {process.returncode}\n{''.join(lines)}")
        return cost


class _Processes:
    """Follows the processes below one, by looks at /proc, until the end."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._used: dict[tuple[int, str], tuple[str, float]] = {}
        self._family = {root}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> dict[str, float]:
        """Return processor seconds by kind of process."""
        self._done.set()
        self._thread.join()
        kinds: dict[str, float] = defaultdict(float)
        for kind, seconds in self._used.values():
            kinds[kind] += seconds
        return dict(kinds)

    def _follow(self) -> None:
        while not self._done.wait(LOOK_EVERY):
            self._look()

    def _look(self) -> None:
        stats = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    text = Path(f"/proc/{entry}/stat").read_text()
                    stats[int(entry)] = text[text.rindex(")") + 2 :].split()
                except OSError:  # it has ended
                    continue
        grown = True
        while grown:  # children of children; those whose parent has ended stay in the family
            new = {pid for pid, stat in stats.items() if int(stat[1]) in self._family} - self._family
            self._family |= new
            grown = bool(new)
        for pid in self._family & stats.keys():
            stat = stats[pid]
            seconds = (int(stat[11]) + int(stat[12])) / TICK
            kind, before = self._kind(pid), self._used.get((pid, stat[19]))
            if before is not None and kind in (ENDED, "ray::IDLE"):
                kind = before[0]  # what it last was
            self._used[pid, stat[19]] = kind, seconds

    def _kind(self, pid: int) -> str:
        if pid == self._root:
            return "the command"
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").split()
        except OSError:
            return ENDED
        title = next(
            (word for word in words if word.startswith("ray::") or word.endswith(".py")), words[0] if words else ENDED
        )
        return title.rsplit("/", 1)[-1][:60]


if __name__ == "__main__":
    main()
