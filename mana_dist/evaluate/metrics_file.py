"""The file ``metrics.json``: the protocol and every number, for machines."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mana_dist.evaluate.motion import TopMotion
from mana_dist.evaluate.promote import Promotion
from mana_dist.evaluate.protocol import Protocol
from mana_dist.evaluate.results import Evaluation, Scores

METRICS_FILE, PARTIAL_FILE = "metrics.json", "metrics.partial.json"


def to_json(
    evaluation: Evaluation,
    top: TopMotion | None = None,
    promotion: Promotion | None = None,
    unfinished: Sequence[str] = (),
) -> str:
    """Return the text of the file.

    Args:
        evaluation: the results.
        top: the rule by which the evaluation's clips with large motion were chosen, if they were.
        promotion: the decision on an alias, if there was one.
        unfinished: names of the clips that are missing because an error ended the evaluation.

    Returns:
        JSON without NaN and infinities: an infinite PSNR is null, as the protocol says.
    """
    content: dict[str, Any] = {
        "protocol": evaluation.protocol.entries(),
        "methods": {name: _method(evaluation, index) for index, name in enumerate(evaluation.methods)},
    }
    if top is not None:
        clips = evaluation.of_top_motion()
        content["top_motion"] = {
            "share": top.text,
            "clips": list(evaluation.top_motion or ()),
            "methods": {name: _plain(evaluation.mean(index, clips)) for index, name in enumerate(evaluation.methods)},
        }
    if promotion is not None:
        content["promotion"] = asdict(promotion)
    if unfinished:
        content["unfinished"] = list(unfinished)
    return json.dumps(content, indent=2, allow_nan=False, default=asdict) + "\n"


def is_of(data: bytes, protocol: Protocol, top: TopMotion | None) -> bool:
    """Return whether a file holds the numbers of such an evaluation, be it of other pixels."""

    def without_digests(values: dict[str, Any]) -> dict[str, Any]:
        return values | {"datasets": [entry | {"digest": ""} for entry in values["datasets"]]}

    expected: dict[str, Any] = json.loads(json.dumps(protocol.entries(), default=asdict))
    try:
        content = json.loads(data)
        found = without_digests(content["protocol"])
        share = content.get("top_motion", {}).get("share")
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    expected_share = None if top is None or "unfinished" in content else top.text
    return found == without_digests(expected) and share == expected_share


def _method(evaluation: Evaluation, index: int) -> dict[str, Any]:
    return {
        "clips": [
            {
                "name": clip.clip,
                "dataset": clip.dataset,
                **_plain(clip.scores[index]),
                "motion": clip.motion,
                "notes": list(clip.notes),
            }
            for clip in evaluation.clips
        ],
        "datasets": {
            dataset: _plain(evaluation.mean(index, evaluation.of_dataset(dataset))) for dataset in evaluation.datasets
        },
        "mean": _plain(evaluation.mean(index)),
    }


def _plain(scores: Scores) -> dict[str, Any]:
    return {key: None if value == math.inf else value for key, value in scores.plain().items()}
