"""The kernels of ``gelu``, ``gelu_tanh`` and ``silu``."""

from __future__ import annotations

import math
from typing import Any

from ..backend import xp
from ..formulas import gelu, gelu_tanh, silu
from ..ops.special import erf_array
from .common import blocks, fusible, scratch
from .threads import each


@gelu.kernel
class GELU:
    """y = x Phi(x) with the normal distribution Phi(x) = (1 + erf(x / sqrt 2)) / 2."""

    @staticmethod
    def forward(x: Any) -> Any:
        """Compute y block by block; save x and Phi(x), which costs more than all else."""
        if not fusible(x):
            return NotImplemented
        flat = x.reshape(x.size)
        y, Phi = xp.empty(flat.shape, x.dtype), xp.empty(flat.shape, x.dtype)

        def part(block: Any) -> None:
            p = xp.multiply(flat[block], math.sqrt(0.5), out=Phi[block])
            xp.add(erf_array(p), 1, out=p)
            p *= 0.5
            xp.multiply(flat[block], p, out=y[block])

        each(part, blocks(flat.size))
        return y.reshape(x.shape), (flat, Phi)

    # Phi'(x) = e^(-x^2 / 2) / sqrt(2 pi), so  dy/dx = Phi(x) + x e^(-x^2 / 2) / sqrt(2 pi)
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g (Phi + x Phi')."""
        x, Phi = saved
        g = g.reshape(x.shape)
        dx = xp.empty(x.shape, x.dtype)

        def part(block: Any) -> None:
            d = xp.multiply(x[block], x[block], out=dx[block])
            d *= -0.5
            xp.exp(d, out=d)
            d *= 1 / math.sqrt(2 * math.pi)
            d *= x[block]
            d += Phi[block]
            d *= g[block]

        each(part, blocks(x.size))
        return [dx.reshape(y.shape)]


SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715 * SCALE


@gelu_tanh.kernel
class GELUTanh:
    """y = x (1 + t) / 2 with t = tanh(x (a + c x^2)), a = sqrt(2 / pi), c = 0.044715 a."""

    @staticmethod
    def forward(x: Any) -> Any:
        """Compute y block by block; save x alone, for tanh costs less than the memory of its result."""
        if not fusible(x):
            return NotImplemented
        flat = x.reshape(x.size)
        y = xp.empty(flat.shape, x.dtype)

        def part(block: Any) -> None:
            t = xp.multiply(flat[block], flat[block], out=y[block])
            t *= CUBIC
            t += SCALE
            t *= flat[block]
            xp.tanh(t, out=t)
            t += 1
            t *= flat[block]
            t *= 0.5

        each(part, blocks(flat.size))
        return y.reshape(x.shape), flat

    # With u = x (a + c x^2):  u' = a + 3 c x^2,  t' = (1 - t^2) u',  so
    #   dy/dx = ((1 + t) + x (1 - t^2) u') / 2 = (1 + t) (1 + (1 - t) x u') / 2
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g (1 + t) (1 + (1 - t) x u') / 2, with t computed again."""
        x, g = saved, g.reshape(saved.shape)
        dx = xp.empty(x.shape, x.dtype)

        def part(block: Any) -> None:
            t, slope = (scratch(name, x[block].shape, x.dtype) for name in ("tanh", "slope"))
            xp.multiply(x[block], x[block], out=t)
            t *= CUBIC  # c x^2
            xp.multiply(t, 3, out=slope)
            slope += SCALE
            slope *= x[block]  # x u'
            t += SCALE
            t *= x[block]
            xp.tanh(t, out=t)
            d = xp.subtract(1, t, out=dx[block])
            d *= slope
            d += 1
            t += 1
            d *= t
            d *= 0.5
            d *= g[block]

        each(part, blocks(x.size))
        return [dx.reshape(y.shape)]


@silu.kernel
class SiLU:
    """y = x s with the sigmoid s = (1 + tanh(x / 2)) / 2, which does not overflow."""

    @staticmethod
    def forward(x: Any) -> Any:
        """Compute y block by block; save x alone."""
        if not fusible(x):
            return NotImplemented
        flat = x.reshape(x.size)
        y = xp.empty(flat.shape, x.dtype)

        def part(block: Any) -> None:
            s = sigmoid_into(y[block], flat[block])
            s *= flat[block]

        each(part, blocks(flat.size))
        return y.reshape(x.shape), flat

    # s' = s (1 - s), so  dy/dx = s + x s (1 - s) = s (1 + x (1 - s))
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g s (1 + x (1 - s)), with s computed again."""
        x, g = saved, g.reshape(saved.shape)
        dx = xp.empty(x.shape, x.dtype)

        def part(block: Any) -> None:
            s = sigmoid_into(scratch("sigmoid", x[block].shape, x.dtype), x[block])
            d = xp.subtract(1, s, out=dx[block])
            d *= x[block]
            d += 1
            d *= s
            d *= g[block]

        each(part, blocks(x.size))
        return [dx.reshape(y.shape)]


def sigmoid_into(out: Any, x: Any) -> Any:
    """Write the sigmoid of x."""
    xp.multiply(x, 0.5, out=out)
    xp.tanh(out, out=out)
    out += 1
    out *= 0.5
    return out
