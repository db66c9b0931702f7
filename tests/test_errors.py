"""Exit codes of every command."""

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mana_dist import __version__
from mana_dist.errors import UserError, one_line, redacted, run_command


def leave(error: BaseException | None) -> None:
    def main(_: list[str]) -> None:
        if error is not None:
            raise error

    run_command(main)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Keep the tests' own Ctrl-C, which an interrupted command changes."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_done_is_zero() -> None:
    leave(None)


def test_a_users_mistake_is_two_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        leave(UserError("data.path: not\nthere"))
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: data.path: not there\n"


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        leave(KeyboardInterrupt())
    assert exit_.value.code == 130
    assert "interrupted" in capsys.readouterr().err


# Ctrl-C while the heavy packages are imported, which takes seconds.
IMPORTING = """
import runpy, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "pyarrow", "torch"):
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Press())
sys.argv = sys.argv[1:]
(runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module)(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "command",
    ["mana_dist.train --config tiny", "mana_dist.evaluate --data a --method bicubic --out b",
     "mana_dist.upscale README.md b --model models:/c", "pipelines.ingest --source a --out b",
     "pipelines.upscale --source a --out b --model c", "tune/sweep_memory.py --evaluate-on a",
     "tune/sweep_window.py --evaluate-on a"],
)  # fmt: skip
def test_ctrl_c_while_a_command_starts_is_one_line(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, *command.split()],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


ENDING = """
import atexit, signal, time
from mana_dist.errors import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(time.sleep, 600)  # as Ray's end
def press(_):
    signal.raise_signal(signal.SIGINT)
run_command(press)
"""


def test_another_ctrl_c_ends_at_once_without_a_traceback() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDING], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        assert told + process.stderr.read() == "interrupted\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        leave(ZeroDivisionError())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://ann:s3cret@host:5000/x", "http://***@host:5000/x"),
        ("https://t0ken@host/x", "https://***@host/x"),
        ("postgresql+psycopg2://ann:s3/cr@et@host/db", "postgresql+psycopg2://***@host/db"),
        ("tell http://ann:s3cret@host and (http://ann:@b)", "tell http://***@host and (http://***@b)"),
        ("postgresql://host/db?user=ann&password=s3cret&x=1", "postgresql://host/db?user=ann&password=***&x=1"),
        ("http://host/a.mp4?X-Amz-Signature=ab12&Expires=9", "http://host/a.mp4?X-Amz-Signature=***&Expires=9"),
        ("http://host/a.mp4?token=ab:12: no video", "http://host/a.mp4?token=***: no video"),
    ],
)
def test_passwords_in_uris_are_told_to_nobody(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert str(UserError(text)) == str(pickle.loads(pickle.dumps(UserError(text)))) == expected
    assert one_line(OSError(text)) == expected


@pytest.mark.parametrize(
    "text",
    ["models:/mana-x4@candidate", "s3://bucket/ann@home/a:b@c", "http://host:5000/api at ann@home", "/home/a@b",
     "sqlite:////home/ann@work/mlflow.db", "user@host: a://b"],
)  # fmt: skip
def test_what_is_no_password_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_mistake_tells_no_password_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        leave(UserError("mlflow.tracking_uri http://ann:s3cret@host cannot be used"))
    assert capsys.readouterr().err == "error: mlflow.tracking_uri http://***@host cannot be used\n"


ABORTING = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
from mana_dist.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [(["--version"], 0, f"{__version__}\n"), (["ingest", "--verify", "nowhere"], 2, ""), (["ingest", "--out"], 2, "")],
)
def test_libraries_that_abort_at_their_end_do_not_change_the_exit_code(
    arguments: list[str], code: int, output: str
) -> None:
    done = subprocess.run([sys.executable, "-c", ABORTING, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, output)
    assert done.stderr.count("\n") == (1 if code else 0)
    without = [sys.executable, "-c", ABORTING.replace("main()", "")]
    assert subprocess.run(without, check=False).returncode == -signal.SIGABRT
