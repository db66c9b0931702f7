"""Failures of workers: reported, restarted, or the end of the run with a line that names the mend."""

from pathlib import Path

import pytest
import torch
from ray.train import UserCallback, WorkerGroupError

from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.errors import UserError
from mana_dist.train.elastic.failures import ReportFailures, memory_errors_as_user_errors, too_many, user_error
from mana_dist.train.tracking.events import Event, Failed


def test_failed_workers_are_reported() -> None:
    events: list[Event] = []
    callback = ReportFailures(events.append)
    assert isinstance(callback, UserCallback)
    callback.after_exception(None, {1: RuntimeError("first line\nlast line"), 2: ValueError()})
    assert events == [Failed(1, "last line"), Failed(2, "ValueError")]


def test_a_users_mistake_is_not_tried_again() -> None:
    """What this callback raises ends the training: tests/train/elastic/test_faults.py sees it happen."""
    events: list[Event] = []
    cause = RuntimeError("wrapped")
    cause.__cause__ = UserError("lower it")
    with pytest.raises(UserError, match="lower it"):
        ReportFailures(events.append).after_exception(None, {0: RuntimeError("peer is gone"), 1: cause})
    assert events == []
    assert user_error(RuntimeError("a bug")) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "main"),
        (MemoryError(), "main"),
    ],
)
def test_out_of_memory_names_the_keys_to_lower(error: Exception, kind: str) -> None:
    config = Config(data=DataConfig(batch_size=16, crop=64), run=RunConfig(workers=2, micro_batch=4))
    with pytest.raises(UserError, match=f"out of {kind} memory") as raised, memory_errors_as_user_errors(config):
        raise error
    for key in (
        "run.micro_batch to less than 4",
        "run.checkpoint_activations",
        "run.workers (2)",
        "data.batch_size (16)",
        "data.crop (64)",
    ):
        assert key in str(raised.value)


def message(config: Config, error: Exception, *, validating: bool = False) -> str:
    with pytest.raises(UserError) as raised, memory_errors_as_user_errors(config, validating=validating):
        raise error
    return str(raised.value)


def test_out_of_memory_names_no_key_that_cannot_help() -> None:
    """A worker for every sample: no more workers are taken, and no share can be cut."""
    run = RunConfig(workers="2-16", checkpoint_activations=True, micro_batch=1)
    text = message(Config(data=DataConfig(batch_size=16), run=run), MemoryError())
    assert text == (
        "a worker ran out of main memory; lower data.batch_size (16) or data.crop (64) under another run.name"
    )


@pytest.mark.parametrize(("error", "keeps"), [(torch.OutOfMemoryError(), False), (MemoryError(), True)])
def test_out_of_memory_in_validation_is_a_matter_of_its_samples(error: Exception, keeps: bool) -> None:
    """All of them are kept in main memory, one at a time is on the GPU."""
    config = Config(data=DataConfig(validation_path="held-out"), run=RunConfig(validate_samples=7))
    text = message(config, error, validating=True)
    assert "data.validation_path (held-out)" in text
    assert ("run.validate_samples (7)" in text) == keeps
    assert "micro_batch" not in text


def test_too_many_failures_are_one_line_and_a_file(tmp_path: Path) -> None:
    config = Config(run=RunConfig(name="one", storage=str(tmp_path), max_failures=3))
    error = WorkerGroupError("", {0: RuntimeError("peer is gone"), 1: RuntimeError("Traceback\n  line\nout of luck")})
    text = str(too_many(config, error))
    assert "run.max_failures (3)" in text
    assert "at last of: out of luck; peer is gone; " in text
    file = tmp_path / "one" / "failure.txt"
    assert str(file) in text
    assert "Traceback\n  line\nout of luck" in file.read_text()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="a bug"), memory_errors_as_user_errors(Config()):
        raise RuntimeError("a bug")
