"""Exit codes of every command."""

import pytest

from mana_dist.errors import UserError, run_command


def leave(error: BaseException | None) -> None:
    def main(_: list[str]) -> None:
        if error is not None:
            raise error

    run_command(main)


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


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        leave(ZeroDivisionError())
