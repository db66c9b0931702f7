"""What a person reads while training."""

import numpy as np

from mana_dist.train.console import line
from mana_dist.train.events import Checkpointed, Failed, Progress, Started, Validated


def test_lines() -> None:
    assert line(Started(0, 2, "CPU, 1 thread(s)", ())) == "starting: 2 worker(s) on CPU, 1 thread(s)"
    assert line(Started(60, 8, "H100", (0.5,))) == "resuming after step 60: 8 worker(s) on H100"
    assert line(Failed(1, "ValueError: no")) == "worker 1 failed: ValueError: no"
    assert line(Checkpointed(60, 0.26)) == "checkpoint at step 60 (0.3 s)"
    assert line(Progress(1, 20, 1500, (0.25, 0.75), 1e-3, 21.04, 0.016, 75.2)) == (
        "stage 1  step   20/1500  loss 0.50000  21.0 samples/s  data-wait 1.6%  ETA 1:15"
    )
    assert line(Validated(20, 31.5, 0.91, 30.25, 0.9, np.zeros((1, 1, 3), np.uint8))) == (
        "validation at step 20: PSNR 31.50 dB (+1.25 over bicubic), SSIM 0.9100 (+0.0100)"
    )
