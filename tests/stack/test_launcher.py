"""The cluster launcher's files, by Ray's own validation, which `ray up` begins with."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import REPOSITORY

FILES = ("aws-gpu", "gcp-gpu", "on-premise")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster" / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


def validated(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", FILES)
def test_rays_validation_takes_it(name: str) -> None:
    config = validated(load(name))
    assert sum(kind["max_workers"] for kind in config["available_node_types"].values()) == config["max_workers"] > 0
    assert config["docker"]["image"].endswith(":0.1.0")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("key", "value", "message"), [("max_worker", 2, "max_worker"), ("auth", {"ssh_usr": "ubuntu"}, "ssh_usr")]
)
def test_rays_validation_refuses_a_mistake(name: str, key: str, value: object, message: str) -> None:
    with pytest.raises(Exception, match=message):
        validated(load(name) | {key: value})


def test_a_head_that_no_node_type_describes_is_refused() -> None:
    with pytest.raises(ValueError, match="head_node_type"):
        validated(load("aws-gpu") | {"head_node_type": "heda"})


@pytest.mark.parametrize("name", FILES)
def test_every_node_asks_for_the_token_and_the_dashboard_stays_inside(name: str) -> None:
    config = load(name)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in line or "RAY_AUTH_MODE=token RAY_" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize(("name", "identity"), [("aws-gpu", "IamInstanceProfile"), ("gcp-gpu", "serviceAccounts")])
def test_workers_do_not_have_the_heads_rights(name: str, identity: str) -> None:
    """The head starts and ends machines; a job on a worker must not."""
    head, worker = (load(name)["available_node_types"][kind]["node_config"] for kind in ("head", "gpu"))
    assert head[identity]
    assert worker[identity]
    assert head[identity] != worker[identity]


def test_no_file_has_a_secret() -> None:
    texts = [path.read_text(encoding="utf-8") for path in Path(REPOSITORY / "cluster").glob("*.yaml")]
    assert len(texts) == len(FILES) + 1
    for text in texts:
        assert not re.search(r"(?i)(password|secret\w*|token):? +['\"]?\w", re.sub("RAY_AUTH_MODE=token.*", "", text))
