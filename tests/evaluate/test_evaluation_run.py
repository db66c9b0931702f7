"""Evaluations in MLflow: what is logged where, and aliases that move in a real registry."""

import hashlib
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from mana_dist.errors import UserError
from mana_dist.evaluate.evaluation_run import keys
from mana_dist.model import Mana
from mana_dist.model.inference import super_resolve
from mana_dist.registry import model_folder, versions
from mana_dist.registry.tracking_uri import experiment_id, tracking
from tests.evaluate.footage import CONFIG, evaluate, frames_of, mean_of, write_folder

NAME = CONFIG.registered_model
CANDIDATE, CHAMPION = f"models:/{NAME}@candidate", f"models:/{NAME}@champion"


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with two versions: 1 is plain interpolation (its residual is zero), 2 is worse than that."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    run = client.create_run(experiment_id(client, "trainings")).info.run_id
    torch.manual_seed(0)
    for scale in (0.0, 1.0):
        state = {name: tensor * scale for name, tensor in Mana(CONFIG.model).state_dict().items()}
        model_folder.save(str(folder / "model"), state, CONFIG)
        versions.log_and_register(str(folder / "model"), CONFIG, run, uri)
    return uri


@pytest.fixture
def client(tracking_uri: str) -> Any:
    client = mlflow.MlflowClient(tracking_uri)
    client.set_registered_model_alias(NAME, "candidate", "2")
    client.set_registered_model_alias(NAME, "champion", "1")
    return client


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "data" / "walk", frames_of(2)).parent)


def version(client: Any, alias: str) -> str:
    return str(client.get_model_version_by_alias(NAME, alias).version)


def newest_run(client: Any, experiment: str) -> Any:
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1)
    return client.get_run(run.info.run_id)  # the search leaves a run's models out


def test_a_run_holds_protocol_numbers_report_and_data(
    tmp_path: Path, client: Any, tracking_uri: str, data: str
) -> None:
    report = evaluate(
        tmp_path / "out",
        *["--data", data, "--method", "bicubic", CANDIDATE],
        *["--tracking-uri", tracking_uri, "--experiment", "comparisons", "--top-motion", "1"],
    )
    run = newest_run(client, "comparisons")
    assert run.info.status == "FINISHED"
    assert run.data.params["degradation"] == "BI"
    assert "candidate is models:/" in run.data.params["models"]
    assert run.data.metrics["bicubic/psnr_rgb"] == mean_of(report)["psnr_rgb"]
    key = f"models_{NAME}_candidate"
    assert run.data.metrics[f"{key}/ssim_y"] == mean_of(report, CANDIDATE)["ssim_y"]
    assert f"{key}/top_motion/psnr_rgb" in run.data.metrics
    assert "bicubic/lpips" not in run.data.metrics
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"metrics.json", "report.html", "report.md"} <= files
    assert json.loads(Path(client.download_artifacts(run.info.run_id, "metrics.json")).read_text()) == report


