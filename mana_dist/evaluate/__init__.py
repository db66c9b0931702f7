"""Evaluation of methods against the ground truth by the paper's protocol, with every choice beside the numbers.

>>> from mana_dist.evaluate import EvaluationOptions, evaluate
>>> found = evaluate(EvaluationOptions(data=("clip.mp4",), methods=("bicubic", "runs/first/model"), out="results"))
>>> found.mean(1).psnr_rgb - found.mean(0).psnr_rgb  # dB over bicubic
"""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.evaluate.config import EvaluationOptions
    from mana_dist.evaluate.results import Evaluation
    from mana_dist.evaluate.run_evaluation import evaluate

__all__ = ["Evaluation", "EvaluationOptions", "evaluate"]

__getattr__ = lazily(
    __name__, {".config": "EvaluationOptions", ".results": "Evaluation", ".run_evaluation": "evaluate"}
)
