"""MLflow may go and come back: nothing waits for it, nothing is missing afterwards, and nothing is there twice."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import RestException

from mana_dist.storage.lease import LostError
from mana_dist.train.tracking.delivery import Point
from mana_dist.train.tracking.events import Checkpointed, Stalled, Started
from mana_dist.train.tracking.mlflow_run import Tracker
from mana_dist.train.tracking.spool import Spool
from tests.train.tracking.tracked import AWAY, FakeClient, last_points, progress, steps, validated


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr("mana_dist.train.tracking.delivery.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("mana_dist.train.tracking.delivery.LONGEST_PAUSE", 0.02)
    return FakeClient()


NEW: dict[str, Point] = {}
UNKNOWN = None


def tracker(client: Any, folder: Path, lines: list[str], logged: dict[str, Point] | None = NEW) -> Tracker:
    return Tracker(client, "run", Spool(str(folder)), logged, lines.append)


def test_updates_arrive_in_order(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    subject = tracker(client, tmp_path, lines)
    for event in (Started(0, 2, "CPU", ()), progress(2), validated(2), Checkpointed(2, 0.5), progress(4)):
        subject.log(event)
    subject.close("FINISHED")
    assert client.losses == steps(4)
    assert [call for call in client.calls if call not in ("metrics", "get_run")] == ["validation 2", "FINISHED"]
    assert lines == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gain", [-0.125, None])
def test_a_validations_metrics(client: FakeClient, tmp_path: Path, gain: float | None) -> None:
    subject = tracker(client, tmp_path, [])
    subject.log(validated(2, neighbour_gain=gain))
    assert subject.flush(30)
    expected = {"psnr": 30, "ssim": 0.9, "psnr_bicubic": 28, "ssim_bicubic": 0.8, "psnr_gain": 2, "seconds": 1.5}
    expected |= {} if gain is None else {"neighbour_gain": gain}
    assert {key: (point.step, point.value) for key, point in client.last.items()} == {
        f"val/{name}": (2, value) for name, value in expected.items()
    }


def test_a_run_that_is_anothers_by_now_is_sent_nothing(client: FakeClient, tmp_path: Path) -> None:
    checked = threading.Event()

    def lost() -> None:
        checked.set()
        raise LostError("taken over")

    subject = Tracker(client, "run", Spool(str(tmp_path)), NEW, check=lost)
    subject.log(progress(2))
    assert checked.wait(30)
    assert not subject.flush(0.05)
    assert client.calls == []


def test_nothing_is_sent_while_the_storage_cannot_say_whose_run_it_is(client: FakeClient, tmp_path: Path) -> None:
    errors, before = iter([OSError(5, "no answer")] * 2), list[str]()

    def check() -> None:
        for error in errors:
            before.extend(client.calls)
            raise error

    lines: list[str] = []
    subject = Tracker(client, "run", Spool(str(tmp_path)), NEW, lines.append, check)
    subject.log(progress(2))
    assert subject.flush(30)
    assert client.losses == steps(2)
    assert before == []
    assert lines == []  # MLflow was there all the time


def test_away_is_said_once_and_back_once_and_all_arrives(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    subject = tracker(client, tmp_path, lines)
    client.error = AWAY
    for step in range(2, 42, 2):
        subject.log(progress(step))
        subject.log(validated(step))
        time.sleep(0.005)
    assert not subject.flush(0.05)
    assert list(tmp_path.iterdir())  # safe from the driver's death
    client.error = None
    assert subject.flush(60)
    assert client.losses == steps(40)
    assert [call for call in client.calls if call not in ("metrics", "get_run")] == [
        f"validation {step}" for step in range(2, 42, 2)
    ]
    assert len(lines) == 2
    assert lines[0].startswith("MLflow at http://fake does not answer (API request")
    assert lines[1].startswith("MLflow is back after 0:")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_accepts_and_never_answers_holds_nobody_up(client: FakeClient, tmp_path: Path) -> None:
    client.gate.clear()
    subject = tracker(client, tmp_path, [])
    before = time.perf_counter()
    for step in range(2, 102, 2):
        subject.log(progress(step))
    subject.log(Checkpointed(100, 0.1))
    assert time.perf_counter() - before < 60  # MLflow would have held it up for ever
    kept = Spool(str(tmp_path))
    assert len(kept) > 100  # at a checkpoint, everything that has not arrived is safe
    client.gate.set()
    assert subject.flush(60)
    assert client.losses == steps(100)


def test_what_never_arrived_comes_with_the_next_attempt(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    client.error = AWAY
    subject = tracker(client, tmp_path, lines)
    for step in (2, 4, 6):
        subject.log(progress(step))
    subject.log(validated(6))
    before = time.perf_counter()
    subject.close("KILLED", timeout=0.1)
    assert time.perf_counter() - before < 60
    assert "the same command delivers them" in lines[-1]

    other = FakeClient()
    resumed = tracker(other, tmp_path, [])
    # Resumed from step 4, whose checkpoint remembers steps 3 and 4; step 5 and 6 are done again.
    for event in (Started(4, 1, "CPU", (3.0, 4.0)), progress(6), progress(8), validated(6), validated(8)):
        resumed.log(event)
    assert resumed.flush(60)
    assert other.losses == steps(8)
    assert [call for call in other.calls if call.startswith("validation")] == ["validation 6", "validation 8"]


def test_losses_that_only_the_checkpoint_remembers_are_logged(client: FakeClient, tmp_path: Path) -> None:
    subject = tracker(client, tmp_path, [], logged=last_points(train_loss=3))
    subject.log(Started(6, 2, "CPU", (2.0, 3.0, 4.0, 5.0, 6.0)))
    assert subject.flush(60)
    assert client.losses == [(4, 4.0), (5, 5.0), (6, 6.0)]


def test_what_mlflow_has_may_be_found_out_after_the_start(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    client.last = last_points(train_loss=4, train_gradient_norm=4, train_workers=2, val_psnr=4)
    client.error = AWAY
    subject = tracker(client, tmp_path, lines, UNKNOWN)
    # Resumed from step 2; MLflow has steps 1 to 4 and the validation of step 4, but that is not known yet.
    for event in (Started(2, 1, "CPU", (1.0, 2.0)), progress(4), validated(4), progress(6), validated(6)):
        subject.log(event)
    assert not subject.flush(0.05)
    client.error = None
    assert subject.flush(60)
    assert client.calls[:2] == ["get_run", "RUNNING"]
    assert client.calls.count("get_run") == 1
    assert client.losses == [(5, 5.0), (6, 6.0)]
    assert [call for call in client.calls if call.startswith("validation")] == ["validation 6"]
    assert [line.split(" (")[0].split(" after")[0] for line in lines] == [
        "MLflow at http://fake does not answer",
        "MLflow is back",
    ]


@pytest.mark.parametrize("arrives", [True, False])
def test_what_was_sent_without_a_receipt_is_sent_again_only_if_it_has_not_arrived(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """The first request for each update has no answer; points of attempts, which may repeat a step, are no other."""
    requests: list[tuple[Point, ...]] = []
    log_batch = client.log_batch

    def lose_first(run_id: str, metrics: list[Any]) -> None:
        points = tuple(Point(metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics)
        is_first = points not in requests
        requests.append(points)
        if arrives or not is_first:
            log_batch(run_id, metrics)
        if is_first:
            raise AWAY

    monkeypatch.setattr(client, "log_batch", lose_first)
    subject = tracker(client, tmp_path, [])
    for event in (Started(0, 2, "CPU", ()), progress(2), Checkpointed(2, 0.5), progress(4), Started(2, 1, "CPU", ())):
        subject.log(event)
    assert subject.flush(10)
    assert client.losses == steps(4)
    assert set(Counter(requests).values()) == {1 if arrives else 2}


def test_two_attempts_without_mlflow_and_a_third_with_it(client: FakeClient, tmp_path: Path) -> None:
    client.last = last_points(train_loss=4, train_gradient_norm=3)  # which went in two requests
    client.error = AWAY
    for step in (4, 6):
        attempt = tracker(client, tmp_path, [], UNKNOWN)
        attempt.log(Started(step - 2, 1, "CPU", tuple(float(number) for number in range(1, step - 1))))
        attempt.log(progress(step))
        attempt.close("KILLED", timeout=0.05)
    other = FakeClient()
    third = tracker(other, tmp_path, [], client.last)
    third.log(Started(6, 1, "CPU", tuple(value for _, value in steps(6))))
    third.log(progress(8))
    assert third.flush(60)
    assert other.losses == steps(8)[4:]
    assert other.norms == steps(8)[3:]


def test_a_run_with_nothing_left_to_train_waits_for_the_server_too(client: FakeClient, tmp_path: Path) -> None:
    client.error = AWAY
    subject = tracker(client, tmp_path, [], UNKNOWN)
    assert not subject.flush(0.05)  # else the model would be registered at a server that is away
    client.error = None
    assert subject.flush(60)
    assert client.calls == ["get_run", "RUNNING"]


def test_a_refused_update_is_left_out_and_does_not_block_the_others(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    subject = tracker(client, tmp_path, lines)
    client.error = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"})
    subject.log(Checkpointed(1, 0.1))
    assert subject.flush(60)
    client.error = None
    subject.log(progress(2))
    assert subject.flush(60)
    assert client.losses == steps(2)
    assert len(lines) == 1
    assert "refuses an update, which is left out: INVALID_PARAMETER_VALUE: too long" in lines[0]


def test_events_without_figures_are_no_concern(client: FakeClient, tmp_path: Path) -> None:
    subject = tracker(client, tmp_path, [])
    subject.log(Stalled(1, 600.0, "stacks"))
    assert subject.flush(60)
    assert client.calls == []
