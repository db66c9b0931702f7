"""``mana serve --page`` as a process: it answers, ends on signals, and leaves nothing."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from mana_dist.serve.__main__ import main
from tests.conftest import RunHere
from tests.ports import free_ports
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
            assert b"<title>MANA</title>" in urllib3.request("GET", f"http://127.0.0.1:{port}", timeout=60).data
            kind = {"Content-Type": "application/octet-stream"}
            clips = f"http://127.0.0.1:{port}/page/clips?name=x"
            answer = urllib3.request("POST", clips, body=b"no video", headers=kind, timeout=60)
            assert (answer.status, answer.json()["detail"].partition(":")[0]) == (422, "x")
            assert len(list(tmp_path.glob("mana_dist-page-*"))) == 1
        finally:
            server.send_signal(number)
        assert server.wait(60) == code
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_one_line(run_here: RunHere) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here(main, "--page", "--port", str(port))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: cannot be listened at (")
