"""What all tests of the evaluation share."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mana_dist.model import Mana
from mana_dist.registry import model_folder
from tests.evaluate.footage import CONFIG


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test waits for, or depends on, the network, nor on the caller's MLflow."""

    def no_download(*_: Any, **__: Any) -> None:
        raise OSError("offline")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.urlopen", no_download)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder: untrained, but its attention counts."""
    folder = str(tmp_path_factory.mktemp("model"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mana(CONFIG.model)
        torch.nn.init.normal_(network.attention.project.weight)
        model_folder.save(folder, network.state_dict(), CONFIG)
    return folder
