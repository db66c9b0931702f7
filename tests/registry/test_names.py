"""Names for MLflow: what its registry refuses is refused before the work, what it takes is taken."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mana_dist.config import MlflowConfig, parse
from mana_dist.errors import UserError
from mana_dist.registry.names import check_alias, check_names


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """Of a registry of its own, which tells what it takes."""
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('names')}/mlflow.db")


@pytest.mark.parametrize("name", ["", " ", "a/b:c", "a:b", "a/b", "..", "."])
def test_models_that_the_registry_refuses(client: MlflowClient, name: str) -> None:
    with pytest.raises(MlflowException):
        client.create_registered_model(name)
    with pytest.raises(
        UserError, match=r"^mlflow\.registered_model '.*': MLflow refuses this name .*; give another, or"
    ):
        check_names(MlflowConfig(registered_model=name))


@pytest.mark.parametrize("name", ["mana-x4", "mana.v2", "Ünï 4", "null", "a%b"])
def test_models_that_the_registry_takes(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    check_names(MlflowConfig(registered_model=name))


@pytest.mark.parametrize("name", ["a@b", "it's", "x" * 257, "a\nb", " a", "a\x00"])
def test_models_that_could_not_be_found_again(name: str) -> None:
    with pytest.raises(UserError, match=r"^mlflow\.registered_model "):
        check_names(MlflowConfig(registered_model=name))


def test_null_leaves_models_unregistered(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("mlflow: {registered_model: null}")
    for arguments in (["--mlflow.registered_model", "null"], ["--config", str(file)]):
        config = parse(arguments)
        assert config.mlflow.registered_model is None
        check_names(config.mlflow)


@pytest.mark.parametrize("name", ["", "x" * 501])
def test_experiments_that_mlflow_refuses(client: MlflowClient, name: str) -> None:
    with pytest.raises(MlflowException):
        client.create_experiment(name)
    with pytest.raises(UserError, match=r"^mlflow\.experiment '.*': MLflow refuses"):
        check_names(MlflowConfig(experiment=name))


def test_an_experiment_that_is_null(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("mlflow: {experiment: null}")
    with pytest.raises(UserError, match=r"mlflow\.experiment None"):
        check_names(parse(["--config", str(file)]).mlflow)


@pytest.mark.parametrize("alias", ["a.b", "latest", "v2", "x" * 256])
def test_aliases_that_the_registry_refuses(client: MlflowClient, alias: str) -> None:
    client.get_registered_model("mana-x4")
    with pytest.raises(MlflowException):
        client.set_registered_model_alias("mana-x4", alias, "1")
    with pytest.raises(UserError, match=r"MLflow refuses this name"):
        check_alias(alias, "alias")


def test_a_run_name_that_is_too_long_for_its_column() -> None:
    check_names(MlflowConfig(), "x" * 250)
    with pytest.raises(UserError, match=r"run\.name has 251 characters"):
        check_names(MlflowConfig(), "x" * 251)
