"""The three stages (paper section 3.4)."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from mana_dist.config import Config, ScheduleConfig, StageConfig, parse
from mana_dist.model import Mana, ModelConfig
from mana_dist.schedule_config import Decay, Loss
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import ADAM_BETAS, Stage, learning_rate, stages

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=5)


def schedule(*steps: int, memory_slots: int = 5) -> Config:
    parts = [StageConfig(steps=count, lr=1e-4) for count in steps]
    return Config(
        model=dataclasses.replace(MODEL, memory_slots=memory_slots),
        schedule=ScheduleConfig(stage1=parts[0], stage2=parts[1], stage3=parts[2]),
    )


def test_the_papers_schedule() -> None:
    planned = [(s.number, s.start, s.stop, s.lr) for s in stages(parse(["--config", "paper"]))]
    assert planned == [(1, 0, 90_000, 1e-4), (2, 90_000, 120_000, 1e-4), (3, 120_000, 150_000, 1e-5)]
    assert ADAM_BETAS == (0.5, 0.99)


def test_stages_without_steps_are_left_out() -> None:
    assert [(s.number, s.start, s.stop) for s in stages(schedule(5, 0, 2))] == [(1, 0, 5), (3, 5, 7)]
    assert stages(schedule(0, 0, 0)) == ()


def test_without_memory_there_is_no_stage_2() -> None:
    assert [(s.number, s.start, s.stop) for s in stages(schedule(5, 3, 2, memory_slots=0))] == [(1, 0, 5), (3, 5, 7)]


def scheduler_rates(stage: Stage) -> list[float]:
    """The oracle: torch's schedulers, one after the other."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=stage.lr)
    schedulers: list[torch.optim.lr_scheduler.LRScheduler] = []
    steps, rise = stage.stop - stage.start, max(stage.warmup - 1, 0)
    if rise:
        schedulers.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1 / stage.warmup, 1, rise))
    if stage.decay == "cosine":
        lowest = 0.02 * stage.lr
        schedulers.append(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - 1 - rise), lowest))
    else:
        schedulers.append(torch.optim.lr_scheduler.ConstantLR(optimizer, 1))
    milestones = [rise] if rise else []
    chained = torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, milestones)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chained.step()
    return rates


@pytest.mark.parametrize("decay", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 5, 30])
def test_the_learning_rates_course_is_that_of_torchs_schedulers(decay: Decay, warmup: int) -> None:
    stage = Stage(3, 70, 100, 2e-3, decay, warmup)
    rates = [learning_rate(stage, step) for step in range(70, 100)]
    assert rates == pytest.approx(scheduler_rates(stage), rel=1e-9)
    assert max(rates) == 2e-3
    assert rates[-1] == pytest.approx(4e-5 if decay == "cosine" and warmup < 30 else 2e-3)
    assert rates[0] == pytest.approx(2e-3 / max(warmup, 1))


def test_a_constant_rate_without_warm_up_is_the_number_itself() -> None:
    assert {learning_rate(Stage(1, 5, 8, 0.1), step) for step in range(5, 8)} == {0.1}
    assert learning_rate(Stage(1, 5, 6, 0.1, "cosine"), 5) == 0.1  # first and last at once


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lr = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return lr, torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("number", [1, 3])
def test_stages_1_and_3_compare_the_output_with_the_ground_truth(number: int) -> None:
    model = Mana(MODEL)
    lr, hr = batch()
    loss = StageObjective(model, Stage(number, 0, 1, 1e-4))(lr, hr)
    assert torch.equal(loss, (model(lr.float() / 255) - hr.float() / 255).abs().mean())


@pytest.mark.parametrize("number", [1, 3])
def test_charbonniers_distance_is_a_hypotenuse(number: int) -> None:
    model = Mana(MODEL)
    lr, hr = batch()
    loss = StageObjective(model, Stage(number, 0, 1, 1e-4, loss="charbonnier"))(lr, hr)
    apart = model(lr.float() / 255) - hr.float() / 255
    torch.testing.assert_close(loss, torch.hypot(apart, torch.tensor(1e-3)).mean())


def test_stages_have_the_schedules_loss() -> None:
    config = schedule(5, 3, 2)
    assert {stage.loss for stage in stages(config)} == {"l1"}
    other = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, loss="charbonnier"))
    assert {stage.loss for stage in stages(other)} == {"charbonnier"}


@pytest.mark.parametrize("loss", ["l1", "charbonnier"])
def test_stage_2_compares_y_with_q(loss: Loss) -> None:
    model = Mana(MODEL)
    assert model.memory is not None
    lr, hr = batch()
    loss = StageObjective(model, Stage(2, 0, 1, 1e-4, loss=loss))(lr, hr)
    query = model.attention.query(model.encode(lr[:, 1].float() / 255))
    rows = query.permute(0, 2, 3, 1)
    reading = F.softmax(rows @ model.memory.bank, -1) @ model.memory.bank.T
    torch.testing.assert_close(loss, (reading - rows).abs().mean())


def intended(number: int, name: str) -> bool:
    """What the issue of each stage is, from the paper."""
    if number == 1:
        return not name.startswith("memory.")
    return name == "memory.bank" or number == 3


@pytest.mark.parametrize("number", [1, 2, 3])
def test_exactly_the_intended_tensors_change(number: int) -> None:
    """Plain Adam on all parameters that require gradients; the engine's test shows the same under DeepSpeed."""
    torch.manual_seed(0)
    model = Mana(MODEL)
    with torch.no_grad():  # zero projections would keep gradients from the layers before them
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    objective = StageObjective(model, Stage(number, 0, 1, 1e-2))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2, betas=ADAM_BETAS)
    objective(*batch()).backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != intended(number, name), name


@pytest.mark.parametrize("slots", [5, 0])
@pytest.mark.parametrize("attention", ["one_hot", "softmax_window", "dense"])
def test_every_variant_of_the_network_trains_in_every_stage_that_it_has(attention: str, slots: int) -> None:
    """Every tensor that a stage trains gets a gradient that is finite and not all zero."""
    torch.manual_seed(0)
    steps = schedule(2, 2, 2, memory_slots=slots)
    model = Mana(dataclasses.replace(steps.model, attention=attention))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    planned = stages(steps)
    assert [stage.number for stage in planned] == ([1, 2, 3] if slots else [1, 3])
    for stage in planned:
        model.zero_grad(set_to_none=True)
        StageObjective(model, stage)(*batch()).backward()
        for name, parameter in model.named_parameters():
            if not intended(stage.number, name):
                assert parameter.grad is None, name
                continue
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # A softmax does not change when all its scores do, so nothing depends on the key's bias.
            if attention == "one_hot" or name != "attention.to_key.bias":
                assert parameter.grad.any(), name
