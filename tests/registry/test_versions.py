"""A registered model must work in a process of its own, from another folder, without mana_dist installed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from mana_dist import config as configuration
from mana_dist.config import Config, DataConfig, MlflowConfig, RunConfig
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig, inference
from mana_dist.registry import model_folder, versions
from mana_dist.registry.tracking_uri import artifact_location, tracking

TINY = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4)
CONFIG = Config(model=TINY, mlflow=MlflowConfig(registered_model="tiny-x4"))
SECRETS = ("/home/ann", "s3cret", "tracking.example", "hidden-name", "/scratch", "held-out")
PRIVATE = Config(
    model=TINY,
    data=DataConfig(path="/home/ann/samples", validation_path="/home/ann/held-out", crop=24, disk_cache="/scratch"),
    run=RunConfig(name="hidden-name", storage="/home/ann/runs", seed=7),
    mlflow=MlflowConfig(tracking_uri="http://ann:s3cret@tracking.example:5000", registered_model="tiny-x4"),
)

# mana_dist is blocked wherever it may be installed: it can come only from the code kept beside the model. So are the
# heavy packages that serving must not need.
CONSUMER = """
import sys, json, importlib.abc
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "deepspeed", "smart_open", "av", "cv2", "jsonargparse"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Block())
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path[:] = [entry for entry in sys.path if entry != sys.argv[3] and "__editable__" not in entry]
import numpy as np, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1], model_config={"precision": "fp32"})
frames = np.load(sys.argv[2])
np.save("frame.npy", model.predict(frames))
import mana_dist
answer = {"package": mana_dist.__file__}
try:
    model.predict(frames[:2])
except Exception as error:
    answer["error"] = str(error)
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Mana, str, int]:
    """(tracking URI, the model, run id, version) of a model registered into a fresh sqlite database."""
    folder = tmp_path_factory.mktemp("registry")
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    torch.manual_seed(0)
    model = Mana(TINY).eval()
    torch.nn.init.normal_(model.attention.project.weight)
    model_folder.save(str(folder / "checkpoint"), model.state_dict(), CONFIG)
    (folder / "checkpoint" / "optimizer.bin").write_bytes(b"x" * 100)
    client = mlflow.MlflowClient(tracking_uri)
    experiment = client.create_experiment("mana", artifact_location=artifact_location(tracking_uri))
    run_id = client.create_run(experiment).info.run_id
    version = versions.log_and_register(
        str(folder / "checkpoint"), CONFIG, run_id, tracking_uri, versions.Results({"psnr_rgb": 30.5}, step=7)
    )
    versions.move_alias(version, "candidate", tracking_uri, {})
    return tracking_uri, model, run_id, int(version.version)


def test_fresh_process_elsewhere_without_mana_dist_predicts_the_same_frame(
    registered: tuple[str, Mana, str, int], tmp_path: Path
) -> None:
    tracking_uri, model, _, _ = registered
    frames = np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    root = str(Path(versions.__file__).parents[1])
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "PYTHONPATH": ""}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    done = subprocess.run(
        [sys.executable, "-c", CONSUMER, "models:/tiny-x4@candidate", str(tmp_path / "frames.npy"), root],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert not answer["package"].startswith(root)
    assert "windows of 3 RGB frames" in answer["error"]
    frame = np.load(tmp_path / "frame.npy")
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, inference.super_resolve_window(model, frames))


def test_registering_links_model_run_metrics_and_alias(registered: tuple[str, Mana, str, int]) -> None:
    tracking_uri, _, run_id, version = registered
    client = mlflow.MlflowClient(tracking_uri)
    found = client.get_model_version_by_alias("tiny-x4", "candidate")
    assert (int(found.version), found.run_id) == (version, run_id)
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"  # registering does not end a run that goes on
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert logged.experiment_id == run.info.experiment_id
    assert [(metric.key, metric.value, metric.step) for metric in logged.metrics] == [("psnr_rgb", 30.5, 7)]
    assert "PSNR 30.50 dB" in found.description
    assert found.description.count(f"models:/tiny-x4/{version}") == 3
    assert logged.params["model.channels"] == "8"


