"""Two models on the same held-out samples: their scores are those of another library, and decide the alias."""

import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from skimage.metrics import peak_signal_noise_ratio

from mana_dist import ray_runtime
from mana_dist.config import Config, DataConfig, MlflowConfig, RunConfig
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.data.manifest import load_manifest
from mana_dist.data.mixture import Dataset
from mana_dist.data.row_groups import RowGroups
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.inference import super_resolve_window
from mana_dist.registry import candidate, model_folder, versions
from mana_dist.registry.candidate import Scores
from mana_dist.registry.versions import Registered
from mana_dist.train import validate_candidate
from mana_dist.train.elastic.interrupts import Interrupts
from tests.train.datasets import make_dataset
from tests.train.nodes import Nodes

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=3, memory_slots=4)


def model(seed: int, frames: int = 5, scale: float = 1.0) -> Mana:
    """Return a model with a residual that is not zero; of ``scale`` 0 it is plain interpolation."""
    torch.manual_seed(seed)
    made = Mana(ModelConfig(**{**vars(MODEL), "frames": frames})).eval()
    torch.nn.init.normal_(made.attention.project.weight)
    made.load_state_dict({name: tensor * scale for name, tensor in made.state_dict().items()})
    return made


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("contest") / "held-out")
    make_dataset(folder, 5)
    return folder


def samples(uri: str) -> list[tuple[Any, Any]]:
    with RowGroups([Dataset(uri, load_manifest(uri))], least=1, budget=0) as groups:
        return [
            (groups[group].lr[row].copy(), groups[group].hr[row].copy())
            for group, rows in enumerate(groups.rows)
            for row in range(rows)
        ]


def test_scores_are_another_librarys_psnr_in_fp32_of_the_same_frames(held_out: str) -> None:
    newcomer, holder = model(1), model(2, frames=3)
    found = validate_candidate.scores(held_out, 99, newcomer, holder, "cpu")
    psnr: dict[str, list[float]] = {"model": [], "holder": [], "bicubic": []}
    for lr, hr in samples(held_out):
        for name, frame in (
            ("model", super_resolve_window(newcomer, lr[1:6])),
            ("holder", super_resolve_window(holder, lr[2:5])),
            ("bicubic", bicubic_upsample(lr[3])),
        ):
            psnr[name].append(peak_signal_noise_ratio(hr, frame, data_range=255))
    assert found.model == pytest.approx(np.mean(psnr["model"]), abs=1e-3)
    assert found.holder == pytest.approx(np.mean(psnr["holder"]), abs=1e-3)
    assert found.bicubic == pytest.approx(np.mean(psnr["bicubic"]), abs=1e-9)
    assert len({found.model, found.holder, found.bicubic}) == 3


def test_a_model_without_a_residual_lies_between_a_bad_one_and_bicubic(held_out: str) -> None:
    found = validate_candidate.scores(held_out, 99, model(1, scale=0.0), model(2), "cpu")
    assert found.holder < found.model < found.bicubic
    assert not found.is_better


@pytest.fixture
def arranged(tmp_path: Path, held_out: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, str, Registered]:
    """A run's configuration, its model's folder and version; version 1, a worse model, has the alias."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = Config(
        model=MODEL,
        data=DataConfig(validation_path=held_out),
        run=RunConfig(validate_samples=99, device="cpu"),
        mlflow=MlflowConfig(tracking_uri=uri, registered_model="x"),
    )
    client = MlflowClient(uri)
    client.create_registered_model("x")
    worse, better = tmp_path / "worse", tmp_path / "better"
    model_folder.save(str(worse), model(1).state_dict(), config)
    model_folder.save(str(better), model(1, scale=0.0).state_dict(), config)
    for folder in (worse, better):
        client.create_model_version("x", f"file://{folder}")
    client.set_registered_model_alias("x", "candidate", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return config, str(better), Registered("x", "2")


def settled(arranged: tuple[Config, str, Registered]) -> candidate.Decision:
    config, folder, version = arranged
    return validate_candidate.settle(config, folder, version, str(config.mlflow.tracking_uri), Interrupts())


def test_a_better_model_that_is_no_better_than_bicubic_takes_nothing(
    arranged: tuple[Config, str, Registered], capsys: pytest.CaptureFixture[str]
) -> None:
    decision = settled(arranged)
    assert not decision.holds
    assert "so it stays at version 1" in decision.reason
    assert "comparing with version 1, which is @candidate" in capsys.readouterr().out


@pytest.mark.parametrize("address", [None, ""])
def test_a_private_machine_compares_without_ray_and_keeps_its_threads(
    arranged: tuple[Config, str, Registered], monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    seen = list[int]()
    scores = validate_candidate.scores

    def noted(*arguments: Any) -> Scores:
        seen.append(torch.get_num_threads())
        return scores(*arguments)

    monkeypatch.setattr(validate_candidate, "scores", noted)
    monkeypatch.setattr(ray_runtime, "start_ray", lambda **_: pytest.fail("Ray is started"))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        settled(arranged)
        assert (seen, torch.get_num_threads()) == ([arranged[0].run.cpus_per_worker], 3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.cluster
def test_a_cluster_compares_on_its_nodes(
    arranged: tuple[Config, str, Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = settled(arranged).reason  # here
    with Nodes(cpus=2) as cluster:
        for name, value in cluster.driver_environment.items():
            if os.environ.get(name) != value:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr(validate_candidate, "scores", lambda *_: pytest.fail("compared in the driver"))
        assert settled(arranged).reason == expected


@pytest.mark.parametrize("harm", ["gone", "damaged", "foreign", "longer"])
def test_a_holder_that_cannot_be_scored_keeps_it(
    arranged: tuple[Config, str, Registered], tmp_path: Path, harm: str
) -> None:
    worse = tmp_path / "worse"
    if harm == "gone":
        (worse / "model.safetensors").unlink()
    elif harm == "damaged":
        (worse / "model.safetensors").write_bytes(b"x")
    elif harm == "foreign":
        (worse / "config.yaml").write_text("model: {layers: 3}")
    else:
        model_folder.save(str(worse), model(1, frames=9).state_dict(), Config(model=model(1, frames=9).config))
    decision = settled(arranged)
    assert not decision.holds
    assert "it stays at version 1, which cannot be compared (" in decision.reason
    client = MlflowClient(str(arranged[0].mlflow.tracking_uri))
    assert client.get_model_version_by_alias("x", "candidate").version in (1, "1")
    assert client.get_model_version("x", "2").tags[candidate.TAG] == decision.reason


def test_the_registry_is_left_as_mlflows_default(arranged: tuple[Config, str, Registered]) -> None:
    before = mlflow.get_tracking_uri()
    settled(arranged)
    assert mlflow.get_tracking_uri() == before
    assert versions.tag(arranged[2], candidate.TAG, str(arranged[0].mlflow.tracking_uri)) is not None
