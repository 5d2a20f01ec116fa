"""The kernels of ``layer_norm`` and ``rms_norm``."""

from __future__ import annotations

import math
from typing import Any

from ..backend import xp
from ..formulas import layer_norm, rms_norm
from .common import blocks, fusible, scratch
from .threads import each


@layer_norm.kernel
class LayerNorm:
    """y = gamma n + beta with n = (x - mu) r, r = 1 / sqrt(sigma^2 + eps)."""

    @staticmethod
    def forward(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
        """Compute y block by block; save x, mu and r, from which n comes back at little cost."""
        if not (fusible(x, gamma, beta) and gamma.shape == beta.shape == x.shape[-1:] and x.size):
            return NotImplemented
        d = x.shape[-1]
        rows = x.reshape(math.prod(x.shape[:-1]), d)
        mean = xp.full((d, 1), 1 / d, x.dtype)  # x @ mean is the mean of each row
        y = xp.empty(rows.shape, x.dtype)
        mu, r = (xp.empty((rows.shape[0], 1), x.dtype) for _ in range(2))

        def part(block: Any) -> None:
            mu[block] = rows[block] @ mean
            n = xp.subtract(rows[block], mu[block], out=y[block])
            square = xp.multiply(n, n, out=scratch("square", n.shape, x.dtype))
            r[block] = 1 / xp.sqrt(square @ mean + eps)
            n *= r[block]
            n *= gamma
            n += beta

        each(part, blocks(*rows.shape))
        return y.reshape(x.shape), (rows, mu, r, gamma, mean)

    # With n_j = (x_j - mu) r and h = g gamma:  dmu/dx_i = 1/d,  dr/dx_i = -r^2 n_i / d,
    #   dn_j/dx_i = r ([i = j] - 1/d - n_i n_j / d),  so  dL/dx_i = r (h_i - mean_j h_j - n_i mean_j h_j n_j)
    # and, summed over all rows,  dL/dgamma = sum g n,  dL/dbeta = sum g
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = r (h - mean h - n mean(h n)) with h = g gamma."""
        x, mu, r, gamma, mean = saved
        g = g.reshape(x.shape)
        dx = xp.empty(x.shape, x.dtype)
        weighted = mean * gamma[:, None]  # g @ weighted is the mean of h

        def part(block: Any) -> tuple[Any, Any]:
            centred = xp.subtract(x[block], mu[block], out=scratch("centred", x[block].shape, x.dtype))
            d = xp.multiply(g[block], centred, out=dx[block])  # g n / r
            sums = r[block, 0] @ d, xp.ones(d.shape[0], x.dtype) @ g[block]  # over the rows of g n, and of g
            centred *= r[block] ** 2 * (d @ weighted)  # n mean(h n)
            xp.multiply(g[block], gamma, out=d)
            d -= g[block] @ weighted
            d -= centred
            d *= r[block]
            return sums

        dgamma, dbeta = map(sum, zip(*each(part, blocks(*x.shape)), strict=True))
        return dx.reshape(y.shape), dgamma, dbeta


@rms_norm.kernel
class RMSNorm:
    """y = gamma n with n = x r, r = 1 / sqrt(mean x^2 + eps)."""

    @staticmethod
    def forward(x: Any, gamma: Any, eps: float = 1e-6) -> Any:
        """Compute y block by block; save x and r."""
        if not (fusible(x, gamma) and x.ndim and x.shape[-1] and gamma.shape == x.shape[-1:]):
            return NotImplemented
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        mean = xp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)  # x @ mean is the mean of each row
        y, r = xp.empty(rows.shape, x.dtype), xp.empty((rows.shape[0], 1), x.dtype)

        def part(block: Any) -> None:
            square = xp.multiply(rows[block], rows[block], out=y[block])
            r[block] = 1 / xp.sqrt(square @ mean + eps)
            xp.multiply(rows[block], r[block], out=y[block])
            y[block] *= gamma

        each(part, blocks(*rows.shape))
        return y.reshape(x.shape), (rows, r, gamma, mean)

    # With n_j = x_j r and h = g gamma:  dr/dx_i = -r^2 n_i / d,  dn_j/dx_i = r ([i = j] - n_i n_j / d),
    #   so  dL/dx_i = r (h_i - n_i mean_j h_j n_j)  and, summed over all rows,  dL/dgamma = sum g n
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = r (h - n mean(h n)) with h = g gamma, and dgamma."""
        x, r, gamma, mean = saved
        g = g.reshape(x.shape)
        dx = xp.empty(x.shape, x.dtype) if needs[0] else None

        def part(block: Any) -> Any:
            n = xp.multiply(x[block], r[block], out=scratch("n", x[block].shape, x.dtype))
            g_n = xp.multiply(g[block], n, out=scratch("g n", n.shape, x.dtype))
            total = xp.ones(n.shape[0], x.dtype) @ g_n
            if dx is not None:
                n *= g_n @ (mean * gamma[:, None])  # n mean(h n)
                d = xp.multiply(g[block], gamma, out=dx[block])
                d -= n
                d *= r[block]
            return total

        totals = each(part, blocks(*x.shape))
        dgamma = sum(totals, start=xp.zeros_like(gamma)) if needs[1] else None
        return None if dx is None else dx.reshape(y.shape), dgamma
