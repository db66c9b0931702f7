"""What it brings to keep freed memory: processor time, page faults and peak memory, in turns, each in its own process.

``python -m benchmarks.memory [--rounds 3] [--cases train-tiny ...]``
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.report import Row, show
from mana_dist.allocator import keep_freed_memory

REPEATS = {"train-tiny": 4, "train-64x12": 3, "upscale": 4, "evaluate": 4}
FIGURES = {
    "cpu": ("processor time", "ms", 1e3),
    "faults": ("page faults", "a step", 1.0),
    "peak": ("peak memory", "MiB", 2**-20),
}
"""By key of a result: name, unit, and how many of that unit."""
_CHILD = "--child"


def main() -> None:
    """Print a line for each case and each way."""
    if sys.argv[1:2] == [_CHILD]:
        print(json.dumps(_measure(sys.argv[2], kept=sys.argv[3] == "kept")))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=REPEATS, default=list(REPEATS))
    options = parser.parse_args()
    show(measure(options.cases, options.rounds))


def rows(small: bool) -> Iterator[Row]:
    """Two of the cases, once."""
    return measure(["train-tiny"] if small else ["train-tiny", "upscale"], rounds=1)


def measure(cases: list[str], rounds: int) -> Iterator[Row]:
    """Measure both ways of each case."""
    for case in cases:
        found: dict[str, list[dict[str, float]]] = {"default": [], "kept": []}
        for _ in range(rounds):
            for way, results in found.items():
                command = [sys.executable, "-m", "benchmarks.memory", _CHILD, case, way]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                results.append(json.loads(done.stdout))
        medians = {
            way: {key: statistics.median(result[key] for result in results) for key in results[0]}
            for way, results in found.items()
        }
        for way, median in medians.items():
            for key, (what, unit, factor) in FIGURES.items():
                ratio = median[key] / medians["default"][key] if medians["default"][key] else None
                yield Row(f"{case}, {way}: {what}", median[key] * factor, unit, ratio, "default")


def _measure(case: str, *, kept: bool) -> dict[str, float]:
    if kept and not keep_freed_memory():
        raise SystemExit("the allocator's settings are not this program's here")
    step = _steps(case)
    for _ in range(2):
        next(step)
    times = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(REPEATS[case]):
        start = time.process_time()
        next(step)
        times.append(time.process_time() - start)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu": statistics.median(times),
        "faults": (after.ru_minflt - before.ru_minflt) / REPEATS[case],
        "peak": after.ru_maxrss * 1024,
    }


def _steps(case: str) -> Iterator[object]:
    import torch

    from benchmarks.networks import NETWORKS
    from mana_dist.model import Mana

    torch.set_num_threads(min(2, os.cpu_count() or 1))
    torch.manual_seed(0)
    model = Mana(NETWORKS["small" if case == "train-64x12" else "tiny"])
    if case.startswith("train"):
        yield from _training(model, (8, 7, 3, 32, 32) if case == "train-tiny" else (2, 7, 3, 64, 64))
    yield from _frames(model.eval(), _scored if case == "evaluate" else lambda frame: frame)


def _training(model, shape: tuple[int, ...]) -> Iterator[None]:  # type: ignore[no-untyped-def]
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    frames = torch.rand(shape)
    hr = torch.rand(shape[0], 3, 4 * shape[3], 4 * shape[4])
    while True:
        optimizer.zero_grad()
        output = model(frames)
        (output - hr).abs().mean().backward()
        optimizer.step()
        yield


def _frames(model, use: Callable[[np.ndarray], object]) -> Iterator[object]:  # type: ignore
    from mana_dist.model.inference import super_resolve

    random = np.random.default_rng(0)
    frames = (random.integers(0, 256, (180, 320, 3), dtype=np.uint8) for _ in range(100))
    return map(use, super_resolve(model, frames))


def _scored(frame: np.ndarray) -> object:  # type: ignore[type-arg]
    from mana_dist.metrics import psnr, psnr_y, ssim, ssim_y

    return [measure(frame, frame[::-1]) for measure in (psnr, ssim, psnr_y, ssim_y)]


if __name__ == "__main__":
    main()
