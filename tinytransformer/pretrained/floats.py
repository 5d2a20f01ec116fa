"""Floating-point numbers of 16 bits, which files have and models here have not."""

from __future__ import annotations

import numpy


def widened(array: numpy.ndarray, is_bfloat16: bool = False) -> numpy.ndarray:
    """Make 16-bit floats float32; leave others as they are.

    NumPy has no bfloat16: it comes as uint16, the upper half of a float32.
    """
    if is_bfloat16:
        return (array.astype("<u4") << 16).view("<f4")
    return array.astype(numpy.float32) if array.dtype == numpy.float16 else array
