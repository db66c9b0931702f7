"""The alerts, by Prometheus' own tool, on series that no run makes on demand."""

import json
from pathlib import Path

import pytest
import yaml

from tests.k8s.prometheus import alert_groups, alerts, promtool

LAST, ENDED = "ray_mana_train_last_step_timestamp_seconds", "ray_mana_train_ended_timestamp_seconds"
RUN = '{namespace="mana", run="a"}'
AGAIN = '{namespace="mana", run="a", pod="next"}'
DISK = '{namespace="mana", persistentvolumeclaim="data-postgres-0"}'
VOLUME = "kubelet_volume_stats"
EVERY = {f"ray_mana_train_checkpoint_every_steps{RUN}": "100x300"}
QUIET = ""

# Series whose values are a minute apart, in promtool's notation: 0+60x10 counts by 60 ten times, _x5 is nothing five
# times. Then what an alert says after so many minutes.
CASES: dict[str, tuple[str, dict[str, str], dict[int, str]]] = {
    "steps": ("ManaTrainNoStep", {LAST + RUN: "0+60x120"}, {5: QUIET, 60: QUIET, 120: QUIET}),
    "stalled": (
        "ManaTrainNoStep",
        {LAST + RUN: "0+60x10 600x30"},
        {10: QUIET, 25: QUIET, 26: "Training a has made no step for 16m 0s."},
    ),
    "killed": (
        "ManaTrainNoStep",
        {LAST + RUN: "0+60x10 _x90"},
        {25: QUIET, 26: "Training a has made no step for 16m 0s.", 71: QUIET},
    ),
    "killed and resumed": (
        "ManaTrainNoStep",
        {LAST + RUN: "0+60x10 _x90", LAST + AGAIN: "_x18 1080+60x40"},
        {17: QUIET, 20: QUIET, 30: QUIET, 50: QUIET},
    ),
    "ended in order": (
        "ManaTrainNoStep",
        {LAST + RUN: "0+60x10 _x90", ENDED + RUN: "_x10 600 _x90"},
        {26: QUIET, 60: QUIET},
    ),
    "ended, resumed, stalled": (
        "ManaTrainNoStep",
        {LAST + RUN: "0+60x10 _x90", ENDED + RUN: "_x10 600 _x90", LAST + AGAIN: "_x20 1200x60"},
        {30: QUIET, 35: QUIET, 50: "Training a has made no step for 30m 0s."},
    ),
    "fed": ("ManaTrainDataWait", {f"ray_mana_train_data_wait_ratio{RUN}": "0.04x60"}, {5: QUIET, 60: QUIET}),
    "a short wait": (
        "ManaTrainDataWait",
        {f"ray_mana_train_data_wait_ratio{RUN}": "0.01x9 0.3 0.01x30"},
        {10: QUIET, 15: QUIET, 30: QUIET},
    ),
    "hungry": (
        "ManaTrainDataWait",
        {f"ray_mana_train_data_wait_ratio{RUN}": "0.25x60"},
        {4: QUIET, 5: "Training a waits for data 25% of the time."},
    ),
    "no checkpoint": (
        "ManaTrainNoCheckpoint",
        {f"ray_mana_train_step{RUN}": "0+10x300", f"ray_mana_train_checkpoint_step{RUN}": "0x300", **EVERY},
        {10: QUIET, 20: QUIET, 21: "Training a has made 210 steps without a checkpoint."},
    ),
    "checkpoints": (
        "ManaTrainNoCheckpoint",
        {
            f"ray_mana_train_step{RUN}": "0+10x60",
            f"ray_mana_train_checkpoint_step{RUN}": "0x10 100x10 200x10 300x10 400x10 500x9",
            **EVERY,
        },
        dict.fromkeys(range(1, 59), QUIET),
    ),
    "disk": (
        "ManaPostgresDisk",
        {f"{VOLUME}_available_bytes{DISK}": "20-1x20", f"{VOLUME}_capacity_bytes{DISK}": "100x20"},
        {10: QUIET, 11: "The disk of PostgreSQL has 9% left."},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_alerts_say_what_is_wrong_when_it_is_and_not_before(case: str, tmp_path: Path) -> None:
    name, series, expected = CASES[case]
    labels = {"namespace": "mana"}
    labels |= {"persistentvolumeclaim": "data-postgres-0"} if "Disk" in name else {"run": "a"}
    labels |= alerts()[name]["labels"]
    test = {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": name,
                "exp_alerts": [{"exp_labels": labels, "exp_annotations": {"summary": said}}] if said else [],
            }
            for minute, said in expected.items()
        ],
    }
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(alert_groups()))
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(json.dumps(content))
    done = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_prometheus_rules(tmp_path: Path) -> None:
    """By its strict reader: a mistyped field is an error."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(alert_groups()))
    done = promtool("check", "rules", "--lint-fatal", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(alerts()) == {name for name, *_ in CASES.values()}
    assert {rule["labels"]["severity"] for rule in alerts().values()} == {"warning", "critical"}
