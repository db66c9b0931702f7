"""Where the replicas of the app run, and which model they hold."""

import pytest
import ray

from mana_dist import ray_runtime
from mana_dist.errors import UserError
from mana_dist.registry import model_folder, pretrained
from mana_dist.serve import ServeOptions, app
from mana_dist.serve.__main__ import main
from mana_dist.serve.web_page.offered_models import offered
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


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_page_has_one_replica_and_the_precision_of_the_others(
    model: str, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, **({"GPU": float(gpus)} if gpus else {})})
    more = f"{model}, pretrained"
    options = ServeOptions(
        model=model, page=True, page_models=more, precision="bf16", cpus=2, memory=64, page_client_header="X-Real-IP"
    )
    given = app(options)._bound_deployment.init_kwargs
    page = given["service"]._bound_deployment
    assert (page.name, page.num_replicas, given["client_header"]) == ("Page", 1, "X-Real-IP")
    assert page.ray_actor_options["num_gpus"] == min(gpus, 1)
    _, models, settings = page.init_args
    assert models == {"model": model, "pretrained": "pretrained"}
    assert settings == {"device": "cuda" if gpus else "cpu", "precision": "bf16", "threads": 2, "memory": 64}
    assert app(ServeOptions(model=model, precision="fp32"))._bound_deployment.init_kwargs == {}


def test_models_of_one_name_are_told_apart_without_their_paths() -> None:
    names = offered(["runs/a/model", "s3://bucket/b/model/", "models:/x/1", "pretrained", "runs/a/model"])
    assert names == {
        "model": "runs/a/model",
        "model 2": "s3://bucket/b/model/",
        "models:/x/1": "models:/x/1",
        "pretrained": "pretrained",
    }


def test_the_command_serves_the_page_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from mana_dist.serve.web_page import local_server

    served: list[tuple[ServeOptions, str, int]] = []
    monkeypatch.setattr(local_server, "serve_page", lambda *given: served.append(given))
    main(["--page", "--page-keep", "60", "--port", "9000", "--host", "0.0.0.0"])
    ((options, host, port),) = served
    assert (options.page, options.page_keep, host, port) == (True, 60, "0.0.0.0", 9000)
    with pytest.raises(UserError, match="model nowhere: no such folder"):
        main(["--page", "--page-models", "pretrained, nowhere"])
    with pytest.raises(UserError, match="--page-frames: Input should be greater than or equal to 1, got 0"):
        main(["--page", "--page-frames", "0"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--page --replicas 2 --max-batch 4 --batch-wait 1 --max-queued 9 --max-request 8 --memory 64",
            "--batch-wait, --max-batch, --max-queued, --max-request, --replicas: not with --page",
        ),
        ("--page-clips 3 --page-models pretrained --replicas 2", "--page-clips, --page-models: only with --page"),
    ],
)
def test_options_that_nothing_would_heed_are_refused(arguments: str, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}$"):
        main(arguments.split())


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
