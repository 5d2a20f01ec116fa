"""The kernel of ``linear``."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ..backend import xp
from ..formulas import linear
from .common import fusible
from .threads import shared, small_products_are_fast

# OpenBLAS for AVX-512 does not copy the matrices of a product if rows * inner * columns are no more than the
# first number and, where the second matrix is a transpose, rows * columns no more than the second
SMALL, SMALL_TRANSPOSED = 10**6, 1200
FEW = 16  # rows, for which to copy a matrix takes longer than to multiply it
LARGE = 2**19  # entries: to copy a matrix of fewer takes little
LEAST = 1.5e7  # multiplications: the time of fewer is that of waking a thread


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
    if not 1 < n <= FEW or W.size < LARGE or xp.module is not numpy or not small_products_are_fast():
        return x @ W
    width = uncopied(x, W)
    step = width or 64  # columns, whole lines of the cache
    y = numpy.empty((n, columns), x.dtype)

    def part(steps: slice) -> None:
        start, stop = steps.start * step, min(steps.stop * step, columns)
        pieces = (stop - start) // width if width else 0
        rest = start + pieces * width
        if pieces:  # one call for all, (pieces, n, width): threads would wait for each other between calls
            W_pieces = W[:, start:rest].reshape(inner, pieces, width).swapaxes(0, 1)
            y_pieces = y[:, start:rest].reshape(n, pieces, width).swapaxes(0, 1)
            numpy.matmul(x, W_pieces, out=y_pieces)
        if rest < stop:
            numpy.matmul(x, W[:, rest:stop], out=y[:, rest:stop])

    shared(part, -(-columns // step), 2 if n * W.size >= LEAST else math.inf)
    return y


def uncopied(x: Any, W: Any) -> int:
    """Return how many columns of W, in whole cache lines, BLAS multiplies by x without copying them."""
    width = SMALL // x.size
    if W.strides[0] < W.strides[1]:  # the transpose of an embedding
        width = min(width, SMALL_TRANSPOSED // len(x))
    return width // 64 * 64


def row_sums(g: Any) -> Any:
    """Return the sum of all rows: a product with ones is faster than a reduction."""
    return xp.ones(g.shape[0], g.dtype) @ g
