"""The Serve app over HTTP: the right frame from either kind of body, clear refusals, 503 when too many wait."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import numpy as np
import pytest
import urllib3
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from mana_dist.errors import UserError
from mana_dist.model.inference import Frames, super_resolve_window
from mana_dist.serve import ServeOptions
from mana_dist.serve.__main__ import main
from tests.ports import free_ports
from tests.serve.models import register, tiny_model, window
from tests.serve.test_windows import npy, picture
from tests.train.trainings import environment


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return register(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def url(tracking_uri: str) -> Iterator[str]:
    """Of the app on a private Ray cluster: batches of two, two batches at a time, and four requests may wait."""
    from mana_dist import ray_runtime

    ray_runtime.start_ray(cpus=4)
    import ray
    from ray import serve

    from mana_dist.serve import app

    (port,) = free_ports(1)
    serve.start(http_options={"port": port})
    options = ServeOptions(
        model="models:/tiny-x4@champion",
        tracking_uri=tracking_uri,
        max_batch=2,
        max_queued=4,
        max_request=1,
        precision="fp32",
    )
    serve.run(app(options))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def post(url: str, frames: Frames) -> urllib3.BaseHTTPResponse:
    headers = {"Content-Type": "application/x-npy"}
    return urllib3.request("POST", f"{url}/upscale", body=npy(frames), headers=headers, retries=False, timeout=60)


def pixels(answer: urllib3.BaseHTTPResponse) -> NDArray[np.uint8]:
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png"), answer.data
    return np.asarray(Image.open(io.BytesIO(answer.data)))


@pytest.mark.slow
def test_the_middle_frame_comes_back_upscaled(url: str) -> None:
    frames = window()
    expected = super_resolve_window(tiny_model(), frames)
    np.testing.assert_array_equal(pixels(post(url, frames)), expected)
    files = [("frames", (f"im{n}.png", picture(frame), "image/png")) for n, frame in enumerate(frames)]
    answer = urllib3.request("POST", f"{url}/upscale", fields=files, retries=False)
    np.testing.assert_array_equal(pixels(answer), expected)


@pytest.mark.slow
def test_requests_at_once_get_their_own_frames(url: str) -> None:
    windows = [window(12 + seed % 2, 10, seed) for seed in range(4)]
    model = tiny_model()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda frames: post(url, frames), windows))
    for frames, answer in zip(windows, answers, strict=True):
        difference = pixels(answer).astype(int) - super_resolve_window(model, frames)
        assert np.abs(difference).max() <= 1  # a batch may round differently


@pytest.mark.slow
def test_health_tells_what_is_served(url: str) -> None:
    answer = urllib3.request("GET", f"{url}/healthz", retries=False)
    told = answer.json()
    assert (answer.status, told["status"], told["frames"], told["replicas"]) == (200, "ok", 3, 1)
    assert told["model"].startswith("models:/tiny-x4/1 (")  # the version that the alias meant


@pytest.mark.slow
def test_wrong_requests_get_one_line(url: str) -> None:
    answers = {
        413: post(url, np.zeros((3, 400, 400, 3), np.uint8)),
        415: urllib3.request("POST", f"{url}/upscale", body=b"{}", headers={"Content-Type": "application/json"}),
        422: post(url, window()[:2]),
    }
    assert {status: answer.status for status, answer in answers.items()} == {413: 413, 415: 415, 422: 422}
    assert answers[413].json() == {
        "detail": "the body is longer than 1 MiB, the server's max_request; send smaller frames"
    }
    # Without a length the server stops reading at the limit.
    endless = (bytes(65536) for _ in range(1000))
    headers = {"Content-Type": "application/x-npy", "Transfer-Encoding": "chunked"}
    answer = urllib3.request("POST", f"{url}/upscale", body=endless, headers=headers, retries=False)
    assert answer.status == 413
    assert urllib3.request("GET", f"{url}/upscale").status == 405


def replica_process() -> int:
    """Of the model's only replica."""
    from ray.serve.context import _get_global_client

    details = _get_global_client().get_serve_details()
    (replica,) = details["applications"]["default"]["deployments"]["Upscaler"]["replicas"]
    return int(replica["pid"])


@pytest.mark.slow
def test_too_many_requests_are_told_to_come_again_later(url: str) -> None:
    frames = window()
    replica = replica_process()
    with ThreadPoolExecutor(16) as threads:
        os.kill(replica, signal.SIGSTOP)  # so none can be answered before all have come
        try:
            asked = [threads.submit(post, url, frames) for _ in range(16)]
            wait(asked, timeout=30, return_when=FIRST_COMPLETED)
        finally:
            os.kill(replica, signal.SIGCONT)
        answers = [one.result() for one in asked]
    assert {answer.status for answer in answers} == {200, 503}
    busy = next(answer for answer in answers if answer.status == 503)
    assert busy.json() == {"detail": "too many requests wait already; try again later"}
    assert busy.headers["retry-after"] == "1"
    pixels(post(url, frames))  # and later it answers


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValidationError, match="max_batches"):
        ServeOptions(model="x", max_batches=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="max_batch"):
        ServeOptions(model="x", max_batch=0)


@pytest.mark.slow
def test_serve_run_ends_with_one_line_for_a_wrong_model(tracking_uri: str) -> None:
    command = [sys.executable, "-m", "ray.serve.scripts", "run", "mana_dist.serve:app", "model=models:/nobody@champion"]
    arguments = [*command, f"tracking_uri={tracking_uri}"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: model models:/nobody@champion: not in the MLflow registry")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "model nowhere: no such folder"),
        (["--model", "x", "--max-batch", "0"], "--max-batch: Input should be greater than or equal to 1, got 0"),
        (["--model", "x", "--device", "tpu"], "--device: Input should be 'auto', 'cpu' or 'cuda', got tpu"),
        (["--model", "x", "--replica", "2", "3"], "unrecognized arguments: 3"),
    ],
)
def test_wrong_options_of_the_command_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments)


@pytest.mark.slow
def test_the_command_answers_until_it_is_interrupted(tracking_uri: str) -> None:
    (port,) = free_ports(1)
    words = ["serve", "--model", "models:/tiny-x4@champion", "--tracking-uri", tracking_uri, "--port", str(port)]
    words += ["--precision", "fp32"]
    with subprocess.Popen(
        [sys.executable, "-m", "mana_dist.cli", *words], stdout=subprocess.PIPE, text=True, env=environment()
    ) as command:
        assert command.stdout is not None
        try:
            line = next(text for text in command.stdout if text.startswith("serving"))
            assert line == f"serving models:/tiny-x4@champion at http://127.0.0.1:{port}; Ctrl-C ends it\n"
            expected = super_resolve_window(tiny_model(), window())
            np.testing.assert_array_equal(pixels(post(f"http://127.0.0.1:{port}", window())), expected)
        finally:
            command.send_signal(signal.SIGINT)
        assert command.wait(60) == 130
