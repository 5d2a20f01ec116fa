"""The kernel of ``dropout``."""

from __future__ import annotations

from typing import Any

from ..backend import is_array
from ..formulas import dropout
from .common import fusible


@dropout.kernel
class Dropout:
    """y = x m / (1 - p)."""

    @staticmethod
    def forward(x: Any, keep: Any, p: float) -> Any:
        """Compute y in place; save m, one byte for each entry."""
        if not (fusible(x) and is_array(keep) and keep.dtype.kind == "b" and keep.shape == x.shape):
            return NotImplemented
        y = x * keep
        y /= 1 - p
        return y, (keep, p)

    # dL/dx = dL/dy m / (1 - p)
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g m / (1 - p)."""
        keep, p = saved
        dx = g * keep
        dx /= 1 - p
        return [dx]
