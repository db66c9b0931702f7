"""Memory that this process has freed and will need again."""

import ctypes
import os

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MOST = 2**31 - 1  # bytes; mallopt takes an int
_OLD_MOST = 32 * 2**20  # the largest that glibc before 2.35 takes for M_MMAP_THRESHOLD
_TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, so that the next tensor of that size costs no page faults.

    To be called when a process begins. Does nothing where the C library is not glibc, and where the user has chosen an
    allocator or its settings (``LD_PRELOAD``, ``MALLOC_*``, ``GLIBC_TUNABLES``).

    Returns:
        Whether memory is kept.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or os.environ.get("LD_PRELOAD")
    if chosen or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return False
    kept = libc.mallopt(_M_MMAP_THRESHOLD, _MOST) or libc.mallopt(_M_MMAP_THRESHOLD, _OLD_MOST)
    return bool(kept and libc.mallopt(_M_TRIM_THRESHOLD, _MOST) and libc.mallopt(_M_TOP_PAD, _TOP_PAD))
