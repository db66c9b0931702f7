"""docs/api.md as a reader follows it: its blocks of code in a process of their own, on tiny data."""

import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mana_dist.data.degradation import BI, degrade
from mana_dist.registry import model_folder
from tests.evaluate.footage import CONFIG, frames_of
from tests.serve.models import tiny_model
from tests.train.datasets import make_dataset
from tests.train.trainings import environment

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SMALL_TRAINING = """
import mana_dist.config as c
from dataclasses import replace
tiny = c.preset("tiny")
tiny = replace(tiny, model=replace(tiny.model, channels=8, encoder_blocks=1, decoder_blocks=1, memory_slots=4),
    schedule=c.ScheduleConfig(**{f"stage{number}": c.StageConfig(steps=2) for number in (1, 2, 3)}),
    data=replace(tiny.data, batch_size=2, crop=12), run=replace(tiny.run, workers=1))
c.preset = lambda name: {"tiny": tiny}[name]
"""


def block(call: str) -> str:
    """The one block that calls a function."""
    (found,) = [text for text in BLOCKS if f"{call}(" in text]
    return found


def follow(folder: Path, code: str) -> str:
    """What a block prints, which is all that is said."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mana" not in done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    return done.stdout.strip()


def write_video(path: Path, frames: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with what the blocks name."""
    frames = frames_of(8, height=144, width=160, step=2)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", frames)
    write_video(tmp_path / "held-out.mp4", frames[:4])
    write_video(tmp_path / "in.mp4", degrade(frames, BI))
    model_folder.save(str(tmp_path / "runs" / "first" / "model"), tiny_model().state_dict(), CONFIG)
    return tmp_path


def test_ten_lines_each() -> None:
    assert len(BLOCKS) == 5
    for text in BLOCKS:
        assert len([line for line in text.splitlines() if line and "import" not in line]) <= 10


def test_upscale(place: Path) -> None:
    assert follow(place, block("upscale")) == "8 160 144"
    with av.open(str(place / "out.mp4")) as container:
        assert (container.streams.video[0].codec.name, container.streams.video[0].width) == ("hevc", 160)


def test_a_mistake_is_one_line(place: Path) -> None:
    (place / "in.mp4").unlink()
    assert "in.mp4" in follow(place, block("upscale"))


def test_evaluate(place: Path) -> None:
    gain = float(follow(place, block("evaluate")))
    assert -30 < gain < 0  # of an untrained network
    assert (place / "results" / "metrics.json").is_file()


def test_the_network() -> None:
    assert follow(Path(__file__).parent, block("Mana(ModelConfig")) == "(1, 3, 128, 128)"


@pytest.mark.slow
def test_ingest(place: Path) -> None:
    samples, rejected = follow(place, block("ingest")).split(maxsplit=1)
    assert (int(samples) > 0, rejected) == (True, "()")
    assert (place / "samples" / "manifest.json").is_file()


@pytest.mark.cluster
def test_train(tmp_path: Path) -> None:
    make_dataset(str(tmp_path / "samples"), 8)
    model, registered = follow(tmp_path, SMALL_TRAINING + block("train")).split()
    assert (Path(model) / "model.safetensors").is_file()
    assert registered == "models:/mana-x4/1"
