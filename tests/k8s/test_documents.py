"""What the documents tell people to type."""

import re

import pytest
import yaml
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

from tests.k8s.manifests import REPOSITORY, named

DOCUMENTS = ("README.md", "docs/cluster.md", "k8s/README.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_overlay_is_applied_as_a_whole(name: str) -> None:
    """It would start every job, both interactive clusters and the serving app at once."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    lines = re.findall(r"kubectl apply -k.*", text)
    assert lines
    assert all(re.match(r"kubectl apply -k \S+ -l mana-dist/part=", line) for line in lines)


def test_kueues_objects_belong_together() -> None:
    text = (REPOSITORY / "k8s" / "README.md").read_text(encoding="utf-8")
    block = re.split(r"```\n", text.split("**Kueue.**")[1])[1]
    objects = {item["kind"]: item for item in yaml.safe_load_all(block)}
    assert set(objects) == {"ResourceFlavor", "LocalQueue", "ClusterQueue"}
    queue = objects["LocalQueue"]
    job = named("gpu", "RayJob", "mana-train")
    assert queue["metadata"]["name"] == job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert queue["metadata"]["namespace"] == job["metadata"]["namespace"]
    assert queue["spec"]["clusterQueue"] == objects["ClusterQueue"]["metadata"]["name"]
    (group,) = objects["ClusterQueue"]["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == objects["ResourceFlavor"]["metadata"]["name"]
    assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]


def test_a_copy_with_a_password_stays_here() -> None:
    """docs/cluster.md tells to make cluster/runtime-env.yaml: Git and `--working-dir .` leave it out."""
    rules = get_excludes_from_ignore_files(REPOSITORY, include_gitignore=True)  # of either file one
    assert len(rules) == 2
    for leaves_out in rules:
        assert leaves_out(REPOSITORY / "cluster" / "runtime-env.yaml")
        assert not leaves_out(REPOSITORY / "cluster" / "runtime-env.example.yaml")
