"""The kernel of ``self_attention``: its projections, and the kernel of ``attention`` between them."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ..backend import xp
from ..formulas import self_attention
from .attention import GeneralAttention, backward_into
from .common import fusible
from .linear import row_sums


@self_attention.kernel
class SelfAttention:
    """y = Concat(o) W_O + b_O with o = softmax(q k^T) v of each head, (q k v) = x W + b.

    W = (c W_Q, W_K, W_V) with c = 1 / sqrt d_k, and b likewise: one product for all three. q, k, v and their
    gradients are views of its result and never copied.
    """

    @staticmethod
    def forward(
        x: Any,
        W_Q: Any,
        W_K: Any,
        W_V: Any,
        W_O: Any,
        b_Q: Any = None,
        b_K: Any = None,
        b_V: Any = None,
        b_O: Any = None,
        *,
        heads: int,
        mask: Any = None,
    ) -> Any:
        """Compute y; save x as rows, the parameters, (q k v), and o with what its kernel saves."""
        biases = [b for b in (b_Q, b_K, b_V, b_O) if b is not None]
        parameters = [W_Q, W_K, W_V, W_O, *biases]
        if xp.module is not numpy or not fusible(x, *parameters) or x.ndim != 3 or not x.size:
            return NotImplemented
        batch, T, d = x.shape
        shapes = [(d, d)] * 4 + [(d,)] * 4
        if d % heads or [p.shape for p in parameters] not in (shapes, shapes[:4]):
            return NotImplemented
        c = math.sqrt(heads / d)  # 1 / sqrt d_k: the queries come out scaled
        rows = x.reshape(batch * T, d)
        W = numpy.concatenate([c * W_Q, W_K, W_V], axis=1)  # (d, 3 d)
        projected = rows @ W  # (n, 3 d)
        if biases:
            projected += numpy.concatenate([c * b_Q, b_K, b_V])
        q, k, v = in_heads(projected, x.shape, heads)
        o, saved = GeneralAttention.forward(q, k, v, mask, scale=1.0)
        joined = o.swapaxes(1, 2).reshape(batch * T, d)  # no copy, for o is laid out as q
        y = joined @ W_O
        if biases:
            y += b_O
        return y.reshape(x.shape), (rows, W, W_O, c, projected, o, joined, saved)

    # With g = dL/dy:  dL/dW_O = o^T g,  dL/dO = g W_O^T;  attention's backward makes dL/d(q k v) of it, and
    #   dL/dx = dL/d(q k v) W^T,  dL/d(c W_Q, W_K, W_V) = x^T dL/d(q k v)
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return the gradients of x, the four matrices and the four biases."""
        rows, W, W_O, c, projected, o, joined, saved = saved
        shape, heads, d = y.shape, o.shape[1], rows.shape[1]
        g = g.reshape(rows.shape)
        do = (g @ W_O.T).reshape(*shape[:2], heads, d // heads).swapaxes(1, 2)
        d_projected = numpy.empty_like(projected)
        backward_into([*in_heads(d_projected, shape, heads), None, None], do, o, saved)
        dx = (d_projected @ W.T).reshape(shape) if needs[0] else None
        dW = thirds(rows.T @ d_projected, c, needs[1:4])
        db = thirds(row_sums(d_projected), c, needs[5:8])
        dW_O = joined.T @ g if needs[4] else None
        db_O = row_sums(g) if needs[8:] == [True] else None
        return dx, *dW, dW_O, *db, db_O


def thirds(gradient: Any, c: float, needs: list[bool]) -> list[Any]:
    """Part the gradient of (c W_Q, W_K, W_V), or of the biases, into those of the three."""
    d = gradient.shape[-1] // 3
    gradient[..., :d] *= c
    return [gradient[..., i * d : (i + 1) * d] if need else None for i, need in enumerate(needs)]


def in_heads(projected: Any, shape: tuple[int, ...], heads: int) -> Any:
    """Return (3, batch, heads, T, d_k): q, k and v as views of (batch T, 3 d)."""
    batch, T, d = shape
    return projected.reshape(batch, T, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
