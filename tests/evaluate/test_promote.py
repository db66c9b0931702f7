"""The grammar of ``--promote-if``, who competes with whom, and who wins."""

from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

from mana_dist.errors import UserError
from mana_dist.evaluate.methods import Wanted
from mana_dist.evaluate.promote import Condition, Contest, arrange, decide, parse_condition
from mana_dist.evaluate.protocol import Protocol
from mana_dist.evaluate.results import ClipScores, Evaluation, Scores
from mana_dist.metrics import METRICS
from mana_dist.registry.versions import Registered

OLD, NEW = Registered("x4", "2"), Registered("x4", "3")
CHAMPION, CANDIDATE = "models:/x4@champion", "models:/x4@candidate"
PROTOCOL = Protocol(
    data=["d"], degradation="BI", degradation_definition="MATLAB's", degradation_version=1, frames="all", lpips="v0.1",
    padding="reflection", device="cpu", mana_dist="0",
)  # fmt: skip


def scores(psnr: float, lpips: float | None = 0.2) -> Scores:
    return Scores(
        {"psnr_rgb": psnr, "ssim_rgb": psnr / 100, "lpips": lpips, "psnr_y": psnr + 2, "ssim_y": 0.9}, frames=1
    )


def evaluation(*methods: tuple[str, Scores]) -> Evaluation:
    clip = ClipScores(clip="a", dataset="d", scores=tuple(entry for _, entry in methods), motion=None)
    return Evaluation(protocol=PROTOCOL, methods=tuple(name for name, _ in methods), clips=(clip,))


def registry(champion: Registered | None) -> Callable[[str], Registered | None]:
    return lambda name: champion if name == CHAMPION else None


def contest(*texts: str, champion: str | None = CHAMPION) -> Contest:
    conditions = tuple(map(parse_condition, texts))
    return Contest(conditions, "champion", CANDIDATE, NEW, champion, OLD if champion else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("psnr_rgb > @champion", Condition("psnr_rgb > @champion", METRICS["psnr_rgb"], ">", "champion", 0)),
        (" lpips<=@prod-1 ", Condition("lpips<=@prod-1", METRICS["lpips"], "<=", "prod-1", 0)),
        ("ssim_y >= @a_b + 0.05", Condition("ssim_y >= @a_b + 0.05", METRICS["ssim_y"], ">=", "a_b", 0.05)),
        ("lpips < @champion - .01", Condition("lpips < @champion - .01", METRICS["lpips"], "<", "champion", -0.01)),
        ("psnr_y > 30", Condition("psnr_y > 30", METRICS["psnr_y"], ">", None, 30)),
    ],
)
def test_expressions(text: str, expected: Condition) -> None:
    assert parse_condition(text) == expected


@pytest.mark.parametrize(
    "text", ["psnr_rgb", "psnr_rgb > champion", "> @champion", "psnr_rgb = @champion", "psnr_rgb > @", "a > b > @c",
             "psnr_rgb > @champion + x", "psnr_rgb > 30 + 1", "psnr_rgb > nan"],
)  # fmt: skip
def test_wrong_expressions(text: str) -> None:
    with pytest.raises(UserError, match="write METRIC OP @ALIAS"):
        parse_condition(text)


def test_a_metric_that_does_not_exist_and_those_that_do() -> None:
    with pytest.raises(UserError, match="no metric psnr; there are psnr_rgb, ssim_rgb, lpips, psnr_y, ssim_y"):
        parse_condition("psnr > @champion")


def mlflow_takes(alias: str) -> None:
    """Its own checks, which raise."""
    _validate_model_alias_name(alias)
    _validate_model_alias_name_reserved(alias)


@pytest.mark.parametrize("alias", ["v2", "V10", "latest", "Latest", "a.b", "x" * 256])
def test_aliases_that_mlflow_would_refuse_after_the_work_are_refused_before_it(alias: str) -> None:
    with pytest.raises(MlflowException):
        mlflow_takes(alias)
    with pytest.raises(UserError, match=f"alias '{alias}': MLflow refuses this name"):
        parse_condition(f"psnr_rgb > @{alias}")


@pytest.mark.parametrize("alias", ["champion", "v", "v2x", "2", "latest-1", "a_b"])
def test_aliases_that_mlflow_takes_are_taken(alias: str) -> None:
    mlflow_takes(alias)
    assert parse_condition(f"psnr_rgb > @{alias}").alias == alias


def test_the_champion_is_evaluated_too() -> None:
    conditions = [parse_condition("psnr_rgb > @champion")]
    methods = (Wanted("bicubic"), Wanted(CANDIDATE, NEW))
    found, all_methods = arrange(conditions, methods, registry(OLD))
    assert all_methods == (*methods, Wanted(CHAMPION, OLD))
    assert (found.candidate, found.version, found.champion, found.current) == (CANDIDATE, NEW, CHAMPION, OLD)


@pytest.mark.parametrize("name", [CHAMPION, "models:/x4/2"])
def test_a_champion_that_is_named_is_not_evaluated_twice(name: str) -> None:
    methods = (Wanted(name, OLD), Wanted(CANDIDATE, NEW))
    found, all_methods = arrange([parse_condition("psnr_rgb > @champion")], methods, registry(OLD))
    assert all_methods == (*methods, Wanted("bicubic"))  # which the candidate must beat too
    assert (found.candidate, found.champion) == (CANDIDATE, name)


