"""Threads within a kernel: pieces of its work that do not need one another, side by side."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any

import numpy

from ..backend import running

__all__ = ["each", "shared", "small_products_are_fast"]

LEAST = 4  # pieces: with fewer, a thread takes as long to wake as it saves


def each(work: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
    """Call ``work`` on each piece, on as many threads as BLAS may use, and return the results in order.

    Each piece comes out as on one thread, to the bit.

    Examples
    --------
    >>> each(lambda block: sum(range(7)[block]), [slice(0, 3), slice(3, 7)])
    [3, 18]
    """
    parts = shared(lambda some: [work(piece) for piece in pieces[some]], len(pieces), LEAST)
    return list(chain(*parts))


def shared(work: Callable[[slice], Any], count: int, least: float = 2) -> list[Any]:
    """Call ``work`` on a part of ``range(count)`` for each thread, or here on all if that is below ``least``.

    NumPy works outside the interpreter's lock, so the threads do run in parallel. Meanwhile BLAS keeps to
    one, as it does where threads share a batch: then nothing is divided twice. And BLAS's threads sleep:
    after a product they look for the next one in a loop, for a tenth of a second, and take a core from ours.

    Examples
    --------
    >>> import numpy
    >>> int(sum(shared(lambda part: numpy.arange(7)[part].sum(), 7)))
    21
    """
    blas: Any = _blas()
    threads = 1 if blas is None else blas.get_num_threads()
    if threads == 1:
        return [work(slice(0, count))]
    ends = [count * i // threads for i in range(threads + 1)] if count >= least else [0, count]

    def part(i: int) -> Any:
        with running(numpy):
            return work(slice(ends[i], ends[i + 1]))

    pool = _pool(threads - 1)
    blas.set_num_threads(1)
    try:
        # NumPy's error handling is part of the context: each thread takes it over
        others = [pool.submit(contextvars.copy_context().run, part, i) for i in range(1, len(ends) - 1)]
        return [part(0), *(other.result() for other in others)]
    finally:
        blas.set_num_threads(threads)


@cache
def _blas() -> Any:
    """Return the library that multiplies NumPy's matrices, or None if it cannot be told how many threads."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return found[0] if found else None


@cache
def small_products_are_fast() -> bool:
    """Return True if BLAS multiplies small matrices as they are, and does not copy them first."""
    architecture = getattr(_blas(), "architecture", None)
    return architecture in ("SkylakeX", "Cooperlake", "SapphireRapids")  # OpenBLAS's names for AVX-512


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)  # they start when they are first needed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
