"""A task in a process of its own on this machine: for work so little that Ray's start would take longer."""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import IO, Any

Step = Callable[[], None]
"""A function that a task calls after every frame."""
Task = Callable[[str, Step], str]
"""A function of an item and a Step that returns a result."""


def run_in_child(task: Task, item: str, threads: int, step: Step) -> str | None:
    """Run a task, and return its result; None if its process died.

    The process ends with this one, whatever ends this one; a terminal's Ctrl-C does not reach it.

    Args:
        task: does the work; it and what it raises can be pickled.
        item: for the task.
        threads: of a process's numerical libraries, as Ray sets them by the task's CPUs.
        step: called after every frame.

    Raises:
        Exception: what the task raised.
    """
    from ray import cloudpickle  # what a program's own main module defines travels too, as to Ray's tasks

    stray = subprocess.DEVNULL  # lines of FFmpeg's; Ray keeps them in files that nobody opens
    with start_child("mana_dist.child_task", stray, {"OMP_NUM_THREADS": str(threads)}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(cloudpickle.dumps((task, item)))
            process.stdin.flush()
            while True:
                kind, value = pickle.load(process.stdout)  # noqa: S301  (our own process wrote it)
                if kind == "raised":
                    raise value
                if kind == "done":
                    return str(value)
                step()
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            return None
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def start_child(
    module: str, errors: int | IO[bytes], environment: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.Popen[bytes]":
    """Start ``python -m module``, with pipes to it and from it; a terminal's Ctrl-C does not reach it.

    Args:
        module: what this process could import.
        errors: where its standard error goes.
        environment: variables beside this process's own.
    """
    path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **environment, "PYTHONPATH": path},
        start_new_session=True,
    )


def main() -> None:
    """Run the task that stands on standard input, and write what comes of it to standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(kind: str, value: Any = None) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    try:
        task, item = pickle.load(sys.stdin.buffer)  # noqa: S301  (from the process that started this one)
        end_with_parent()
        answer("done", task(item, lambda: answer("step")))
    except Exception as error:
        try:
            answer("raised", error)
        except (pickle.PicklingError, TypeError, AttributeError):
            answer("raised", RuntimeError(repr(error)))
    os._exit(0)  # C++ libraries may abort at their end


def end_with_parent() -> None:
    """End this process, from now on, when the other end of its standard input closes, by whatever."""

    def wait() -> None:
        while os.read(0, 4096):  # not through Python's buffer, whose lock would be in the way at the process's end
            pass
        os._exit(1)

    threading.Thread(target=wait, name="stdin", daemon=True).start()


if __name__ == "__main__":
    main()
