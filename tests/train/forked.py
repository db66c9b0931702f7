"""Processes that train together, forked from one that has imported torch and DeepSpeed: the imports take seconds."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from torch.multiprocessing.spawn import start_processes


def run_workers(function: Callable[..., None], world_size: int, *arguments: Any) -> None:
    """Call ``function(rank, *arguments)`` in ``world_size`` processes at a time, and wait for them."""
    multiprocessing.set_forkserver_preload(["tests.train.preloaded"])
    with mock.patch.dict(os.environ, {"DS_ACCELERATOR": "cpu"}):  # what DeepSpeed chooses at its import
        start_processes(function, arguments, world_size, start_method="forkserver")
