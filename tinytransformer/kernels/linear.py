"""The kernel of ``linear``."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ..backend import xp
from ..formulas import linear
from .common import fusible
from .threads import each, small_products_are_fast

# OpenBLAS for AVX-512 does not copy the matrices of a product if rows * inner * columns are no more than the
# first number and, where the second matrix is a transpose, rows * columns no more than the second
SMALL, SMALL_TRANSPOSED = 10**6, 1200
LARGE = 2**19  # entries: to copy a matrix of fewer takes little


@linear.kernel
class Linear:
    """y = x W + b, as one product of two matrices: all axes of x but the last are rows."""

    @staticmethod
    def forward(x: Any, W: Any, b: Any = None) -> Any:
        """Compute y in place; save x as rows."""
        b_fits = b is None or (fusible(W, b) and b.shape == W.shape[1:])
        if not (b_fits and fusible(x, W) and x.ndim and W.ndim == 2 and x.shape[-1] == W.shape[0]):
            return NotImplemented
        rows = x.reshape(math.prod(x.shape[:-1]), W.shape[0])  # (n, in)
        y = product(rows, W)  # (n, out)
        if b is not None:
            y += b
        return y.reshape(*x.shape[:-1], W.shape[1]), (rows, W, x.shape)

    # y_ij = sum_k x_ik W_kj + b_j, so with g = dL/dy:
    #   dL/dx_ik = sum_j g_ij W_kj,  dL/dW_kj = sum_i x_ik g_ij,  dL/db_j = sum_i g_ij
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g W^T, dW = x^T g, db = sum of the rows of g."""
        rows, W, shape = saved
        g = g.reshape(rows.shape[0], W.shape[1])  # (n, out)
        dx = (g @ W.T).reshape(shape) if needs[0] else None
        dW = rows.T @ g if needs[1] else None
        db = row_sums(g) if needs[2:] == [True] else None
        return dx, dW, db


def product(x: Any, W: Any) -> Any:
    """Return x W; for few rows, as in generation, in pieces so small that BLAS reads W once, as it is."""
    (n, inner), columns = x.shape, W.shape[1]
    if n < 2 or W.size < LARGE or xp.module is not numpy or not small_products_are_fast():
        return x @ W
    width = SMALL // (n * inner)
    if W.strides[0] < W.strides[1]:  # the transpose of an embedding
        width = min(width, SMALL_TRANSPOSED // n)
    if width < 64:
        return x @ W
    width -= width % 64
    y = numpy.empty((n, columns), x.dtype)

    def part(start: int) -> None:
        some = slice(start, start + width)
        numpy.matmul(x, W[:, some], out=y[:, some])

    each(part, range(0, columns, width))
    return y


def row_sums(g: Any) -> Any:
    """Return the sum of all rows: a product with ones is faster than a reduction."""
    return xp.ones(g.shape[0], g.dtype) @ g
