from dataclasses import replace

import pytest

from mana_dist.train.schedule import Stage
from mana_dist.train.tracking import run_metrics
from mana_dist.train.tracking.events import Checkpointed, Failed, Started, Usage
from tests.train.tracking.tracked import progress, validated

STAGES = (Stage(1, 0, 3, 1e-3), Stage(3, 3, 10, 1e-5))


def test_a_stages_losses_are_a_curve_of_their_own() -> None:
    found = run_metrics.series(progress(5, count=4), STAGES)
    assert found == {
        "train/loss": {2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0},
        "train/loss_stage1": {2: 2.0, 3: 3.0},
        "train/loss_stage3": {4: 4.0, 5: 5.0},
        "train/gradient_norm": {2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0},
    }


def test_the_losses_of_a_checkpoint_belong_to_the_steps_before_it() -> None:
    found = run_metrics.series(Started(3, 2, "CPU", (0.5, 0.25)), STAGES)
    assert found == {"train/loss": {2: 0.5, 3: 0.25}, "train/loss_stage1": {2: 0.5, 3: 0.25}}


def test_what_has_no_figures_has_no_metrics() -> None:
    assert run_metrics.values(Failed(0, "reason")) == {}


def test_system_metrics_have_mlflows_names_and_percents() -> None:
    cpu_alone = run_metrics.values(replace(progress(2), usage=Usage(cpu=0.5, memory=0.25)))
    assert {name: value for name, value in cpu_alone.items() if name.startswith("system/")} == {
        "system/cpu_utilization_percentage": 50.0,
        "system/system_memory_usage_percentage": 25.0,
    }
    with_gpu = run_metrics.values(replace(progress(2), usage=Usage(0.5, 0.25, gpu=0.75, gpu_memory=0.125)))
    assert with_gpu["system/gpu_0_utilization_percentage"] == 75.0
    assert with_gpu["system/gpu_0_memory_usage_percentage"] == 12.5


def test_a_validations_scores_have_an_evaluations_names_with_the_model() -> None:
    values = run_metrics.values(validated(4))
    assert values["val/psnr_gain"] == pytest.approx(2.0)
    scores = {key: values[key] for key in run_metrics.SCORES}
    assert run_metrics.of_model(scores) == {"psnr_rgb": 30.0, "ssim_rgb": 0.9, "neighbour_gain": 0.25}


def test_only_what_each_attempt_measures_anew_is_of_attempts() -> None:
    of_attempts = {*run_metrics.values(Started(0, 2, "CPU", ())), *run_metrics.values(Checkpointed(4, 1.0))}
    assert of_attempts == set(run_metrics.OF_ATTEMPTS)
