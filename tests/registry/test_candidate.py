"""The one rule for the alias ``candidate``, in a real registry."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from mana_dist.errors import UserError
from mana_dist.registry.candidate import TAG, Decision, Policy, Scores, settle
from mana_dist.registry.versions import Registered, resolve

NAME = "tiny-x4"
OLD, NEW = Registered(NAME, "1"), Registered(NAME, "2")
Score = Callable[[Registered], Scores]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a registry with two versions; what their files hold is no matter here."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    client = MlflowClient(uri)
    client.create_registered_model(NAME)
    for number in (1, 2):
        client.create_model_version(NAME, f"file:///nowhere/{number}")
    return uri


@pytest.fixture
def uri(database: str) -> str:
    """The registry, version 1 with the alias, nothing tagged."""
    client = MlflowClient(database)
    client.set_registered_model_alias(NAME, "candidate", "1")
    for number in ("1", "2"):
        for key in client.get_model_version(NAME, number).tags:
            client.delete_model_version_tag(NAME, number, key)
    return database


def scored(model: float, holder: float, bicubic: float) -> Score:
    def score(version: Registered) -> Scores:
        assert version.version == "1"
        return Scores(model, holder, bicubic)

    return score


def holder(uri: str) -> str:
    return str(MlflowClient(uri).get_model_version_by_alias(NAME, "candidate").version)


def tag(uri: str) -> Any:
    return MlflowClient(uri).get_model_version(NAME, "2").tags.get(TAG)


@pytest.mark.parametrize(
    ("model", "held", "bicubic", "moves"),
    [
        (31.0, 30.0, 29.0, True),
        (30.0, 31.0, 29.0, False),
        (28.33, 20.0, 29.0, False),  # better than a bad one, and worse than bicubic
        (30.0, 30.0, 29.0, False),  # equal: it stays where it is
        (29.0, 28.0, 29.0, False),  # equal to bicubic
        (math.nan, 20.0, 10.0, False),
        (30.0, math.nan, 10.0, False),
        (math.inf, 30.0, 29.0, True),
        (math.inf, math.inf, 29.0, False),
    ],
)
def test_who_wins_and_beats_bicubic_takes_it(uri: str, model: float, held: float, bicubic: float, moves: bool) -> None:
    decision = settle(NEW, uri, "better", scored(model, held, bicubic))
    assert decision.holds == moves
    assert holder(uri) == ("2" if moves else "1")
    assert tag(uri) == decision.reason
    assert f"PSNR {model:.3f} dB against {held:.3f} of version 1 and {bicubic:.3f} of bicubic" in decision.reason
    assert "\n" not in str(decision)


def test_where_it_points_at_nothing_it_moves_without_comparing(uri: str) -> None:
    MlflowClient(uri).delete_registered_model_alias(NAME, "candidate")
    assert settle(NEW, uri, "better", None) == Decision(True, "it pointed at no version")
    assert holder(uri) == "2"


def test_a_version_that_was_deleted_does_not_hold_it(uri: str) -> None:
    client = MlflowClient(uri)
    gone = client.create_model_version(NAME, "file:///nowhere/3").version
    client.set_registered_model_alias(NAME, "candidate", gone)
    client.delete_model_version(NAME, gone)
    assert settle(NEW, uri, "better", None).holds
    assert holder(uri) == "2"


def test_without_validation_it_stays_and_a_line_says_how_to_move_it(uri: str) -> None:
    decision = settle(NEW, uri, "better", None)
    assert not decision.holds
    assert holder(uri) == "1"
    assert "there is no data.validation_path" in decision.reason
    assert f"--method models:/{NAME}/2" in decision.reason
    assert '--promote-if "psnr_rgb > @candidate"' in decision.reason


def test_one_that_cannot_be_compared_keeps_it(uri: str) -> None:
    def score(_: Registered) -> Scores:
        raise UserError("model models:/tiny-x4/1: its files are gone")

    decision = settle(NEW, uri, "better", score)
    assert not decision.holds
    assert holder(uri) == "1"
    assert "version 1, which cannot be compared (model models:/tiny-x4/1: its files are gone)" in decision.reason


@pytest.mark.parametrize(("policy", "moves"), [("always", True), ("never", False)])
def test_the_key_opts_out_of_comparing(uri: str, policy: Policy, moves: bool) -> None:
    assert settle(NEW, uri, policy, None) == Decision(moves, f"mlflow.candidate is {policy}")
    assert holder(uri) == ("2" if moves else "1")


def test_asked_again_it_decides_the_same(uri: str) -> None:
    first = settle(NEW, uri, "better", scored(31, 30, 29))
    again = settle(NEW, uri, "better", scored(0, 99, 29))  # the holder is the model itself: not compared
    assert first == again
    assert tag(uri) == first.reason


def test_a_registry_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"the MLflow registry at http://\*\*\*@127.0.0.1:9 cannot be used") as raised:
        settle(OLD, "http://ann:s3cret@127.0.0.1:9", "better", None)
    assert "s3cret" not in str(raised.value)
    with pytest.raises(UserError, match="cannot be used"):
        resolve(OLD.uri, "http://127.0.0.1:9")
