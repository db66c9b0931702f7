"""Prometheus' own answers to every query of the dashboards and alerts, on real runs on a real Ray cluster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mana_dist.data.manifest import find_manifest
from tests.cluster.prometheus_server import Prometheus, unavailable
from tests.k8s.prometheus import DASHBOARDS, alerts, panel_queries
from tests.train.nodes import Nodes
from tests.train.trainings import DATA, TINY, Training, make_workplace
from tests.upscale.bucket.runs import write_film, write_model
from tests.video.videos import moving_frames, write_video

RUN = [
    *[*TINY, *DATA, "--run.name", "watched", "--schedule.stage1.steps", "1000000", "--schedule.stage1.lr", "1e-6"],
    *["--run.log_every", "20", "--run.checkpoint_every", "50", "--run.validate_every", "100"],
    *["--run.stall_timeout", "60"],
]
NO_DATA = ("kubelet_", "failed_videos")  # there is none, and none failed

pytestmark = [pytest.mark.cluster(seconds=300), pytest.mark.skipif(bool(unavailable()), reason=unavailable())]


def ingest_and_upscale(cluster: Nodes, folder: Path) -> None:
    """Two clips become samples, a third is too small and refused; two videos are upscaled."""
    for name in ("a", "b"):
        write_video(folder / "clips" / f"{name}.mp4", moving_frames(12))
    write_video(folder / "clips" / "small.mp4", moving_frames(12, 32, 32))
    for name in ("c", "d"):
        write_film(folder / "films" / f"{name}.mp4", 24)
    model = write_model(folder / "model")
    jobs: list[list[str | Path]] = [
        ["ingest", "--source", folder / "clips", "--out", folder / "set"],
        ["upscale", "--source", folder / "films", "--out", folder / "large", "--model", model],
    ]
    for job, *arguments in jobs:
        command = [sys.executable, "-m", f"pipelines.{job}", *map(str, arguments)]
        done = subprocess.run(command, env=cluster.driver_environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_that_is_stalled_killed_and_resumed(tmp_path: Path) -> None:
    begun = time.time()
    workplace = make_workplace(tmp_path)
    with Nodes(cpus=2) as cluster, Prometheus(tmp_path / "prometheus", cluster.folder) as prometheus:
        ingest_and_upscale(cluster, tmp_path)
        manifest = find_manifest(str(tmp_path / "set"))
        assert manifest is not None
        counted = {
            "ingest_clips": 3,
            "ingest_refused": len(manifest.rejected),
            "ingest_frames": 36,
            "ingest_samples": manifest.samples,
            "ingest_bytes": sum((tmp_path / "set" / shard.path).stat().st_size for shard in manifest.shards),
            "upscale_segments": 2,
            "upscale_frames": 48,
        }
        for name, expected in counted.items():
            prometheus.wait_for(f"ray_mana_{name}_total == {expected}")
        # The watchdog alone ends what is stalled: it tells of it.
        here = {**cluster.driver_environment, "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "3600"}
        with Training(workplace, *RUN, extra=here) as training:
            prometheus.wait_for("ray_mana_validation_psnr_decibels")
            prometheus.wait_for("ray_mana_train_checkpoint_step > 0")
            prometheus.wait("steps", lambda: "ManaTrainNoStep" not in prometheus.firing())
            os.kill(cluster.processes("ray::RayTrainWorker")[0], signal.SIGSTOP)
            prometheus.wait("stalled", lambda: "ManaTrainNoStep" in prometheus.firing())
            prometheus.wait_for("ray_mana_train_loss")  # still shown
            training.wait_for("has made no step for")
            prometheus.wait_for("ray_mana_train_stalls_total >= 1")
            prometheus.wait("going on", lambda: "ManaTrainNoStep" not in prometheus.firing())
            (restarts,) = prometheus.wait_for("sum by (run) (ray_mana_train_restarts_total)")
            training.process.kill()
        prometheus.wait("gone", lambda: not prometheus.ask("ray_mana_train_step"))
        prometheus.wait("killed", lambda: "ManaTrainNoStep" in prometheus.firing())
        with Training(workplace, *RUN, extra=here) as training:
            prometheus.wait("resumed", lambda: "ManaTrainNoStep" not in prometheus.firing())
            prometheus.wait_for(f"sum by (run) (ray_mana_train_restarts_total) > {restarts['value'][1]}")
            training.process.send_signal(signal.SIGTERM)
            assert training.finish() == 128 + signal.SIGTERM, training.output
        prometheus.wait_for("last_over_time(ray_mana_train_ended_timestamp_seconds[1h])")
        ended = time.time()
        expression = alerts()["ManaTrainNoStep"]["expr"]
        late = ended + 1000
        assert prometheus.ask(expression.split(" unless ")[0], late)  # what would be missed of another run
        assert not prometheus.ask(expression, late)
        for rule in alerts().values():
            prometheus.ask(rule["expr"])
        for name in DASHBOARDS:
            for title, query in panel_queries(name):
                found = prometheus.ask_over(query, begun, ended)
                values = [float(point[1]) for series in found for point in series["values"]]
                print(f"{title}: {len(found)} series, {len(values)} points, newest {values[-1:]}: {query}")
                assert bool(values) is not any(part in query for part in NO_DATA), (title, query)
