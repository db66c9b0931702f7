"""What the tests of several commands need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mana_dist.errors import run_command

Refused = Callable[..., tuple[str | int | None, str]]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command, which must not end well, in this process; gives its exit code and what it said on stderr."""

    def run(main: Callable[[list[str]], None], *arguments: str | Path) -> tuple[str | int | None, str]:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        return ended.value.code, capfd.readouterr().err

    return run
