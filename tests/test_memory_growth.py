"""The memory of a process that works on one video after another, with freed memory kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluate.footage import frames_of
from tests.video.videos import write_video

VIDEOS, WARM = 20, 8
GROWTH = 48 * 2**20
"""Bytes; 12 videos that each left their frames, or a network's memory, behind would leave more."""

PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
def offline(*_, **__):
    raise OSError("offline")
torch.hub.urlopen = offline  # LPIPS's weights
from mana_dist.allocator import keep_freed_memory
keep_freed_memory()
from mana_dist.config import Config
from mana_dist.evaluate import EvaluationOptions, evaluate
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import model_folder
from mana_dist.upscale import Settings, upscale

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

work, source = Path(sys.argv[2]), sys.argv[3]
config = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=3, memory_slots=4))
model = str(work / "model")
model_folder.save(model, Mana(config.model).state_dict(), config)
for number in range(int(sys.argv[1])):
    upscale(source, str(work / f"{number}.mp4"), model, Settings(device="cpu"))
    evaluate(EvaluationOptions(data=(source,), methods=("bicubic", model), out=str(work / f"{number}"), device="cpu"))
    print(resident(), flush=True)
"""


@pytest.mark.slow(seconds=60)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory as Linux tells it")
def test_twenty_videos_need_no_more_memory_than_eight(tmp_path: Path) -> None:
    write_video(tmp_path / "source.mp4", frames_of(12, height=96, width=128))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(VIDEOS), str(tmp_path), str(tmp_path / "source.mp4")],
        env=os.environ | {"TORCH_HOME": str(tmp_path / "torch"), "RAY_ADDRESS": "", "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    resident = [int(line) for line in done.stdout.split()]
    assert len(resident) == VIDEOS
    assert max(resident[WARM:]) - max(resident[:WARM]) < GROWTH, resident
