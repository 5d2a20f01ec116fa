"""The GPU's kernels of ``layer_norm`` and ``rms_norm``."""

from __future__ import annotations

import math
from typing import Any

from ...backend import xp
from ...formulas import layer_norm, rms_norm
from ..common import fusible
from .device import dense, launch, launch_rows, on_gpu, real

WARPS = 8  # of a block that adds up rows
MOST_PARTS = 64  # into which the rows are parted for the sums over them


@on_gpu(layer_norm)
class LayerNorm:
    """One block for each row."""

    @staticmethod
    def forward(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
        """Save x, mu and r."""
        if not (fusible(x, gamma, beta) and gamma.shape == beta.shape == x.shape[-1:] and x.size):
            return NotImplemented
        return normalized(x, gamma, beta, eps)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx and the sums over the rows, dgamma and dbeta."""
        g = dense(g)
        dx = input_gradient(g, saved, True) if needs[0] else None
        dgamma, dbeta = parameter_gradients(g, saved) if any(needs[1:]) else (None, None)
        return dx, dgamma, dbeta


@on_gpu(rms_norm)
class RMSNorm:
    """The same with mu = 0."""

    @staticmethod
    def forward(x: Any, gamma: Any, eps: float = 1e-6) -> Any:
        """Save x and r."""
        if not (fusible(x, gamma) and x.ndim and x.size and gamma.shape == x.shape[-1:]):
            return NotImplemented
        return normalized(x, gamma, None, eps)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx and dgamma."""
        g = dense(g)
        dx = input_gradient(g, saved, False) if needs[0] else None
        return dx, parameter_gradients(g, saved)[0] if needs[1] else None


def normalized(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Return y, and what the backward needs; without beta the rows are not centred."""
    x, gamma = dense(x), dense(gamma)
    d = x.shape[-1]
    n = math.prod(x.shape[:-1])
    y, mu, r = (xp.empty(shape, x.dtype) for shape in (x.shape, n, n))
    centred = beta is not None
    shift = dense(beta) if centred else gamma
    launch_rows("normalize", n, d, x, gamma, shift, y, mu, r, d, real(eps, x), centred)
    return y, (x, gamma, mu, r)


def input_gradient(g: Any, saved: Any, centred: bool) -> Any:
    """Return dx."""
    x, gamma, mu, r = saved
    dx = xp.empty(x.shape, x.dtype)
    launch_rows("normalize_gradient", mu.size, gamma.size, g, x, gamma, mu, r, dx, gamma.size, centred)
    return dx


def parameter_gradients(g: Any, saved: Any) -> tuple[Any, Any]:
    """Return dgamma and dbeta."""
    x, gamma, mu, r = saved
    parts = min(-(-mu.size // WARPS), MOST_PARTS)
    sums = [xp.empty((parts, gamma.size), x.dtype) for _ in range(2)]
    blocks = (-(-gamma.size // 32), parts)
    launch("normalize_parameters", blocks, 32 * WARPS, g, x, mu, r, *sums, mu.size, gamma.size)
    dgamma, dbeta = (part.sum(axis=0) for part in sums)
    return dgamma, dbeta
