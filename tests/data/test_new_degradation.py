"""A degradation from outside works wherever one is named."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BI, DEGRADATIONS, Degradation
from mana_dist.footage.layouts import is_lr_name
from mana_dist.ingest.units import unit_name, whole
from tests.command_lines import ingest_options
from tests.data.shards import plain_array
from tests.evaluate.footage import evaluate, frames_of, write_folder, write_pair
from tests.ingest.datasets import clip_at, run
from tests.video.videos import noise_frames, write_pictures


@pytest.fixture
def nearest() -> Iterator[Degradation]:
    kind = Degradation(
        name="NN",
        version=3,
        definition="every pixel (4i, 4j)",
        shrink=lambda frame, scale: frame[::scale, ::scale],
        lr_folders=("NNx4",),
    )
    yield DEGRADATIONS.add(kind)
    del DEGRADATIONS._kinds["NN"]


def test_ingest_makes_its_lr_frames(tmp_path: Path, nearest: Degradation) -> None:
    options = ingest_options(["--source", "x", "--out", "y", "--degradation", "NN"])
    assert options.settings.degradation is nearest
    frames = noise_frames(3)
    clip = clip_at(write_pictures(tmp_path / "clip", frames))
    settings = SampleSettings(degradation=nearest, frames_per_sample=3, detect_cuts=False)
    assert unit_name([clip], settings) != unit_name([clip], replace(settings, degradation=BI))
    (shard,) = run(whole([clip], settings), tmp_path / "out", settings).shards
    lr = plain_array(pq.read_table(tmp_path / "out" / shard.path), "lr")
    np.testing.assert_array_equal(lr[0], frames[:, ::4, ::4])
    manifest = settings.empty_manifest()
    assert (manifest.degradation, manifest.degradation_version) == ("NN", 3)


def test_evaluation_finds_its_lr_frames_or_makes_them_and_says_what_it_is(tmp_path: Path, nearest: Degradation) -> None:
    frames = frames_of(3)
    write_pair(tmp_path / "given", "GT/c", "NNx4/c", frames, nearest)
    write_folder(tmp_path / "made" / "GT" / "c", frames)
    found = {
        name: evaluate(
            tmp_path / f"out-{name}", "--data", str(tmp_path / name), "--method", "bicubic", "--degradation", "NN"
        )
        for name in ("given", "made")
    }
    for name, lr in (("given", "given: NNx4"), ("made", "made")):
        protocol = found[name]["protocol"]
        assert protocol["datasets"][0]["lr"].startswith(lr)
        assert (protocol["degradation"], protocol["degradation_version"]) == ("NN", 3)
        assert protocol["degradation_definition"] == "every pixel (4i, 4j)"
    means = [found[name]["methods"]["bicubic"]["mean"] for name in found]
    assert means[0] == means[1]
    assert is_lr_name("NNx4")


def test_a_degradation_that_lacks_a_part_is_none() -> None:
    with pytest.raises(TypeError, match="lr_folders"):
        Degradation(name="half", version=1, definition="", shrink=lambda frame, scale: frame)  # type: ignore[call-arg]
