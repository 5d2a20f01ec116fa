"""The kernel of ``attention``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy

from ..backend import xp
from ..formulas import attention
from ..formulas.masks import _with_axes, fitted
from .common import LIMIT, fusible, scratch
from .softmax import largest, sums

TILE = 131072  # scores at once: with the same number of their gradients, as much as fits the cache
ROWS = 32  # fewer queries at once than this make matrix products slow


@attention.kernel
class Attention:
    """o_i = sum_j e_ij v_j / Z_i with e_ij = M_ij exp(q_i k_j / sqrt(d_k) - m_i) and Z_i = sum_j e_ij.

    Scores are computed tile by tile, and again in the backward: no array (T_q, T_k) is kept.
    """

    @staticmethod
    def forward(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
        """Compute o; save the inputs, m and Z."""
        if not (fusible(Q, K, V) and 2 <= Q.ndim <= 4 and Q.size and K.size and V.size):
            return NotImplemented
        T_q, T_k = Q.shape[-2], K.shape[-2]
        if K.shape != (*Q.shape[:-2], T_k, Q.shape[-1]) or V.shape[:-1] != K.shape[:-1]:
            return NotImplemented
        M = None if mask is None else _with_axes(fitted(mask, (*Q.shape[:-1], T_k)), 4)
        o = xp.empty_like(Q, shape=(*Q.shape[:-1], V.shape[-1]))  # laid out as Q: to merge heads is free
        q, k, v, out = (_with_axes(array, 4) for array in (Q, K, V, o))  # (batch, heads, T, d)
        causal = mask is not None and mask.is_causal and mask.shape[-2:] == (T_q, T_k)
        Z = xp.empty((*q.shape[:-1], 1), Q.dtype)
        m = None if bounded(q, k) else xp.empty_like(Z)
        for tile in tiles(*q.shape[:-1], T_k, causal):
            at, keys = tile
            e = exponentials(q, k, M, m, tile, first=True)
            Z[at] = sums(e)
            Z[at] += Z[at] == 0  # nothing allowed: 0 / 1
            xp.matmul(e, v[keys], out=out[at])
        out /= Z
        return o, (Q, K, V, M, m, Z, causal)

    # With P = e / Z, S = q k^T / sqrt(d_k), O = P v and g = dL/dO, for each head:
    #   dL/dV = P^T g,  dL/dP = g V^T,
    #   dL/dS = P (dL/dP - rowsum(P dL/dP)) = P (dL/dP - rowsum(O g)), as rows of the softmax,
    #   dL/dQ = dL/dS K / sqrt(d_k),  dL/dK = dL/dS^T Q / sqrt(d_k)
    # 1/Z goes into g, which is smaller than P: P^T g = e^T (g/Z), and so on.
    @staticmethod
    def backward(g: Any, o: Any, saved: Any, needs: list[bool]) -> Any:
        """Compute each tile's e again and from it its part of dQ, dK and dV."""
        Q, K, V, M, m, Z, causal = saved
        gradients = [xp.empty_like(a) if need else None for a, need in zip((Q, K, V), needs, strict=False)]
        q, k, v, g, o = (_with_axes(array, 4) for array in (Q, K, V, g, o))
        dQ, dK, dV = (None if array is None else _with_axes(array, 4) for array in gradients)
        for tile in tiles(*q.shape[:-1], k.shape[2], causal):
            at, keys = tile
            whole = at[2].stop == q.shape[2]  # the first tile of these heads, which has all their keys
            e = exponentials(q, k, M, m, tile)
            g_Z = xp.divide(g[at], Z[at], out=scratch("g/Z", g[at].shape, g.dtype))
            if dV is not None:
                product_into(dV[keys], e.mT, g_Z, whole)
            if dQ is None and dK is None:
                continue
            dS = xp.matmul(g_Z, v[keys].mT, out=scratch("dS", e.shape, e.dtype))
            g_Z *= o[at]
            dS -= sums(g_Z)
            dS *= e
            if dQ is not None:
                xp.matmul(dS, k[keys], out=dQ[at])
                dQ[at] *= scale(q)
            if dK is not None:
                product_into(dK[keys], dS.mT, scaled(q, at), whole)
        return gradients


def scale(q: Any) -> float:
    """1 / sqrt(d_k)."""
    return 1 / math.sqrt(q.shape[-1])


def scaled(q: Any, at: Any) -> Any:
    """Return the queries of a tile, divided by sqrt(d_k)."""
    return xp.multiply(q[at], scale(q), out=scratch("queries", q[at].shape, q.dtype))


def product_into(out: Any, a: Any, b: Any, first: bool) -> None:
    """Write a product, or add it to what is there."""
    if first:
        xp.matmul(a, b, out=out)
    else:
        out += xp.matmul(a, b, out=scratch("product", out.shape, out.dtype))


def bounded(q: Any, k: Any) -> bool:
    """Return True if no score can be too large to exponentiate as it is, for |q k| <= |q| |k|.

    With few queries it is quicker to find the largest score, and the host should not wait for a GPU.
    """
    if xp.module is not numpy or q.shape[2] < q.shape[3]:
        return False
    with numpy.errstate(over="ignore"):
        return bool(numpy.vecdot(q, q).max() * numpy.vecdot(k, k).max() * scale(q) ** 2 < LIMIT**2)


def tiles(batch: int, heads: int, T_q: int, T_k: int, causal: bool) -> Iterator[tuple[Any, Any]]:
    """Yield the places of queries and of keys, tile by tile; of each head the last queries first.

    Under a causal mask a tile ends at the last key that its last query may attend to: with four tiles a
    head, three eighths of the scores are never computed.
    """
    on_host = xp.module is numpy
    tile = TILE if on_host else batch * heads * T_q * T_k
    rows = min(T_q, max(ROWS, tile // T_k))
    if on_host and causal:
        rows = min(rows, max(ROWS, -(-T_q // 4)))
    items = max(1, tile // (rows * T_k))
    for b in range(0, batch, max(1, items // heads)):
        some = slice(b, min(b + max(1, items // heads), batch))
        for h in range(0, heads, items):
            for r in reversed(range(0, T_q, rows)):
                stop = min(r + rows, T_q)
                keys = stop + T_k - T_q if causal else T_k
                yield (some, slice(h, h + items), slice(r, stop)), (some, slice(h, h + items), slice(0, keys))


def exponentials(q: Any, k: Any, M: Any, m: Any, tile: Any, first: bool = False) -> Any:
    """Return e of one tile: exp of the scores, less m unless that is None, or 0 where the mask forbids."""
    at, keys = tile
    queries = scaled(q, at)
    e = scratch("e", (*queries.shape[:-1], keys[2].stop), q.dtype)
    xp.matmul(queries, k[keys].mT, out=e)
    if M is not None:  # an axis of length 1 stands for any
        M = M[tuple(s if n > 1 else slice(None) for s, n in zip((*at, keys[2]), M.shape, strict=True))]
    if m is None:
        xp.exp(e, out=e)
        if M is not None:
            e *= M.astype(e.dtype)
    else:
        if M is not None:
            xp.copyto(e, -math.inf, where=~M)
        if first:
            m[at] = largest(e)
        e -= m[at]
        xp.exp(e, out=e)
    return e
