"""The alias ``candidate``, and the rule by which it moves to a model that was just registered.

If it points at nothing, it moves. Otherwise both models are scored on the same held-out data, and it moves if the new
one is better than the one that it points at and than bicubic interpolation. If they cannot be compared, it stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mana_dist.errors import UserError, one_line, redacted
from mana_dist.registry import versions
from mana_dist.registry.model_folder import REGISTRY_SCHEME
from mana_dist.registry.versions import Registered

CANDIDATE = "candidate"
TAG = "mana_dist.registry.candidate"
"""A version's tag: the decision, with its figures."""
Policy = Literal["better", "always", "never"]


@dataclass(frozen=True)
class Scores:
    """Mean PSNR (RGB, dB) on the same held-out frames, by the same protocol, in fp32."""

    model: float
    holder: float
    bicubic: float

    @property
    def is_better(self) -> bool:
        """Return whether the model may take the alias from its holder; it may not if they are equal."""
        return self.model > max(self.holder, self.bicubic)


@dataclass(frozen=True)
class Decision:
    """The decision about a version."""

    holds: bool  # whether the alias points at the version
    reason: str  # why, with the figures

    def __str__(self) -> str:
        return f"{'with' if self.holds else 'without'} alias '{CANDIDATE}': {self.reason}"


def settle(
    version: Registered, tracking_uri: str, policy: Policy, score: Callable[[Registered], Scores] | None
) -> Decision:
    """Decide whether the alias moves to ``version``, move it if so, and tag the version with the decision.

    A second call for the same version returns the same decision.

    Args:
        version: just registered.
        tracking_uri: of the registry.
        policy: ``mlflow.candidate``.
        score: scores the new model, the holder of the alias (its argument) and bicubic; raises UserError if that is
            impossible. None if there is no held-out data.
    """
    holder = versions.resolve(f"{REGISTRY_SCHEME}{version.model}@{CANDIDATE}", tracking_uri)
    if holder is not None and holder.version == version.version:
        before = versions.tag(version, TAG, tracking_uri)
        return Decision(True, before or "it points at this version already")
    decision = _decide(version, holder, policy, score, tracking_uri)
    if decision.holds:
        versions.move_alias(version, CANDIDATE, tracking_uri, {TAG: decision.reason})
    else:
        versions.set_tags(version, tracking_uri, {TAG: decision.reason})
    return decision


def _decide(
    version: Registered,
    holder: Registered | None,
    policy: Policy,
    score: Callable[[Registered], Scores] | None,
    tracking_uri: str,
) -> Decision:
    if policy != "better":
        return Decision(policy == "always", f"mlflow.candidate is {policy}")
    if holder is None:
        return Decision(True, "it pointed at no version")
    stays = f"it stays at version {holder.version}"
    by_hand = (
        f"to move it: mana evaluate --data HELD_OUT --method {version.uri} --out DIR --tracking-uri "
        f'{redacted(tracking_uri)} --promote-if "psnr_rgb > @{CANDIDATE}"'
    )
    if score is None:
        return Decision(False, f"{stays}, as there is no data.validation_path to compare the two on; {by_hand}")
    try:
        found = score(holder)
    except UserError as error:
        return Decision(False, f"{stays}, which cannot be compared ({one_line(error)}); {by_hand}")
    others = f"{found.holder:.3f} of version {holder.version} and {found.bicubic:.3f} of bicubic"
    figures = f"PSNR {found.model:.3f} dB against {others}, on the same held-out data"
    return Decision(found.is_better, figures if found.is_better else f"{figures}, so {stays}")
