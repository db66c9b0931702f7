"""The registered model behind `mlflow models serve`, in the documented requests."""

import base64
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from PIL import Image

from mana_dist.model.inference import super_resolve_window
from mana_dist.model.precision import precision_here
from tests.ports import free_ports
from tests.serve.models import register, tiny_model, window


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    tracking_uri, (port,) = register(folder), free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"]
    arguments = [*command, "-m", "models:/tiny-x4@champion", "--port", str(port)]
    # Without this tree: the model brings its own copy of the package.
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "PYTHONPATH": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it runs uvicorn by its name
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "log")
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            server.terminate()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if urllib3.request("GET", url, retries=False, timeout=5).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.3)
    pytest.fail(log.read_text())


def ask(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = urllib3.request("POST", url, json=body, retries=False, timeout=60)
    return answer.status, answer.json()


@pytest.mark.slow
def test_a_window_of_numbers_gives_the_frame_as_numbers_or_as_a_picture(url: str) -> None:
    frames = window()
    expected = super_resolve_window(tiny_model(), frames, precision=precision_here("auto", "cpu").precision)
    status, answer = ask(url, {"inputs": frames.tolist()})
    assert status == 200
    np.testing.assert_array_equal(np.array(answer["predictions"], np.uint8), expected)
    status, answer = ask(url, {"inputs": frames.tolist(), "params": {"answer": "png"}})
    assert status == 200
    picture = base64.b64decode(answer["predictions"])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture))), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": window()[:2].tolist()}, "windows of 3 RGB frames"),
        ({"inputs": window()[0].tolist()}, "does not match expected shape"),
        ({"inputs": window().tolist(), "params": {"answer": "gif"}}, "params.answer must be array or png, got 'gif'"),
        ({"frames": []}, "exactly one of the input fields"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(url: str, body: dict[str, Any], message: str) -> None:
    status, answer = ask(url, body)
    assert status == 400
    assert message in answer["message"]
    assert "stack_trace" not in answer
