"""The kernel of ``dropout``."""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..formulas import dropout
from .common import blocks, fusible


@dropout.kernel
class Dropout:
    """y = x m / (1 - p)."""

    @staticmethod
    def forward(x: Any, keep: Any, p: float) -> Any:
        """Compute y block by block; save m, one byte for each entry."""
        if not (fusible(x) and getattr(keep, "dtype", None) == bool and keep.shape == x.shape):
            return NotImplemented
        keep = keep.reshape(-1)
        return scaled(x, keep, p), (keep, p)

    # dL/dx = dL/dy m / (1 - p)
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """dx = g m / (1 - p)."""
        return [scaled(g, *saved)]


def scaled(x: Any, keep: Any, p: float) -> Any:
    """Return x m / (1 - p)."""
    flat = x.reshape(-1)
    y = xp.empty(flat.shape, x.dtype)
    for block in blocks(flat.size):
        xp.multiply(flat[block], keep[block], out=y[block])
        y[block] /= 1 - p
    return y.reshape(x.shape)