def test_the_contest_knows_models_by_their_labels() -> None:
    methods = (Wanted(CHAMPION, OLD, "old one"), Wanted(CANDIDATE, NEW, "new one"))
    found, all_methods = arrange([parse_condition("psnr_rgb > @champion")], methods, registry(OLD))
    assert all_methods == (*methods, Wanted("bicubic"))
    assert (found.candidate, found.champion) == ("new one", "old one")


@pytest.mark.parametrize(
    ("methods", "texts", "message"),
    [
        ([Wanted("bicubic")], ["psnr_rgb > @champion"], "names no registered model; name just one that may become"),
        ([Wanted(CANDIDATE, NEW), Wanted("models:/x4/4", Registered("x4", "4"))], ["psnr_rgb > @champion"],
         "names several registered models"),
        ([Wanted(CANDIDATE, NEW), Wanted("models:/y/1", Registered("y", "1"))], ["psnr_rgb > @champion"],
         "names several registered models"),
        ([Wanted(CHAMPION, OLD)], ["psnr_rgb > @champion"], "names no registered model but the alias' own"),
        ([Wanted("models:/gone/1", None)], ["psnr_rgb > @champion"], "a model that the registry does not hold"),
        ([Wanted(CANDIDATE, NEW)], ["psnr_rgb > 30"], "no alias is named that could move"),
        ([Wanted(CANDIDATE, NEW)], ["psnr_rgb > @a", "lpips < @b"], "@a and @b cannot both move"),
    ],
)  # fmt: skip
def test_contests_without_one_candidate_and_one_alias(methods: list[Wanted], texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrange([parse_condition(text) for text in texts], methods, registry(OLD))


@pytest.mark.parametrize(
    ("texts", "mine", "theirs", "promoted"),
    [
        (["psnr_rgb > @champion"], scores(31), scores(30), True),
        (["psnr_rgb > @champion"], scores(30), scores(30), False),
        (["psnr_rgb >= @champion"], scores(30), scores(30), True),
        (["psnr_rgb > @champion + 0.5"], scores(30.4), scores(30), False),
        (["psnr_rgb > @champion", "psnr_rgb > 32"], scores(31), scores(30), False),
        (["psnr_rgb > @champion", "lpips < @champion"], scores(31, 0.1), scores(30, 0.2), True),
        (["psnr_rgb > @champion", "lpips < @champion"], scores(31, 0.3), scores(30, 0.2), False),
        (["lpips < @champion"], scores(31, None), scores(30, None), False),
        (["psnr_rgb > @champion"], scores(float("inf")), scores(30), True),
    ],
)
def test_all_conditions_must_hold(texts: list[str], mine: Scores, theirs: Scores, promoted: bool) -> None:
    outcome = decide(contest(*texts), evaluation((CANDIDATE, mine), (CHAMPION, theirs), ("bicubic", scores(20, 0.9))))
    assert outcome.promoted == promoted
    assert len(outcome.reasons) == len(texts)
    assert (outcome.model, outcome.alias, outcome.candidate) == ("x4", "champion", "3")


@pytest.mark.parametrize(
    ("text", "bicubic", "promoted"),
    [
        ("psnr_rgb > @champion", scores(30.5), True),
        ("psnr_rgb > @champion", scores(31), False),
        ("psnr_rgb >= @champion - 9", scores(31), False),
        ("lpips < @champion", scores(99, 0.11), True),
        ("lpips < @champion", scores(9, 0.1), False),
        ("lpips <= @champion", scores(9, None), False),
    ],
)
def test_who_takes_an_alias_from_another_beats_bicubic_too(text: str, bicubic: Scores, promoted: bool) -> None:
    found = evaluation((CANDIDATE, scores(31, 0.1)), (CHAMPION, scores(30, 0.2)), ("bicubic", bicubic))
    outcome = decide(contest(text), found)
    assert outcome.promoted == promoted
    assert any("no better than bicubic's" in reason for reason in outcome.reasons) != promoted


def test_reasons_have_the_numbers() -> None:
    found = evaluation((CANDIDATE, scores(29)), (CHAMPION, scores(30)), ("bicubic", scores(20)))
    outcome = decide(contest("psnr_rgb > @champion"), found)
    assert str(outcome) == (
        "@champion of x4 stays where it is: psnr_rgb > @champion does not hold: 29 against 30 of models:/x4@champion"
    )


def test_the_first_champion_needs_no_contest_but_must_pass_numbers() -> None:
    alone = evaluation((CANDIDATE, scores(29)))
    assert decide(contest("psnr_rgb > @champion", champion=None), alone).promoted
    assert not decide(contest("psnr_rgb > @champion", "psnr_rgb > 30", champion=None), alone).promoted


def test_not_even_a_first_champion_passes_a_condition_that_cannot_be_evaluated() -> None:
    outcome = decide(contest("lpips < @champion", champion=None), evaluation((CANDIDATE, scores(29, lpips=None))))
    assert not outcome.promoted
    assert outcome.reasons == ("lpips < @champion is open: lpips was not computed",)


def test_a_candidate_that_is_the_champion_stays_it() -> None:
    found, methods = arrange(
        [parse_condition("psnr_rgb >= @champion")], (Wanted(CANDIDATE, NEW), Wanted(CHAMPION, NEW)), registry(NEW)
    )
    assert len(methods) == 2
    outcome = decide(found, evaluation((CANDIDATE, scores(30)), (CHAMPION, scores(30))))
    assert not outcome.promoted
    assert outcome.reasons == ("version 3 has it already",)
