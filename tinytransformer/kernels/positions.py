"""The kernel of ``rotary_positions``."""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..formulas import rotary_positions
from ..formulas.positions import rotation
from .common import fusible


@rotary_positions.kernel
class RotaryPositions:
    """Each half of the features is written in place: no array is cut or joined."""

    @staticmethod
    def forward(x: Any, positions: Any, theta: float = 10000.0) -> Any:
        """Rotate; save cosine and sine."""
        if not fusible(x):
            return NotImplemented
        cosine, sine = rotation(x, positions, theta)
        return rotated(x, cosine, sine), (cosine, sine)

    # the transpose of a rotation is the rotation by the opposite angle
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Rotate g back."""
        cosine, sine = saved
        return rotated(g, cosine, -sine), None


def rotated(x: Any, cosine: Any, sine: Any) -> Any:
    """Return (a cos - b sin, a sin + b cos) for the halves a and b of the features."""
    y = xp.empty_like(x)  # laid out as x: to merge heads stays free
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    first, second = y[..., :half], y[..., half:]
    xp.multiply(a, cosine, out=first)
    first -= b * sine
    xp.multiply(a, sine, out=second)
    second += b * cosine
    return y
