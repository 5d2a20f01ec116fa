"""The kernel of ``linear``."""

from __future__ import annotations

import math
from typing import Any

from ..backend import xp
from ..formulas import linear
from .common import fusible


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
        y = rows @ W  # (n, out)
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


def row_sums(g: Any) -> Any:
    """Return the sum of all rows: a product with ones is faster than a reduction."""
    return xp.ones(g.shape[0], g.dtype) @ g
