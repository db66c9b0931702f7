"""The paper's three-stage schedule on Ray Train with DeepSpeed, resumable at any step.

>>> from dataclasses import replace
>>> from mana_dist.train import preset, train
>>> config = preset("tiny")
>>> trained = train(replace(config, data=replace(config.data, path="samples"), run=replace(config.run, name="first")))
>>> trained.model, trained.registered
"""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.config import Config, preset
    from mana_dist.train.run_training import Part, Trained, train

__all__ = ["Config", "Part", "Trained", "preset", "train"]

__getattr__ = lazily(__name__, {"..config": "Config preset", ".run_training": "Part Trained train"})
