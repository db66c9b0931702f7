"""Where a stack lies: refusals before anything is started, passwords that last, ports that are free."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mana_dist.errors import UserError
from mana_dist.stack import stack_layout
from mana_dist.stack.__main__ import main


def test_a_path_too_long_for_rays_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"characters; Ray's sockets .* --folder ~/\.mana$"):
        stack_layout.resolve(str(tmp_path / ("x" * 60)))
    socket_name = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
    longest = "/" + "x" * (107 - len(socket_name) - 1)  # of a socket's path the kernel takes 107 bytes
    assert str(stack_layout.resolve(longest)) == longest
    with pytest.raises(UserError):
        stack_layout.resolve(f"{longest}x")


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stack_layout, "_LONGEST", 1000)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for command in ("up", "down", "status"):
        with pytest.raises(UserError, match="holds something else"):
            main([command, "--folder", "mine"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        main(["up", "--folder", "file"])
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_what_was_cut_off_while_it_was_made_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_layout, "_LONGEST", 1000)
    folder = tmp_path / "s"

    def is_a_stack_or_empty(moment: str) -> None:
        assert str(stack_layout.resolve(str(folder))) == str(folder), moment

    replaced, made = os.replace, Path.mkdir

    def replace(*names: Path) -> None:
        is_a_stack_or_empty(f"before {names}")
        replaced(*names)
        is_a_stack_or_empty(f"after {names}")

    def mkdir(path: Path, **options: bool) -> None:
        made(path, **options)
        is_a_stack_or_empty(f"with {path}")

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    with stack_layout.locked(folder):
        is_a_stack_or_empty("locked")
        stack_layout.prepare(folder)
    assert (folder / "logs").is_dir()


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with stack_layout.locked(tmp_path / "s"):
        other = (
            "import sys, pathlib; from mana_dist.stack import stack_layout\n"
            "with stack_layout.locked(pathlib.Path(sys.argv[1])): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", other, str(tmp_path / "s")], capture_output=True, text=True, check=False
        )
        assert "another `mana stack` is at work there" in done.stderr
    with stack_layout.locked(tmp_path / "s"):
        pass


@pytest.mark.parametrize("command", ["down", "status"])
def test_without_a_stack_there_is_nothing_to_end(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stack_layout, "_LONGEST", 1000)
    with pytest.raises(UserError, match="holds no local stack; `mana stack up` makes one"):
        main([command])
    assert list(tmp_path.iterdir()) == []


def test_passwords_last_and_a_port_that_was_taken_is_replaced(tmp_path: Path) -> None:
    first = stack_layout.prepare(tmp_path / "s")
    assert len({*first.passwords.values()}) == len(stack_layout.SECRETS)
    assert min(map(len, first.passwords.values())) >= 32
    assert len({*first.ports.values()}) == len(stack_layout.PORTS)
    assert stack_layout.prepare(tmp_path / "s") == first == stack_layout.load(tmp_path / "s")
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", first.ports["mlflow"]))
        somebody.listen()
        second = stack_layout.prepare(tmp_path / "s")
    changed = {name for name, port in second.ports.items() if port != first.ports[name]}
    assert changed == {"mlflow"}
    assert second.passwords == first.passwords
    assert f"MLFLOW_TRACKING_URI=http://127.0.0.1:{second.ports['mlflow']}" in second.environment_file.read_text()


def test_passwords_are_shown_to_nobody(tmp_path: Path) -> None:
    made = stack_layout.prepare(tmp_path / "s")
    assert not any(password in repr(made) for password in made.passwords.values())
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    for name in ("stack.json", "env.sh"):
        assert stat.S_IMODE((tmp_path / "s" / name).stat().st_mode) == 0o600
