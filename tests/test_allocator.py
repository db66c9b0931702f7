"""Freed memory stays with the process, unless the user has chosen an allocator."""

import os
import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import numpy as np
from mana_dist.allocator import keep_freed_memory
kept = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(3 * 2**20)  # 24 MiB, 6144 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""
CHOSEN = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")


def probe(**chosen: str) -> tuple[bool, int]:
    """Return what the call returned in a process of its own, and the page faults of memory of a size freed before."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(CHOSEN)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment | chosen, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_memory_of_a_size_that_was_freed_costs_no_page_faults() -> None:
    kept, faults = probe()
    assert kept
    assert faults < 100  # of 6144 pages


@pytest.mark.parametrize(
    "chosen", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, {"LD_PRELOAD": "libc.so.6"}]
)
def test_an_allocator_that_the_user_chose_is_left_alone(chosen: dict[str, str]) -> None:
    assert not probe(**chosen)[0]


def test_tunables_of_something_else_and_an_empty_preload_are_no_choice() -> None:
    expected = platform.libc_ver()[0] == "glibc"
    assert probe(GLIBC_TUNABLES="glibc.rtld.nns=4", LD_PRELOAD="")[0] == expected