def test_registered_model_leaves_the_optimizer_behind(registered: tuple[str, Mana, str, int], tmp_path: Path) -> None:
    with tracking(registered[0]):
        folder = mlflow.artifacts.download_artifacts(artifact_uri="models:/tiny-x4@candidate", dst_path=str(tmp_path))
    assert {path.name for path in (Path(folder) / "artifacts").rglob("*.*")} == {"model.safetensors", "config.yaml"}


def test_the_packages_own_weights_stay_behind(registered: tuple[str, Mana, str, int], tmp_path: Path) -> None:
    with tracking(registered[0]):
        folder = mlflow.artifacts.download_artifacts(artifact_uri="models:/tiny-x4@candidate", dst_path=str(tmp_path))
    package = Path(versions.__file__).parents[1]
    here = {path.relative_to(package) for path in package.rglob("*") if path.suffix in (".py", ".c", ".yaml", ".so")}
    code = Path(folder) / "code" / "mana_dist"
    there = {path.relative_to(code) for path in code.rglob("*") if path.is_file()}
    assert here - there == {Path("pretrained/config.yaml")}
    assert not (code / "pretrained").exists()


@pytest.mark.parametrize("name", ["models:/tiny-x4@candidate", "models:/tiny-x4/1"])
def test_load_from_the_registry(registered: tuple[str, Mana, str, int], name: str) -> None:
    tracking_uri, model, _, _ = registered
    loaded, config = model_folder.load(name, tracking_uri)
    assert config.model == CONFIG.model
    assert not loaded.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


@pytest.mark.parametrize(
    "name", ["models:/nobody@candidate", "models:/tiny-x4/99", "models:/tiny-x4@nobody", "models:/"]
)
def test_names_that_the_registry_does_not_hold(registered: tuple[str, Mana, str, int], name: str) -> None:
    with pytest.raises(UserError, match="not in the MLflow registry"):
        model_folder.load(name, registered[0])


def test_names_stand_for_versions_and_their_logged_models(registered: tuple[str, Mana, str, int]) -> None:
    tracking_uri, _, run_id, version = registered
    client = mlflow.MlflowClient(tracking_uri)
    model_id = client.get_run(run_id).outputs.model_outputs[0].model_id
    expected = versions.Registered("tiny-x4", str(version), model_id)
    assert versions.resolve(f"models:/tiny-x4/{version}", tracking_uri) == expected
    assert versions.resolve(expected.uri, tracking_uri) == expected
    for name in ("models:/nobody@candidate", "models:/tiny-x4/99", "models:/tiny-x4@nobody", "models:/", "folder"):
        assert versions.resolve(name, tracking_uri) is None


def test_the_latest_version_is_a_number(registered: tuple[str, Mana, str, int]) -> None:
    tracking_uri, _, _, version = registered
    for name in ("models:/tiny-x4/latest", "models:/tiny-x4/Latest"):
        found = versions.resolve(name, tracking_uri)
        assert found is not None
        assert found.uri == f"models:/tiny-x4/{version}"
    assert versions.resolve("models:/nobody/latest", tracking_uri) is None


def test_stages_are_refused_as_they_say_nothing_lasting(registered: tuple[str, Mana, str, int]) -> None:
    with pytest.raises(UserError, match="models:/tiny-x4/Production: stages are not read; write models:/tiny-x4/VERS"):
        versions.resolve("models:/tiny-x4/Production", registered[0])


def test_looking_up_a_name_makes_no_database(tmp_path: Path) -> None:
    assert versions.resolve("models:/tiny-x4/1", f"sqlite:///{tmp_path}/mlflow.db") is None
    assert list(tmp_path.iterdir()) == []


