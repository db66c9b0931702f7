"""Mistakes on a command line are one line, raised as UserError."""

import pytest

from mana_dist.arguments import Parser
from mana_dist.errors import UserError


def test_unknown_option_and_missing_value() -> None:
    parser = Parser(prog="tool")
    parser.add_argument("--size", type=int, required=True)
    with pytest.raises(UserError, match="unrecognized arguments: --sise; see tool --help"):
        parser.parse_args(["--size", "3", "--sise"])
    with pytest.raises(UserError, match="--size"):
        parser.parse_args([])
    assert parser.parse_args(["--size", "3"]).size == 3
