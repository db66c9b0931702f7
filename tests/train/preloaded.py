"""Imported by the process that ``tests.train.forked`` forks its workers from, for what the import does."""

import gc
import importlib

from mana_dist.train import engine

engine._import_deepspeed()
importlib.import_module("torch._dynamo")  # by every optimizer
# DeepSpeed's ZeRO 3 collects garbage all the time; it need not go through all these modules.
gc.freeze()
