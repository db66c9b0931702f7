"""Where the replicas of the app run."""

import pytest
import ray

from mana_dist.serve import ServeOptions, app
from tests.serve.models import CONFIG, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from mana_dist.registry import model_folder

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
