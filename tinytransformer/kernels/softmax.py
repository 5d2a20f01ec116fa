"""The kernels of ``softmax``, ``log_softmax`` and ``masked_softmax``."""

from __future__ import annotations

import math
from typing import Any

from ..backend import xp
from ..formulas import log_softmax, masked_softmax, softmax
from ..formulas.masks import fitted
from .common import blocks, fusible, moderate
from .threads import each


def as_rows(x: Any, axis: int) -> tuple[Any, tuple[int, ...]]:
    """Return x as rows along an axis, and the shape it has with that axis last."""
    last = xp.swapaxes(x, axis, -1)
    return last.reshape(math.prod(last.shape[:-1]), last.shape[-1]), last.shape


def from_rows(rows: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Undo `as_rows`."""
    return xp.swapaxes(rows.reshape(shape), axis, -1)


def largest(x: Any) -> Any:
    """Return the largest entry of each row, shape (..., 1); 0 where all are -inf, and -inf - 0 stays -inf."""
    m = x.max(axis=-1, keepdims=True)
    return xp.where(m > -math.inf, m, 0)


def sums(x: Any) -> Any:
    """Return the sum of each row, shape (..., 1): a product with ones is faster than a reduction."""
    return x @ xp.ones((x.shape[-1], 1), x.dtype)


def takes(x: Any, axis: Any) -> bool:
    """Return True if x has rows to work on along this one axis."""
    return fusible(x) and type(axis) is int and -x.ndim <= axis < x.ndim


@softmax.kernel
class Softmax:
    """y_i = e^(x_i - m) / sum_j e^(x_j - m)."""

    @staticmethod
    def forward(x: Any, axis: int = -1) -> Any:
        """Compute y block by block; save it as rows."""
        if not takes(x, axis):
            return NotImplemented
        rows, shape = as_rows(x, axis)
        y = xp.empty(rows.shape, rows.dtype)

        def part(block: Any) -> None:
            e = y[block]
            if moderate(rows[block]):
                xp.exp(rows[block], out=e)
            else:
                xp.subtract(rows[block], rows[block].max(axis=-1, keepdims=True), out=e)
                xp.exp(e, out=e)
            e /= sums(e)

        each(part, blocks(*rows.shape))
        return from_rows(y, shape, axis), (y, shape, axis)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """See `softmax_gradient`."""
        rows, shape, axis = saved
        return [from_rows(softmax_gradient(as_rows(g, axis)[0], rows), shape, axis)]


# dy_i/dx_j = y_i ([i = j] - y_j), so with g = dL/dy:
#   dL/dx_j = sum_i g_i y_i ([i = j] - y_j) = y_j (g_j - sum_i g_i y_i)
def softmax_gradient(g: Any, y: Any) -> Any:
    """Return dx = y (g - sum g y) for each row."""
    dx = xp.empty(y.shape, y.dtype)

    def part(block: Any) -> None:
        d = xp.multiply(g[block], y[block], out=dx[block])
        xp.subtract(g[block], sums(d), out=d)
        d *= y[block]

    each(part, blocks(*y.shape))
    return dx


@log_softmax.kernel
class LogSoftmax:
    """y_i = x_i - log sum_j e^(x_j)."""

    @staticmethod
    def forward(x: Any, axis: int = -1) -> Any:
        """Compute y block by block; save it as rows."""
        if not takes(x, axis):
            return NotImplemented
        rows, shape = as_rows(x, axis)
        y = xp.empty(rows.shape, rows.dtype)

        def part(block: Any) -> None:
            xp.subtract(rows[block], log_sums(rows[block], y[block]), out=y[block])

        each(part, blocks(*rows.shape))
        return from_rows(y, shape, axis), (y, shape, axis)

    # dy_i/dx_j = [i = j] - e^(y_j), so with g = dL/dy:  dL/dx_j = g_j - e^(y_j) sum_i g_i
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g - e^y sum g for each row."""
        rows, shape, axis = saved
        g, _ = as_rows(g, axis)
        dx = xp.empty(rows.shape, rows.dtype)

        def part(block: Any) -> None:
            d = xp.exp(rows[block], out=dx[block])
            d *= sums(g[block])
            xp.subtract(g[block], d, out=d)

        each(part, blocks(*rows.shape))
        return [from_rows(dx, shape, axis)]


def log_sums(x: Any, e: Any) -> Any:
    """Return log sum_j e^(x_j) of each row, shape (n, 1); e is room of the shape of x."""
    if moderate(x):
        return xp.log(sums(xp.exp(x, out=e)))
    m = largest(x)
    xp.subtract(x, m, out=e)
    return xp.log(sums(xp.exp(e, out=e))) + m


@masked_softmax.kernel
class MaskedSoftmax:
    """y_i = M_i e^(x_i) / sum_j M_j e^(x_j), or 0 in a row that allows nothing."""

    @staticmethod
    def forward(x: Any, mask: Any) -> Any:
        """Compute y in place; save it."""
        if not fusible(x):
            return NotImplemented
        M = fitted(mask, x.shape)
        if moderate(x):
            y = xp.exp(x)
            y *= M
        else:
            y = xp.where(M, x, -math.inf)
            y -= largest(y)
            xp.exp(y, out=y)
        total = sums(y)
        total += total == 0  # nothing allowed: 0 / 1
        y /= total
        return y, y

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Where y is 0, for any reason, so is the gradient: see `softmax_gradient`."""
        g, _ = as_rows(g, -1)
        rows, shape = as_rows(saved, -1)
        return [softmax_gradient(g, rows).reshape(shape)]
