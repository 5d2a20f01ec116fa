"""The GPU's kernels of ``softmax``, ``log_softmax`` and ``masked_softmax``."""

from __future__ import annotations

from typing import Any

from ...backend import xp
from ...formulas import log_softmax, masked_softmax, softmax
from ...formulas.masks import _with_axes, fitted
from ..common import fusible
from ..softmax import as_rows, from_rows, takes
from .attention import exponentials
from .device import dense, launch_rows, on_gpu


def rowwise(name: str, *rows: Any) -> Any:
    """Run a kernel that maps rows of one or more arrays (n, width) to rows of a new one."""
    out = xp.empty(rows[0].shape, rows[0].dtype)
    launch_rows(name, *out.shape, *map(dense, rows), out, out.shape[1])
    return out


@on_gpu(softmax)
class Softmax:
    """One block for each row: its largest entry, the sum, the quotients."""

    @staticmethod
    def forward(x: Any, axis: int = -1) -> Any:
        """Save y as rows."""
        if not takes(x, axis):
            return NotImplemented
        rows, shape = as_rows(x, axis)
        y = rowwise("softmax", rows)
        return from_rows(y, shape, axis), (y, shape, axis)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = y (g - sum g y)."""
        rows, shape, axis = saved
        return [from_rows(rowwise("softmax_gradient", as_rows(g, axis)[0], rows), shape, axis)]


@on_gpu(log_softmax)
class LogSoftmax:
    """One block for each row."""

    @staticmethod
    def forward(x: Any, axis: int = -1) -> Any:
        """Save y as rows."""
        if not takes(x, axis):
            return NotImplemented
        rows, shape = as_rows(x, axis)
        y = rowwise("log_softmax", rows)
        return from_rows(y, shape, axis), (y, shape, axis)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g - e^y sum g."""
        rows, shape, axis = saved
        return [from_rows(rowwise("log_softmax_gradient", as_rows(g, axis)[0], rows), shape, axis)]


@on_gpu(masked_softmax)
class MaskedSoftmax:
    """The softmax within attention, with its sum divided out."""

    @staticmethod
    def forward(x: Any, mask: Any) -> Any:
        """Save y."""
        if not (fusible(x) and 2 <= x.ndim <= 4 and x.size):
            return NotImplemented
        fitted(mask, x.shape)
        y = _with_axes(x, 4).copy()
        total, _ = exponentials(y, mask, None, 1.0)
        y /= total
        y = y.reshape(x.shape)
        return y, y

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Where y is 0, for any reason, so is the gradient."""
        rows, shape = as_rows(saved, -1)
        return [rowwise("softmax_gradient", as_rows(g, -1)[0], rows).reshape(shape)]
