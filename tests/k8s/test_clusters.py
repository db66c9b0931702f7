"""Where the Ray clusters' pods lie and what they hold: objects in memory, heads on machines that stay."""

from pathlib import Path

import pytest
from ray._private import services

from tests.k8s.manifests import OVERLAYS, Document, cluster_specs, quantity

NCCL = 2**30  # at least, of a worker with GPUs


def groups(overlay: str) -> list[tuple[str, Document]]:
    """All heads and groups of workers, by name."""
    return [
        (f"{name} {group.get('groupName', 'head')}", group)
        for name, cluster in cluster_specs(overlay)
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_lie_in_shared_memory(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own choice between /dev/shm and the disk; what it asks for without a word of ours is 30 % of memory."""
    assert len(groups(overlay)) == 16
    for name, group in groups(overlay):
        pod, box = group["template"]["spec"], group["template"]["spec"]["containers"][0]
        (shared,) = [mount["name"] for mount in box["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        (volume,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == shared]
        size, objects = quantity(volume["sizeLimit"]), int(group["rayStartParams"]["object-store-memory"])
        gpu = "nvidia.com/gpu" in box["resources"]["limits"]
        assert size / 4 < objects <= size - (NCCL if gpu else 0), name
        assert size < quantity(box["resources"]["limits"]["memory"]) / 2, name  # whose part it is
        free = int(size * 0.99)
        monkeypatch.setattr("ray._common.utils.get_system_memory", lambda: 2**41)  # not this machine's
        monkeypatch.setattr("ray._private.utils.get_shared_memory_bytes", lambda free=free: free)
        assert services.determine_plasma_store_config(objects, str(tmp_path))[0] == "/dev/shm", name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_moves_a_head(overlay: str) -> None:
    for _, cluster in cluster_specs(overlay):
        assert cluster["headGroupSpec"]["template"]["metadata"]["annotations"] == {
            "karpenter.sh/do-not-disrupt": "true",
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        }


def test_spot_nodes_are_for_workers() -> None:
    for name, group in groups("gpu-elastic"):
        node = group["template"]["spec"].get("nodeSelector", {}).get("karpenter.sh/capacity-type")
        if name.endswith(" head"):
            assert node == "on-demand", name
        elif name.endswith(" gpu"):
            assert node == "spot", name


def test_jobs_that_count_gpus_when_they_begin_have_all_of_them_by_then() -> None:
    for name, cluster in cluster_specs("gpu-elastic"):
        (group,) = cluster["workerGroupSpecs"]
        fixed = group["minReplicas"] == group["replicas"] == group["maxReplicas"]
        if name in ("RayJob/mana-evaluate", "RayJob/mana-upscale"):
            assert fixed, name
            assert group["replicas"] > 1, name
        elif name in ("RayJob/mana-train", "RayJob/mana-sweep"):
            assert not fixed, name
