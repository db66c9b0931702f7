"""The C kernels for CPUs: compiled when the package is built (``setup.py``), the best for this processor loaded."""

import contextlib
import ctypes
import functools
import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch

# What setup.py compiles, in this order.
SOURCES = ("fused_cpu.c", "phases_cpu.c")
# The builds of setup.py, the fastest first, with what each needs of the processor in torch's words.
_AVX2 = {"avx2", "fma3"}
_AVX512 = _AVX2 | {"avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"}
BUILDS: dict[str, set[str]] = {
    "_fused_cpu_avx512_bf16": _AVX512 | {"avx512_bf16"},
    "_fused_cpu_avx512": _AVX512,
    "_fused_cpu_avx2": _AVX2,
    "_fused_cpu": set(),
}
# A further thread must have this many multiply-adds to be worth its start.
_WORK_PER_THREAD = 2_000_000
_log = logging.getLogger("mana_dist")


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the best library for this processor, built from this version of the sources; without one, log why."""
    here, stale = Path(__file__).parent, False
    version = hashlib.sha256(b"".join((here / name).read_bytes() for name in SOURCES)).hexdigest().encode()
    has = torch.cpu.get_capabilities()
    for name in (name for name, needs in BUILDS.items() if all(has.get(need) for need in needs)):
        for folder in _folders():
            if (spec := PathFinder.find_spec(name, [str(folder)])) and spec.origin:
                with contextlib.suppress(OSError, ValueError):  # made for another system, or of long ago
                    found = ctypes.CDLL(spec.origin)
                    if (ctypes.c_char * len(version)).in_dll(found, "kernel_sources").raw == version:
                        return found
                    stale = True
    _log.warning(
        "attention on this CPU runs several times slower than it could: the compiled kernels of %s are %s; "
        "install mana_dist again, in a checkout with `pip install -e .` (needs a C compiler)",
        here,
        "of another version" if stale else "missing",
    )
    return None


def loaded() -> ctypes.CDLL:
    """Return :func:`library` where there is one.

    Raises:
        RuntimeError: there is none.
    """
    found = library()
    if found is None:
        raise RuntimeError("the fused CPU implementation is not available: ask available() first")
    return found


def share(work: Callable[[int, int], None], units: int, multiply_adds: int) -> None:
    """Call ``work(begin, end)`` on parts of range(units), a thread each, and return when all are done."""
    threads = max(1, min(torch.get_num_threads(), units, multiply_adds // _WORK_PER_THREAD))
    if threads == 1:
        work(0, units)
        return
    bounds = [units * thread // threads for thread in range(threads + 1)]
    # New threads for each call: starting one takes some 60 microseconds, and a kept pool does not survive a fork.
    with ThreadPoolExecutor(threads - 1) as pool:
        parts = [pool.submit(work, bounds[thread], bounds[thread + 1]) for thread in range(1, threads)]
        work(bounds[0], bounds[1])
    for part in parts:
        part.result()


def _folders() -> list[Path]:
    """Where the libraries may lie: here, or where the package is installed, of which a Ray job's folder is a copy."""
    folders = [Path(__file__).parent]
    with contextlib.suppress(PackageNotFoundError):
        installed = distribution("mana-dist")
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        editable = origin.get("dir_info", {}).get("editable")
        root = url2pathname(urlsplit(origin["url"]).path) if editable else str(installed.locate_file(""))
        folders.append(Path(root, "mana_dist", "ops"))
    return folders