def test_the_model_has_its_numbers_and_the_dataset_that_they_are_of(
    tmp_path: Path, client: Any, tracking_uri: str, data: str
) -> None:
    report = evaluate(
        tmp_path / "out",
        *["--data", data, "--method", CANDIDATE],
        *["--tracking-uri", tracking_uri, "--experiment", "linked"],
    )
    (entry,) = report["protocol"]["datasets"]
    run = newest_run(client, "linked")
    (dataset,) = [found.dataset for found in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("data", entry["digest"])
    assert json.loads(dataset.source) == {"uri": data}
    model_id = client.get_model_version(NAME, "2").source.removeprefix("models:/")
    assert [found.model_id for found in run.inputs.model_inputs] == [model_id]
    linked = [metric for metric in client.get_logged_model(model_id).metrics if metric.run_id == run.info.run_id]
    values = {metric.key: metric.value for metric in linked}
    assert values["psnr_rgb"] == mean_of(report, CANDIDATE)["psnr_rgb"]
    assert {(metric.dataset_name, metric.dataset_digest) for metric in linked if metric.key == "psnr_rgb"} == {
        ("data", entry["digest"])
    }


def test_the_digest_is_of_the_frames_wherever_they_lie(tmp_path: Path) -> None:
    frames = frames_of(3)
    write_folder(tmp_path / "set" / "GT" / "walk", frames)
    write_folder(tmp_path / "clips" / "walk", frames)
    write_folder(tmp_path / "others" / "walk", frames[::-1])
    digests = [
        evaluate(tmp_path / name / "out", "--data", str(tmp_path / name), "--method", "bicubic")["protocol"][
            "datasets"
        ][0]
        for name in ("set", "clips", "others")
    ]
    assert digests[0]["digest"] == digests[1]["digest"] != digests[2]["digest"]


def test_a_better_model_becomes_champion_and_a_worse_one_does_not(
    tmp_path: Path, client: Any, tracking_uri: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--tracking-uri", tracking_uri, "--experiment", "promotions", "--promote-if"]
    report = evaluate(tmp_path / "1", "--method", CANDIDATE, "--data", data, *arguments, "psnr_rgb > @champion")
    # The champion was evaluated on the same data, and bicubic, which whoever takes its place must beat too.
    assert set(report["methods"]) == {CANDIDATE, CHAMPION, "bicubic"}
    assert not report["promotion"]["promoted"]
    assert version(client, "champion") == "1"
    assert f"promotion: @champion of {NAME} stays where it is: psnr_rgb > @champion does not" in capsys.readouterr().out
    assert newest_run(client, "promotions").data.tags["mana_dist.promoted"] == "false"

    # Of these clips the candidate's own output is the truth.
    frames = frames_of(2)[:, ::4, ::4]
    model, _ = model_folder.load(CANDIDATE, tracking_uri)
    write_folder(tmp_path / "its" / "LR" / "walk", frames)
    write_folder(tmp_path / "its" / "HR" / "walk", np.stack(list(super_resolve(model, frames))))
    conditions = ["psnr_y > @champion + 0.05", "ssim_rgb > @champion"]
    given = ["--data", str(tmp_path / "its"), "--lr", "given"]
    report = evaluate(tmp_path / "2", "--method", CANDIDATE, *given, *arguments, *conditions)
    assert report["promotion"]["promoted"]
    assert version(client, "champion") == "2"
    assert f"promotion: @champion of {NAME} moves to version 2" in capsys.readouterr().out
    assert newest_run(client, "promotions").data.tags["mana_dist.promoted"] == "true"
    assert "moves to version 2" in client.get_model_version(NAME, "2").tags["mana_dist.promotion"]


def test_better_than_a_bad_champion_but_not_than_bicubic(
    tmp_path: Path, client: Any, tracking_uri: str, data: str
) -> None:
    client.set_registered_model_alias(NAME, "candidate", "1")
    client.set_registered_model_alias(NAME, "champion", "2")
    arguments = ["--data", data, "--tracking-uri", tracking_uri, "--promote-if", "psnr_rgb > @champion"]
    report = evaluate(tmp_path / "1", "--method", CANDIDATE, *arguments)
    assert mean_of(report, CHAMPION)["psnr_rgb"] < mean_of(report, CANDIDATE)["psnr_rgb"] < mean_of(report)["psnr_rgb"]
    assert not report["promotion"]["promoted"]
    assert version(client, "champion") == "2"


def test_the_first_champion(tmp_path: Path, client: Any, tracking_uri: str, data: str) -> None:
    arguments = ["--data", data, "--tracking-uri", tracking_uri, "--promote-if", "psnr_rgb > @nobody-yet"]
    report = evaluate(tmp_path / "1", "--method", CANDIDATE, *arguments)
    assert set(report["methods"]) == {CANDIDATE}
    assert version(client, "nobody-yet") == "2"
    assert report["promotion"]["reasons"] == ["there is no @nobody-yet yet"]
    client.delete_registered_model_alias(NAME, "nobody-yet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", CANDIDATE, "--promote-if", "psnr_rgb is better"], "write METRIC OP @ALIAS"),
        (["--method", "bicubic", "--promote-if", "psnr_rgb > @champion"], "names no registered model"),
        (["--method", CANDIDATE, "--promote-if", "psnr_rgb > @v2"], "alias 'v2': MLflow refuses this name"),
        (["--method", "bicubic", "--experiment", ""], "--experiment '': MLflow refuses this name"),
        (["--method", f"models:/{NAME}/99"], "not in the MLflow registry"),
        (["--method", f"models:/{NAME}/Production"], f"stages are not read; write models:/{NAME}/VERSION"),
    ],
)
def test_mistakes_are_named_before_any_work(
    tmp_path: Path, client: Any, tracking_uri: str, data: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "out", "--data", data, "--tracking-uri", tracking_uri, *arguments)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_server_that_is_away_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="--tracking-uri http://127.0.0.1:9 cannot be used"):
        evaluate(tmp_path / "out", "--data", data, "--method", "bicubic", "--tracking-uri", "http://127.0.0.1:9")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_numbers_of_a_dataset_stay_apart_from_those_of_others_and_of_the_large_motion(
    tmp_path: Path, client: Any, tracking_uri: str
) -> None:
    sets = ("a x", "a_x", "top_motion")
    for seed, name in enumerate(sets):
        write_folder(tmp_path / name / f"clip{seed}", frames_of(2, seed, step=seed + 1))
    report = evaluate(
        tmp_path / "out",
        *["--data", *(str(tmp_path / name) for name in sets), "--method", "bicubic", "--top-motion", "1"],
        *["--tracking-uri", tracking_uri, "--experiment", "collisions"],
    )
    run = newest_run(client, "collisions")
    expected = [report["methods"]["bicubic"]["datasets"][name]["psnr_rgb"] for name in sets]
    assert len(set(expected)) == 3
    logged = [run.data.metrics[f"bicubic/{key}/psnr_rgb"] for key in ("a_x", "a_x_2", "top_motion_2")]
    assert logged == expected
    top = report["top_motion"]["methods"]["bicubic"]["psnr_rgb"]
    assert run.data.metrics["bicubic/top_motion/psnr_rgb"] == top


