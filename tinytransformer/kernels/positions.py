"""The kernel of ``rotary_positions``."""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..formulas import rotary_positions
from ..formulas.positions import rotation
from .common import fusible


@rotary_positions.kernel
class RotaryPositions:
    """Both halves are multiplied by the cosine at once; then each gets its part of the other."""

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
    """Return (a cos - b sin, b cos + a sin) for the halves a and b of the features."""
    half = x.shape[-1] // 2
    y = xp.multiply(x, xp.concatenate([cosine, cosine], axis=-1), out=xp.empty_like(x))  # laid out as x
    y[..., :half] -= x[..., half:] * sine
    y[..., half:] += x[..., :half] * sine
    return y
