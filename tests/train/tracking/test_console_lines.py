"""What a person reads while training."""

import dataclasses

import numpy as np

from mana_dist.train.tracking.console_lines import line
from mana_dist.train.tracking.events import (
    Checkpointed,
    Damaged,
    Failed,
    Progress,
    Stalled,
    Started,
    Stopped,
    Validated,
)

PICTURE = np.zeros((1, 1, 3), np.uint8)


def test_lines() -> None:
    assert line(Started(0, 2, "CPU, 1 thread(s)", ())) == "starting: 2 worker(s) on CPU, 1 thread(s)"
    assert line(Started(60, 8, "H100", (0.5,), "989 TFLOP/s (data sheet)")) == (
        "resuming after step 60: 8 worker(s) on H100, peak 989 TFLOP/s (data sheet) each"
    )
    assert line(Failed(1, "ValueError: no")) == "worker 1 failed: ValueError: no"
    assert line(Checkpointed(60, 2.26, 0.04)) == "checkpoint at step 60 (2.3 s, training waited 0.0 s)"
    assert line(Damaged("runs/a/checkpoint_00000060", "model.safetensors is 3 bytes short")) == (
        "checkpoint runs/a/checkpoint_00000060 is damaged (model.safetensors is 3 bytes short); "
        "going on from one before it"
    )
    assert line(Stopped(61, "SIGTERM")) == "stopped after step 61 (SIGTERM); everything up to it is in the checkpoint"
    assert line(Validated(20, 31.5, 0.91, 30.25, 0.9, PICTURE)) == (
        "validation at step 20: PSNR 31.50 dB (+1.25 over bicubic), SSIM 0.9100 (+0.0100)"
    )


def test_a_validation_says_what_neighbours_bring_and_the_last_of_a_stage_if_it_is_nothing() -> None:
    found = Validated(20, 31.5, 0.91, 30.25, 0.9, PICTURE, neighbour_gain=0.00321)
    shown = "validation at step 20: PSNR 31.50 dB (+1.25 over bicubic), SSIM 0.9100 (+0.0100), neighbour gain +0.003 dB"
    assert line(found) == shown
    first, second = line(dataclasses.replace(found, ended_stage=1)).splitlines()
    assert first == shown
    assert second == (
        "stage 1: neighbour frames bring nothing yet (0.003 dB): the model does as well with the centre frame alone; "
        "train longer, or with another model.attention"
    )
    for gain in (0.01, 0.35, None):
        assert "\n" not in line(dataclasses.replace(found, ended_stage=1, neighbour_gain=gain))


def test_progress_holds_all_figures() -> None:
    short = Progress(1, 20, 1500, (0.25, 0.75), 1e-3, 21.04, 0.016, 75.2)
    assert line(short) == (
        "stage 1  step   20/1500  loss 0.50000  lr 1.0e-03  21.0 samples/s  data-wait 1.6%  ETA 1:15"
    )
    full = Progress(
        *(1, 20, 1500, (0.25, 0.75), 1e-3, 21.04, 0.016, 75.2),
        gradient_norms=(0.5, 0.0321),
        tflops=12.345,
        peak_share=0.416,
        memory=3 * 2**29,
    )
    assert line(full) == (
        "stage 1  step   20/1500  loss 0.50000  grad 3.21e-02  lr 1.0e-03  21.0 samples/s  "
        "12.3 TFLOP/s (42% of peak)  data-wait 1.6%  1.5 GiB  ETA 1:15"
    )


def test_a_stalled_workers_threads_are_listed_below_the_line() -> None:
    lines = line(Stalled(1, 601.2, 'Thread 0x1 (most recent call first):\n  File "a.py", line 3 in f\n')).splitlines()
    assert lines[0] == "worker 1 has made no step for 601 s (run.stall_timeout); its threads:"
    assert lines[1:] == ["Thread 0x1 (most recent call first):", '  File "a.py", line 3 in f']
