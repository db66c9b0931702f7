"""A job's retry while pods of the attempt before still run: cut off, so that Kubernetes knows nothing of them.

Each attempt has a host, processes and files of its own, as pods of two clusters have; the bucket is the same.
"""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.image.asking import OVERLAY
from tests.image.containers import Image, Pod
from tests.k8s.manifests import cluster_specs, settings
from tests.train.datasets import make_dataset
from tests.train.trainings import STARTED, TINY

BOX = "ray-head"
Attempt = Callable[[str], Pod]


@pytest.fixture
def attempt(
    ray_image: Image, mlflow: Pod, data: dict[str, dict[str, str]], bucket: Any, folder: Path, tmp_path: Path
) -> Iterator[Attempt]:
    """Starts the same training once more, in a pod of a name."""
    make_dataset(str(tmp_path / "noise"), 22)
    for file in filter(Path.is_file, (tmp_path / "noise").rglob("*")):
        bucket.upload_file(str(file), "mana", str(file.relative_to(tmp_path)))
    command = ["mana", "train", *TINY, "--schedule.stage1.steps", "5000", "--run.log_every", "1"]
    command += [
        "--data.path",
        "s3://mana/noise",
        "--run.storage",
        settings(OVERLAY)["MANA_RUNS"],
        "--run.name",
        "fenced",
    ]
    spec = dict(cluster_specs(OVERLAY))["RayJob/mana-train"]["headGroupSpec"]["template"]["spec"]
    with ExitStack() as stack:

        def start(name: str) -> Pod:
            pod = stack.enter_context(Pod(name, spec, ray_image, data, folder / name))
            pod.run_first()
            pod.start(BOX, command)
            return pod

        yield start


def saved(pod: Pod) -> list[int]:
    """The steps of all checkpoints that a training has told of."""
    return [int(step) for step in re.findall(r"^checkpoint at step (\d+) ", pod.log(BOX), re.MULTILINE)]


def test_it_is_refused_while_they_work_and_stops_them_once_they_were_silent(attempt: Attempt) -> None:
    old = attempt("old")
    old.wait(BOX, lambda: bool(saved(old)), 600)

    refused = attempt("refused")
    assert refused.ended(BOX) == 2, refused.log(BOX)
    (line,) = [line for line in refused.log(BOX).splitlines() if line.startswith("error: ")]
    assert re.match(
        r"error: run fenced belongs to another attempt, which is at work \(process \d+ on old, since ", line
    )

    old.signal_all(BOX, signal.SIGSTOP)
    retry = attempt("retry")
    retry.wait(BOX, lambda: STARTED in retry.log(BOX), 600)
    resumed = re.search(r"resuming after step (\d+)", retry.log(BOX))
    assert resumed
    assert int(resumed[1]) >= saved(old)[-1]
    old.signal_all(BOX, signal.SIGCONT)
    assert old.ended(BOX) == 2, old.log(BOX)
    assert re.search(r"error: run fenced was taken over by another attempt \(process \d+ on retry, ", old.log(BOX))
    assert "Traceback" not in old.log(BOX)

    # Nothing of it is in the retry's way.
    count = len(saved(retry))
    retry.wait(BOX, lambda: len(saved(retry)) > count + 1, 600)
    retry.stop(BOX)
    assert retry.ended(BOX) == 128 + signal.SIGTERM, retry.log(BOX)
    assert [line for line in retry.log(BOX).splitlines() if line.startswith("stopped after step ")]
