"""What becomes of a failure."""

import pytest
import torch
from ray.train import UserCallback

from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.errors import UserError
from mana_dist.train.events import Event, Failed
from mana_dist.train.failures import ReportFailures, told_as_mistakes, user_error


def test_failed_workers_are_told() -> None:
    events: list[Event] = []
    callback = ReportFailures(events.append)
    assert isinstance(callback, UserCallback)
    callback.after_exception(None, {1: RuntimeError("first line\nlast line"), 2: ValueError()})
    assert events == [Failed(1, "last line"), Failed(2, "ValueError")]


def test_a_users_mistake_is_not_tried_again() -> None:
    """What this callback raises ends the training: tests/train/test_faults.py sees it happen."""
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
    config = Config(data=DataConfig(batch_size=16, crop=64), run=RunConfig(workers=2))
    with pytest.raises(UserError, match=f"out of {kind} memory") as raised, told_as_mistakes(config):
        raise error
    for key in (
        "run.micro_batch",
        "run.checkpoint_activations",
        "run.workers (2)",
        "data.batch_size (16)",
        "data.crop (64)",
    ):
        assert key in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="a bug"), told_as_mistakes(Config()):
        raise RuntimeError("a bug")
