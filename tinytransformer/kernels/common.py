"""What kernels share: which arrays they take, and how they cut them into blocks that fit the cache."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy

from ..backend import is_array, xp

BLOCK = 131072  # entries, half a megabyte of float32: several blocks fit the caches of a processor core


def fusible(first: Any, *others: Any) -> bool:
    """Return True for arrays of one dtype, float32 or float64: a kernel works in one precision."""
    return (
        is_array(first)
        and first.dtype.char in "fd"
        and all(is_array(other) and other.dtype == first.dtype for other in others)
    )


def blocks(rows: int, width: int = 1) -> list[slice]:
    """Cut rows of this width into slices of about `BLOCK` entries; a GPU takes all rows at once."""
    step = max(1, BLOCK // max(1, width)) if xp.module is numpy else max(1, rows)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


class _Scratch(threading.local):
    """Buffers that outlive a call, one set per thread: memory fresh from the system is slow to touch."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, str], Any] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an uninitialised array, valid until the next call with this name: not for outputs."""
    if xp.module is not numpy:
        return xp.empty(shape, dtype)  # a GPU backend keeps such buffers itself
    size = math.prod(shape)
    key = name, dtype.char
    buffer = _scratch.buffers.get(key)
    if buffer is None or buffer.size < size:
        buffer = _scratch.buffers[key] = numpy.empty(size, dtype)
    return buffer[:size].reshape(shape)


LIMIT = 32.0  # e^32 = 8e13 and e^-32 leave room in float32 for sums, products and gradients


def moderate(x: Any) -> bool:
    """Return True if every entry is between -32 and 32: then e^x is safe without subtracting a maximum.

    The answer would make the host wait for a GPU, where it is always False.
    """
    return xp.module is numpy and x.size > 0 and bool(x.max() < LIMIT and x.min() > -LIMIT)
