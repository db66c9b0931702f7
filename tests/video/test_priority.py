"""Encoding leaves the machine to others."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mana_dist.upscale.config import Codec, Settings
from mana_dist.upscale.encode import Encoder
from mana_dist.video.colours import Colours
from mana_dist.video.priority import no_real_time, real_time_threads

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads can be asked on Linux alone")


@pytest.mark.parametrize("codec", ["av1", "h264", "hevc"])
def test_no_thread_of_an_encoder_is_a_real_time_one(tmp_path: Path, codec: Codec) -> None:
    """Left to itself, SVT-AV1 makes all of them that as root."""
    encoder = Encoder(str(tmp_path / "x.mkv"), Settings(codec), 8, Fraction(25), Colours(1, False, 1, 1), Fraction(1))
    for grey in (0, 128):
        encoder.add(np.full((128, 128, 3), grey, np.uint8))
        assert not real_time_threads()
    encoder.finish()
    assert not real_time_threads()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
def test_a_thread_that_was_a_real_time_one_before_stays_so() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        with no_real_time():
            pass
        assert os.sched_getscheduler(0) == os.SCHED_RR
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
