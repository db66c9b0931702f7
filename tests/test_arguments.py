"""Mistakes on a command line are one line, raised as UserError; a command is shown without its secrets."""

import pytest

from mana_dist.arguments import Parser, command
from mana_dist.errors import UserError


def test_unknown_option_and_missing_value() -> None:
    parser = Parser(prog="tool")
    parser.add_argument("--size", type=int, required=True)
    with pytest.raises(UserError, match="unrecognized arguments: --sise; see tool --help"):
        parser.parse_args(["--size", "3", "--sise"])
    with pytest.raises(UserError, match="--size"):
        parser.parse_args([])
    assert parser.parse_args(["--size", "3"]).size == 3


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/opt/venv/bin/python", "/opt/venv/bin/mana", "train", "--run.name", "a b"], "mana train --run.name 'a b'"),
        (["/usr/bin/python3", "-m", "mana_dist.train", "--dry-run"], "python3 -m mana_dist.train --dry-run"),
        (["python", "/opt/m/tune/sweep_memory.py", "--slots", "4"], "python /opt/m/tune/sweep_memory.py --slots 4"),
        (["python", "notebook.py", "--password", "p"], "Python"),
        (["python"], "Python"),
        (["python", "-c", "password = 'p'"], "Python"),
        (["python", "-u", "/ray/default_worker.py", "--redis-password=p"], "Python"),
    ],
)
def test_a_command_is_shown_as_it_is_typed(arguments: list[str], shown: str) -> None:
    assert command(arguments) == shown


def test_a_command_shows_no_password() -> None:
    shown = command(["python", "mana", "train", "--mlflow.tracking_uri", "http://me:secret@host:5000"])
    assert "secret" not in shown
    assert "@host:5000" in shown
