"""``mana serve --page`` as a process: it answers, ends on signals, and leaves nothing."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3

from mana_dist.errors import UserError
from mana_dist.model_names import PRETRAINED
from mana_dist.serve import ServeOptions
from mana_dist.serve.__main__ import main
from mana_dist.serve.web_page import local_server
from tests.conftest import RunHere
from tests.ports import free_ports
from tests.serve.models import register
from tests.train.trainings import environment


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_answers_until_a_signal_and_leaves_nothing(tmp_path: Path, number: int, code: int) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mana_dist.cli", "serve", "--page", "--port", str(port)]
    env = environment() | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"the page is at http://127.0.0.1:{port}; Ctrl-C ends it\n"
            assert b"<title>MANA</title>" in urllib3.request("GET", f"http://127.0.0.1:{port}", timeout=300).data
            kind = {"Content-Type": "application/octet-stream"}
            clips = f"http://127.0.0.1:{port}/page/clips?name=x"
            answer = urllib3.request("POST", clips, body=b"no video", headers=kind, timeout=300)
            assert (answer.status, answer.json()["detail"].partition(":")[0]) == (422, "x")
            assert len(list(tmp_path.glob("mana_dist-page-*"))) == 1
        finally:
            server.send_signal(number)
        assert server.wait(60) == code
    assert list(tmp_path.iterdir()) == []


class Opened(Exception):  # noqa: N818  # not an error: what the page was opened with
    pass


def opened_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[ServeOptions, dict[str, str], Any]:
    """The options, models and settings of the page that the command would serve."""

    def service(*given: Any) -> None:
        raise Opened(*given)

    monkeypatch.setattr(local_server, "PageService", service)
    with pytest.raises(Opened) as opened:
        main(["--page", "--port", "0", *arguments])
    options, models, settings = opened.value.args
    return options, models, settings


def test_the_options_of_the_work_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, settings = opened_with(monkeypatch, "--memory", "64", "--cpus", "3", "--device", "cpu")
    assert settings == {"device": "cpu", "precision": "auto", "threads": 3, "memory": 64}
    _, _, settings = opened_with(monkeypatch)  # the command's own defaults
    assert settings == {"device": "auto", "precision": "auto"}


def test_registered_models_are_looked_up_once_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking_uri = register(tmp_path)
    registry = ("--tracking-uri", tracking_uri)
    options, models, _ = opened_with(
        monkeypatch, *registry, "--model", "models:/tiny-x4@champion", "--page-models", str(tmp_path / "model")
    )
    assert models == {
        "models:/tiny-x4/1": "models:/tiny-x4/1",
        "model": str(tmp_path / "model"),
        PRETRAINED: PRETRAINED,
    }
    assert options.tracking_uri == tracking_uri
    with pytest.raises(UserError, match="models:/nothing@champion: not in the MLflow registry"):
        opened_with(monkeypatch, *registry, "--page-models", "models:/nothing@champion")


def test_a_port_that_is_taken_is_one_line(run_here: RunHere) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here(main, "--page", "--port", str(port))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: cannot be listened at (")
