"""The option ``--promote-if "psnr_rgb > @champion"``, which moves a registry's alias to a model with better scores."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mana_dist.errors import UserError
from mana_dist.evaluate.config import BICUBIC
from mana_dist.evaluate.methods import Wanted
from mana_dist.evaluate.results import Evaluation
from mana_dist.metrics import METRICS, Metric
from mana_dist.registry.model_folder import REGISTRY_SCHEME
from mana_dist.registry.names import check_alias
from mana_dist.registry.versions import Registered

_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_EXPRESSION = re.compile(
    rf"(?P<metric>\w+)\s*(?P<operator>>=|<=|>|<)\s*"
    rf"(?:@(?P<alias>[\w.-]*\w)(?:\s*(?P<sign>[+-])\s*(?P<margin>{_NUMBER}))?|(?P<number>-?(?:{_NUMBER})))"
)
_OPERATORS: MappingProxyType[str, Callable[[float, float], bool]] = MappingProxyType(
    {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
)


@dataclass(frozen=True)
class Condition:
    """One expression of ``--promote-if``.

    Attributes:
        text: as the user wrote it.
        metric: that is compared.
        operator: ``>``, ``>=``, ``<`` or ``<=``.
        alias: of the model to compare with; None: compare with ``number``.
        number: with an alias, the margin that is added to its value.
    """

    text: str
    metric: Metric
    operator: str
    alias: str | None
    number: float


@dataclass(frozen=True)
class Contest:
    """The models that are compared for an alias.

    Attributes:
        conditions: all must hold.
        alias: that may move.
        candidate: name of the method that it may move to.
        version: of the candidate.
        champion: name of the method that the alias points at; None: it points at none yet.
        current: version of the champion.
    """

    conditions: tuple[Condition, ...]
    alias: str
    candidate: str
    version: Registered
    champion: str | None
    current: Registered | None


@dataclass(frozen=True)
class Promotion:
    """The decision on an alias.

    Attributes:
        model: the registered model's name.
        alias: that might move.
        candidate: version that it might move to.
        champion: the method that it pointed at before; None: none.
        promoted: whether it moves.
        reasons: every condition with its numbers, or why there was nothing to compare.
    """

    model: str
    alias: str
    candidate: str
    champion: str | None
    promoted: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        what = f"@{self.alias} of {self.model}"
        outcome = f"{what} moves to version {self.candidate}" if self.promoted else f"{what} stays where it is"
        return f"{outcome}: {'; '.join(self.reasons)}"


def parse_condition(text: str) -> Condition:
    """Parse ``METRIC OP @ALIAS``, perhaps with ``+ MARGIN`` or ``- MARGIN``, or ``METRIC OP NUMBER``.

    Raises:
        UserError: not like that, no such metric, or no alias that MLflow takes.
    """
    match = _EXPRESSION.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f'--promote-if "{text}": write METRIC OP @ALIAS, like "psnr_rgb > @champion", with a margin '
            'if you like ("lpips < @champion - 0.01"), or METRIC OP NUMBER; OP is >, >=, < or <='
        )
    if match["metric"] not in METRICS:
        raise UserError(f'--promote-if "{text}": no metric {match["metric"]}; there are {", ".join(METRICS)}')
    if match["alias"]:
        check_alias(match["alias"], f'--promote-if "{text}": alias')
    number = float(match["number"] or match["margin"] or 0) * (-1 if match["sign"] == "-" else 1)
    return Condition(text.strip(), METRICS[match["metric"]], match["operator"], match["alias"], number)


def alias_of(conditions: Sequence[Condition]) -> str:
    """Return the one alias that all conditions name.

    Raises:
        UserError: none, or several.
    """
    aliases = list(dict.fromkeys(condition.alias for condition in conditions if condition.alias))
    if len(aliases) != 1:
        named = " and ".join(f"@{alias}" for alias in aliases)
        raise UserError(
            f"--promote-if: {f'{named} cannot both move' if aliases else 'no alias is named that could move'}; "
            'name one, like "psnr_rgb > @champion"'
        )
    return aliases[0]


def arrange(
    conditions: Sequence[Condition], methods: Sequence[Wanted], resolve: Callable[[str], Registered | None]
) -> tuple[Contest, tuple[Wanted, ...]]:
    """Find the candidate and the champion.

    Args:
        conditions: at least one.
        methods: of the command line.
        resolve: gives the version that a registry name stands for; None: no such version or alias.

    Returns:
        The contest, and the methods. Champion and bicubic are added if they were not named: a model that takes an alias
        from another must beat bicubic too.

    Raises:
        UserError: not just one alias is named, or not just one registered model beside the alias' own.
    """
    alias = alias_of(conditions)
    models = [method for method in methods if method.name.startswith(REGISTRY_SCHEME)]
    versions = [method.registered for method in models if method.registered is not None]
    names = {version.model for version in versions}
    if len(names) != 1 or len(versions) != len(models):
        missing = len(versions) != len(models)
        found = "a model that the registry does not hold" if missing else "several registered models"
        raise UserError(f"--promote-if: --method names {found if models else 'no registered model'}; {_hint(alias)}")
    named = f"{REGISTRY_SCHEME}{names.pop()}@{alias}"
    current = resolve(named)
    others = [method for method in models if method.registered != current]
    # Where the candidate is the champion already, there is nothing to do, but nothing wrong either.
    candidates = others or [method for method in models if method.name != named]
    if len(candidates) != 1 or candidates[0].registered is None:
        found = "several registered models" if candidates else "no registered model but the alias' own"
        raise UserError(f"--promote-if: --method names {found}; {_hint(alias)}")
    same = [method for method in models if current is not None and method.registered == current]
    added: tuple[Wanted, ...] = (Wanted(named, current),) if current is not None and not same else ()
    champion = next((method.shown for method in (*same, *added)), None)
    version = candidates[0].registered
    contest = Contest(tuple(conditions), alias, candidates[0].shown, version, champion, current)
    named_bicubic = any(method.name == BICUBIC for method in methods)
    if current not in (None, version) and not named_bicubic:
        added += (Wanted(BICUBIC),)
    return contest, (*methods, *added)


def decide(contest: Contest, evaluation: Evaluation) -> Promotion:
    """Decide whether the alias moves: all conditions must hold for the means over all clips."""
    if contest.version == contest.current:
        judged = [(False, f"version {contest.version.version} has it already")]
    else:
        judged = [_judge(condition, contest, evaluation) for condition in contest.conditions]
        judged += [_floor(condition, contest, evaluation) for condition in contest.conditions if condition.alias]
    return Promotion(
        model=contest.version.model,
        alias=contest.alias,
        candidate=contest.version.version,
        champion=contest.champion,
        promoted=all(holds for holds, _ in judged),
        reasons=tuple(text for _, text in judged if text),
    )


def _hint(alias: str) -> str:
    return f"name just one that may become @{alias}, like {REGISTRY_SCHEME}mana-x4@candidate"


def _judge(condition: Condition, contest: Contest, evaluation: Evaluation) -> tuple[bool, str]:
    mine = _value(evaluation, contest.candidate, condition.metric)
    # Also of a first champion: a condition that cannot be judged is a mistake, which should not pass in silence.
    if mine is None:
        return False, f"{condition.text} is open: {condition.metric.name} was not computed"
    if condition.alias and contest.champion is None:
        return True, f"there is no @{condition.alias} yet"
    theirs = 0.0 if not condition.alias else _value(evaluation, str(contest.champion), condition.metric)
    if theirs is None:
        return False, f"{condition.text} is open: {condition.metric.name} was not computed"
    holds = _OPERATORS[condition.operator](mine, theirs + condition.number)
    against = f"{theirs:.6g} of {contest.champion}" if condition.alias else f"{condition.number:g}"
    return holds, f"{condition.text} {'holds' if holds else 'does not hold'}: {mine:.6g} against {against}"


def _floor(condition: Condition, contest: Contest, evaluation: Evaluation) -> tuple[bool, str]:
    """Return whether the candidate beats bicubic by a condition's metric; a first champion need not."""
    mine = _value(evaluation, contest.candidate, condition.metric)
    if contest.champion is None or mine is None:
        return True, ""
    theirs = _value(evaluation, BICUBIC, condition.metric)
    if theirs is not None and _OPERATORS[condition.operator[0]](mine, theirs):
        return True, ""
    return False, f"{condition.metric.name} is no better than bicubic's: {mine:.6g} against {theirs}"


def _value(evaluation: Evaluation, method: str, metric: Metric) -> float | None:
    return evaluation.mean(evaluation.methods.index(method))[metric]
