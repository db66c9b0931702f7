"""Where the replicas of the app run, and which model they hold."""

import pytest
import ray

from mana_dist import ray_runtime
from mana_dist.errors import UserError
from mana_dist.registry import model_folder, pretrained
from mana_dist.serve import ServeOptions, app
from mana_dist.serve.__main__ import main
from tests.serve.models import CONFIG, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("model") / "model")
    model_folder.save(folder, tiny_model().state_dict(), CONFIG)
    return folder


@pytest.mark.parametrize(
    ("device", "gpus", "asked"), [("cuda", 0, 1), ("cuda", 4, 1), ("auto", 0, 0), ("auto", 4, 1), ("cpu", 4, 0)]
)
def test_replicas_ask_for_a_gpu(
    model: str, device: str, gpus: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cuda`` even where no GPU is yet: when KubeRay deploys the app, the workers that have them may be missing."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, **({"GPU": float(gpus)} if gpus else {})})
    front = app(ServeOptions.model_validate({"model": model, "device": device, "precision": "fp32"}))
    upscaler = front._bound_deployment.init_args[0]._bound_deployment
    assert upscaler.name == "Upscaler"
    assert upscaler.ray_actor_options["num_gpus"] == asked
    assert upscaler.init_args[1] == ("cuda" if asked else "cpu")


def test_the_model_in_the_package_is_served_by_its_name() -> None:
    """Replicas on other machines have it elsewhere; the front says whose weights they are."""
    front = app(ServeOptions(precision="fp32"))
    upscaler, _, shown = front._bound_deployment.init_args
    assert upscaler._bound_deployment.init_args[0].model == "pretrained"
    assert shown == f"pretrained ({model_folder.digest(pretrained.folder())[:12]})"


def test_the_command_says_first_which_model_it_takes_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_cluster(cpus: int) -> None:
        raise UserError(f"no room for {cpus} CPUs")

    monkeypatch.setattr(ray_runtime, "start_ray", no_cluster)
    with pytest.raises(UserError, match="no room"):
        main([])
    assert capsys.readouterr().out.startswith("model: pretrained (version ")
    with pytest.raises(UserError, match="no room"):
        main(["--model", pretrained.folder()])
    assert capsys.readouterr().out == ""