def test_names_of_any_length_are_logged(tmp_path: Path, client: Any, tracking_uri: str) -> None:
    """MLflow takes 250 characters in a metric's name: method and dataset together have more here."""
    data = [str(write_folder(tmp_path / (letter * 200) / letter, frames_of(1)).parent) for letter in "xy"]
    report = evaluate(
        tmp_path / "out",
        *["--data", *data, "--method", *(f"frames:{'m' * 300}{ending}={tmp_path}" for ending in "12")],
        *["--tracking-uri", tracking_uri, "--experiment", "long-names"],
    )
    run = newest_run(client, "long-names")
    assert run.info.status == "FINISHED"
    scores = [key for key in run.data.metrics if key.endswith("/ssim_rgb")]
    assert len(scores) == 2 * (1 + 2)  # of each method the mean, and that of each dataset
    assert max(map(len, scores)) <= 250
    assert len(report["methods"]) == 2


def test_an_artifact_store_that_fails_ends_the_run_and_the_numbers_are_named(
    tmp_path: Path, client: Any, tracking_uri: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    experiment = client.create_experiment("on-s3", artifact_location="s3://bucket/runs")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="could not be logged .*credentials") as raised:
        evaluate(
            out,
            *["--data", data, "--method", "bicubic", "--tracking-uri", tracking_uri, "--experiment", "on-s3"],
        )
    assert f"its numbers are in {out / 'metrics.json'}" in str(raised.value)
    assert (out / "metrics.json").exists()
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FAILED"


def test_the_latest_version_is_pinned_and_reported(tmp_path: Path, client: Any, tracking_uri: str, data: str) -> None:
    name = f"models:/{NAME}/latest"
    report = evaluate(tmp_path / "out", "--data", data, "--tracking-uri", tracking_uri, "--method", name)
    (source,) = report["protocol"]["models"]
    assert (source["name"], source["uri"]) == (name, f"models:/{NAME}/2")
    weights = registry_weights(tracking_uri, tmp_path / "2", f"models:/{NAME}/2")
    assert source["sha256"] == hashlib.sha256(weights).hexdigest()


def registry_weights(tracking_uri: str, folder: Path, name: str) -> bytes:
    """Of a version, as MLflow itself downloads them."""
    folder.mkdir()
    with tracking(tracking_uri):
        mlflow.artifacts.download_artifacts(artifact_uri=name, dst_path=str(folder))
    (file,) = folder.rglob("model.safetensors")
    return file.read_bytes()


def test_method_names_as_keys_stay_apart() -> None:
    names = ["bicubic", "models:/x@a", "models:/x_a", "runs/first/model", "ünï", "::", "??"]
    assert keys(names) == ["bicubic", "models_x_a", "models_x_a_2", "runs_first_model", "n", "unnamed", "unnamed_2"]


def test_long_names_as_keys_are_short_and_stay_apart() -> None:
    names = ["x" * 300, "x" * 299 + "y", "x" * 100, "x" * 300]
    found = keys(names, taken=["x" * 100])
    assert len(set(found)) == 4
    assert max(map(len, found)) <= 110
    assert found[2] == "x" * 100 + "_2"
    assert keys(names[:1]) == keys(names[:1]) != keys(names[1:2])
