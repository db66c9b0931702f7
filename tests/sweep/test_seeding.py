"""A trial's start from a shared stage 1."""

import dataclasses
from pathlib import Path

import pytest
import torch

from mana_dist.errors import UserError
from mana_dist.model import Mana
from mana_dist.model.mana import initial_weights
from mana_dist.sweep.seeding import seed
from mana_dist.sweep.trial_plan import Trial, make_plan
from mana_dist.sweep.variations import memory_sweep
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import Stage
from tests.sweep.outcomes import CONFIG


def trials(tmp_path: Path, attention: str = CONFIG.model.attention) -> tuple[Trial, Trial, Trial]:
    run, model = (
        dataclasses.replace(CONFIG.run, storage=str(tmp_path)),
        dataclasses.replace(CONFIG.model, attention=attention),
    )
    config = dataclasses.replace(CONFIG, run=run, model=model)
    plan = make_plan(config, memory_sweep(config, (0, 4)), samples=1)
    return plan.bases[0], *plan.trials  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("attention", "own_parts"), [("one_hot", ("memory.",)), ("phases", ("memory.", "attention.to_query."))]
)
def test_shared_weights_are_taken_and_the_memory_is_the_trials_own(
    tmp_path: Path, attention: str, own_parts: tuple[str, ...]
) -> None:
    base, none, four = trials(tmp_path, attention)
    trained = {name: tensor + 1 for name, tensor in initial_weights(base.config.model, 5).items()}
    average = {name: tensor - 1 for name, tensor in trained.items()}
    Checkpoints(base.config).write(TrainState(10, trained, {}, (0.5, 0.25), average))
    assert seed(none)
    assert seed(four)
    own = initial_weights(four.config.model, 5)
    for trial in (none, four):
        state = Checkpoints(trial.config).newest().state
        assert state is not None
        assert (state.step, state.losses, dict(state.moments)) == (10, (0.5, 0.25), {})
        for name, tensor in state.weights.items():
            assert tensor.equal(own[name] if name.startswith(own_parts) else trained[name])
            assert state.average[name].equal(own[name] if name.startswith(own_parts) else average[name])
    assert "memory.bank" in Checkpoints(four.config).read(10).weights
    assert not seed(four)  # it has a checkpoint


def test_a_shared_training_that_lacks_weights_is_no_start(tmp_path: Path) -> None:
    base, _, four = trials(tmp_path)
    weights = initial_weights(base.config.model, 5)
    del weights["stem.weight"]
    Checkpoints(base.config).write(TrainState(10, weights, {}))
    with pytest.raises(KeyError, match=r"stem\.weight"):
        seed(four)


def test_without_a_finished_stage_1_there_is_no_start(tmp_path: Path) -> None:
    base, none, _ = trials(tmp_path)
    Checkpoints(base.config).write(TrainState(0, initial_weights(base.config.model, 5), {}))
    with pytest.raises(UserError, match="is not finished"):
        seed(none)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stage_1_does_not_depend_on_the_memory_to_the_bit(dtype: torch.dtype) -> None:
    without, some = (after_stage_1(slots, dtype) for slots in (0, 16))
    assert all(tensor.equal(some[name]) for name, tensor in without.items())


def after_stage_1(slots: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    config = dataclasses.replace(CONFIG.model, memory_slots=slots)
    model = Mana(config)
    model.load_state_dict(initial_weights(config, 0))
    objective = StageObjective(model, Stage(1, 0, 9, 1e-3)).to(dtype)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    random = torch.Generator().manual_seed(1)
    for _ in range(4):
        lr = torch.randint(0, 256, (2, 7, 3, 12, 12), dtype=torch.uint8, generator=random)
        hr = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=random)
        objective(lr, hr).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}
