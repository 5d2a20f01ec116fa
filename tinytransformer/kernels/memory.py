"""Memory that stays with the process: pages fresh from the system cost more than the work on them."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# parameters of glibc's mallopt, from its malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST = 32 * 2**20  # bytes; the highest threshold that glibc takes


def keep_freed_memory() -> bool:
    """Ask the C library to keep what arrays free, and hand it to the next ones.

    By default glibc maps each array above 128 KiB afresh and gives it back when it dies: a training step
    then spends up to a fifth of its time on pages that the system has to clear first. This asks it to do
    so only above 32 MiB, to keep what was freed, and to have one heap for all threads, so that each finds
    what another left. The process stays as large as it once was; it does not grow larger.

    It holds for the whole process and is done when the package is imported. The environment variable
    ``TINYTRANSFORMER_KEEP_MEMORY=0`` leaves all as it was.

    Returns
    -------
    bool
        True if it was done: False without glibc, or where the variable says so.

    Examples
    --------
    >>> from tinytransformer.kernels.memory import keep_freed_memory
    >>> keep_freed_memory() in (True, False)
    True
    """
    if os.environ.get("TINYTRANSFORMER_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    wanted = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all(library.mallopt(parameter, value) for parameter, value in wanted.items())