def test_an_alias_moves_and_the_version_is_tagged(registered: tuple[str, Mana, str, int]) -> None:
    tracking_uri, _, _, version = registered
    client = mlflow.MlflowClient(tracking_uri)
    versions.move_alias(versions.Registered("tiny-x4", str(version)), "champion", tracking_uri, {"why": "better"})
    found = client.get_model_version_by_alias("tiny-x4", "champion")
    assert (int(found.version), found.tags["why"]) == (version, "better")
    with pytest.raises(UserError, match="models:/tiny-x4/99: cannot become @champion"):
        versions.move_alias(versions.Registered("tiny-x4", "99"), "champion", tracking_uri, {})
    client.delete_registered_model_alias("tiny-x4", "champion")


def test_the_callers_tracking_uri_is_left_as_it_was(
    registered: tuple[str, Mana, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracking(registered[0]):
        assert mlflow.get_tracking_uri() == registered[0]
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_the_same_weights_of_a_run_are_registered_once_and_no_alias_moves(
    registered: tuple[str, Mana, str, int], tmp_path: Path
) -> None:
    """A driver that was killed after it had registered, and before it could write that down, comes here again."""
    tracking_uri, model, run_id, version = registered
    client = mlflow.MlflowClient(tracking_uri)
    client.update_model_version("tiny-x4", str(version), "")  # killed before it could describe the version
    model_folder.save(str(tmp_path / "again"), model.state_dict(), CONFIG)
    assert int(versions.log_and_register(str(tmp_path / "again"), CONFIG, run_id, tracking_uri).version) == version
    assert "Makes video 4 times" in client.get_model_version("tiny-x4", str(version)).description
    other = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model_folder.save(str(tmp_path / "other"), other, CONFIG)
    newer = versions.log_and_register(str(tmp_path / "other"), CONFIG, run_id, tracking_uri)
    assert int(newer.version) == version + 1
    assert int(client.get_model_version_by_alias("tiny-x4", "candidate").version) == version
    client.delete_model_version("tiny-x4", newer.version)


def test_a_name_that_only_logged_models_do_not_take_is_registered(
    registered: tuple[str, Mana, str, int], tmp_path: Path
) -> None:
    tracking_uri, model, run_id, _ = registered
    model_folder.save(str(tmp_path), model.state_dict(), CONFIG)
    config = replace(CONFIG, mlflow=MlflowConfig(registered_model="tiny.x4 100%"))
    found = versions.log_and_register(str(tmp_path), config, run_id, tracking_uri)
    assert versions.resolve(found.uri, tracking_uri) == found


def test_nothing_private_of_the_run_goes_into_the_registry(tmp_path: Path) -> None:
    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder = tmp_path / "model"
    model_folder.save(str(folder), Mana(TINY).state_dict(), PRIVATE)
    (folder / "config.yaml").write_text(configuration.to_yaml(PRIVATE))  # as older versions wrote it
    client = mlflow.MlflowClient(tracking_uri)
    experiment = client.create_experiment("mana", artifact_location=artifact_location(tracking_uri))
    run_id = client.create_run(experiment).info.run_id
    version = versions.log_and_register(str(folder), PRIVATE, run_id, tracking_uri)
    with tracking(tracking_uri):
        got = mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=str(tmp_path / "got"))
    files = [path for path in Path(got).rglob("*") if path.is_file() and path.suffix != ".py"]
    assert {"config.yaml", "model.safetensors", "MLmodel"} <= {path.name for path in files}
    logged = client.get_logged_model(str(version.model_id))
    told = b"".join(path.read_bytes() for path in files) + json.dumps([logged.params, logged.tags]).encode()
    for secret in SECRETS:
        assert secret.encode() not in told, secret
    assert (logged.params["run.seed"], logged.params["data.crop"]) == ("7", "24")


def test_a_registry_that_refuses_is_one_line(registered: tuple[str, Mana, str, int], tmp_path: Path) -> None:
    tracking_uri, model, run_id, _ = registered
    model_folder.save(str(tmp_path), model.state_dict(), CONFIG)
    config = replace(CONFIG, mlflow=MlflowConfig(registered_model="a/b:c"))
    with pytest.raises(UserError, match="cannot be registered as a/b:c at .*Names cannot contain"):
        versions.log_and_register(str(tmp_path), config, run_id, tracking_uri)
