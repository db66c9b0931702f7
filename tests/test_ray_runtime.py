"""A private cluster in a process that has Ray already, as a notebook's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mana_dist import ray_runtime
from mana_dist.errors import UserError

PROGRAM = """
import ray
from mana_dist import ray_runtime
ray_runtime.start_ray(cpus=1)
print("answer", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""


def printed(program: str, home: Path, **ours: str) -> list[str]:
    """Return the words that a program prints in a process of its own, without variables of Ray's but ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(home), **ours},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


TWICE = f"""{PROGRAM}
import os
from ray._private import worker
node = worker._global_node
print(os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]), node.dashboard_agent_listen_port)
print(",".join(node.all_processes))
ray.shutdown()
os.environ["RAY_AUTH_TOKEN"] = "b" * 64
{PROGRAM}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def said(home: Path) -> list[str]:
    """What a program with two private clusters, one after the other, prints."""
    return printed(TWICE, home)


@pytest.mark.slow
def test_a_process_that_imported_ray_before_gets_its_private_cluster_with_a_token(said: list[str], home: Path) -> None:
    assert said[:4] == ["answer", "42", "token", "64"]
    assert not (home / ".ray").exists()  # no token is left for others to find


@pytest.mark.slow
def test_a_private_cluster_leaves_the_default_port_of_agents_to_others(said: list[str]) -> None:
    """Beside another cluster it would wait for that port, and another would take no jobs without it."""
    assert int(said[4]) > 0
    assert int(said[4]) != 52365


@pytest.mark.slow
def test_a_second_cluster_of_a_process_has_the_token_that_the_environment_has_by_then(said: list[str]) -> None:
    assert said[6:] == ["answer", "42"]


@pytest.mark.slow
def test_a_private_cluster_starts_no_process_that_it_has_no_use_for(said: list[str]) -> None:
    started = set(said[5].split(","))
    assert started >= {"gcs_server", "raylet"}  # as this version of Ray names them
    assert not started & {"log_monitor", "monitor"}


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that Ray is asked for, which does not come up in time the first two times."""
    import ray

    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) <= 2:
            raise Exception("The current node timed out during startup.\nThis could happen")  # as Ray does

    monkeypatch.setattr(os, "environ", {"RAY_AUTH_MODE": "disabled"})
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    return asked


def test_a_ray_that_is_not_up_in_time_is_started_once_more_and_then_a_line(starts: list[str]) -> None:
    with pytest.raises(UserError, match=r"cannot start Ray on this machine \(The current node timed out .*; if it is"):
        ray_runtime.start_ray()
    assert starts == ["local", "local"]
    starts[:] = ["local"]
    ray_runtime.start_ray()
    assert starts == ["local", "local", "local"]


def test_a_start_that_failed_leaves_no_process(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would stay beside the next start's, for as long as the program runs."""
    import ray
    from ray._private import services

    left: list[subprocess.Popen[bytes]] = []

    def init(**_: object) -> None:
        left.append(services.ConsolePopen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        if len(left) == 1:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    ray_runtime.start_ray()
    first, second = left
    try:
        assert first.wait(60) == -signal.SIGKILL
        assert second.poll() is None
        assert os.getpgid(second.pid) == second.pid
    finally:
        second.kill()
        second.wait()


def test_a_cluster_that_cannot_be_joined_is_a_line(starts: list[str]) -> None:
    os.environ["RAY_ADDRESS"] = "10.0.0.1:6379"
    with pytest.raises(UserError, match="cannot join the Ray cluster RAY_ADDRESS=10.0.0.1:6379: The current node"):
        ray_runtime.start_ray()
    assert starts == ["10.0.0.1:6379"]


NODES = """
import functools
import ray
from ray.cluster_utils import Cluster
from mana_dist.ray_runtime import ask_nodes

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
others = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=0, num_gpus=1)]
ray.init(address=cluster.address, log_to_driver=False)
where = functools.partial(lambda kind: getattr(ray.get_runtime_context(), f"get_{kind}_id")(), "node")
print(sorted(ask_nodes(where, gpus=False)) == sorted([cluster.head_node.node_id, others[0].node_id]))
print(ask_nodes(where, gpus=True) == [others[1].node_id])
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_every_node_with_cpus_or_with_gpus_is_asked_once(tmp_path: Path) -> None:
    ours = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    assert printed(NODES, tmp_path, **ours) == ["True", "True"]


def test_a_ray_that_runs_already_keeps_its_settings(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    reloaded: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_runtime, "_reload_authentication", lambda: reloaded.append("token"))
    ray_runtime.start_ray()
    assert (starts, reloaded) == ([], [])
