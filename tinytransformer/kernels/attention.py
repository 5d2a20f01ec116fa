"""The kernels of ``attention`` and ``general_attention``: one code, for the first is a case of the second."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy

from ..backend import is_array, xp
from ..formulas import attention, general_attention
from ..formulas.masks import _with_axes, fitted
from .common import LIMIT, fusible, scratch
from .softmax import largest, sums
from .threads import each

TILE = 131072  # scores at once: with the same number of their gradients, as much as fits the cache
ROWS = 32  # fewer queries at once than this make matrix products slow


@general_attention.kernel
class GeneralAttention:
    """o_i = sum_j e_ij v_j / Z_i with e_ij = M_ij exp(c q_i k_j + B_ij - m_i) and Z_i = sum_j e_ij.

    Scores are computed tile by tile, and again in the backward: no array (T_q, T_k) is kept, unless a single
    tile is all. Where a group of heads shares keys and values, its queries stand below each other for the
    products with them.
    """

    @staticmethod
    def forward(Q: Any, K: Any, V: Any, mask: Any = None, bias: Any = None, scale: Any = None) -> Any:
        """Compute o; save the inputs, m and Z."""
        if not (fusible(Q, K, V) and 2 <= Q.ndim <= 4 and Q.size and K.size and V.size):
            return NotImplemented
        T_q, T_k = Q.shape[-2], K.shape[-2]
        if K.ndim != Q.ndim or K.shape[-1] != Q.shape[-1] or V.shape[:-1] != K.shape[:-1]:
            return NotImplemented
        shared = Q.ndim == 4 and K.shape[0] == Q.shape[0] and Q.shape[1] % K.shape[1] == 0
        if not (shared or K.shape[:-2] == Q.shape[:-2]):
            return NotImplemented
        if bias is not None and not (fusible(Q, bias) and bias.ndim == Q.ndim == 4 and fits(bias, Q, T_k)):
            return NotImplemented
        causal = getattr(mask, "is_causal", False) and mask.shape[-2:] == (
            T_q,
            T_k,
        )  # another is refused below
        if T_q == 1 and bias is None and (mask is None or (causal and allows_all(mask))):
            return one_query(Q, K, V, 1 / math.sqrt(Q.shape[-1]) if scale is None else scale)
        M = None if mask is None else _with_axes(fitted(mask, (*Q.shape[:-1], T_k)), 4)
        o = xp.empty_like(Q, shape=(*Q.shape[:-1], V.shape[-1]))  # laid out as Q: to merge heads is free
        k, v = _with_axes(K, 4), _with_axes(V, 4)  # (batch, groups, T_k, d)
        q, out = grouped(Q, k), grouped(o, k)  # (batch, groups, heads, T_q, d)
        M, B = (None if array is None else grouped(array, k) for array in (M, bias))
        c = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale
        Z = xp.empty((*q.shape[:-1], 1), Q.dtype)
        m = None if bounded(q, k, B, c) else xp.empty_like(Z)

        def part(tiles: Any) -> Any:
            for tile in tiles:
                at, keys = tile
                e = exponentials(q, k, M, B, m, c, tile, first=True)
                Z[at] = sums(e)
                Z[at] += Z[at] == 0  # nothing allowed: 0 / 1
                xp.matmul(e, v[keys][:, :, None], out=out[at])
                out[at] /= Z[at]
            return e

        places = tiles_of_heads(q.shape, T_k, causal)
        *_, e = each(part, places)
        # for the backward, if a single tile was all there is: then it is small
        e_kept = e.copy() if len(places) == len(places[0]) == 1 and xp.module is numpy else None
        return o, (Q, K, V, M, bias, m, c, Z, causal, e_kept)

    # With P = e / Z, S = c q k^T + B, O = P v and g = dL/dO, for each head:
    #   dL/dV = P^T g,  dL/dP = g V^T,
    #   dL/dS = P (dL/dP - rowsum(P dL/dP)) = P (dL/dP - rowsum(O g)), as rows of the softmax,
    #   dL/dQ = c dL/dS K,  dL/dK = c dL/dS^T Q,  dL/dB = dL/dS
    # 1/Z goes into g, which is smaller than P: P^T g = e^T (g/Z), and so on. What heads or sequences share
    # gets the sum: K and V from a product with the rows of all heads of their group, B from adding up.
    @staticmethod
    def backward(g: Any, o: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dQ, dK, dV and dB in new arrays."""
        Q, K, V, _, bias, *_ = saved
        gradients = [xp.empty_like(a) if need else None for a, need in zip((Q, K, V), needs, strict=False)]
        gradients += [None, xp.zeros_like(bias) if any(needs[3:]) else None]
        return backward_into(gradients, g, o, saved)


@attention.kernel
class Attention:
    """The same with c = 1 / sqrt(d_k), B = 0, and keys and values for each head."""

    backward = staticmethod(GeneralAttention.backward)

    @staticmethod
    def forward(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
        """Leave what has to be broadcast to the formula."""
        if not all(map(is_array, (Q, K, V))) or not Q.shape[:-2] == K.shape[:-2] == V.shape[:-2]:
            return NotImplemented
        return GeneralAttention.forward(Q, K, V, mask)


def backward_into(gradients: list[Any], g: Any, o: Any, saved: Any) -> Any:
    """Compute each tile's e again and write from it its part of dQ, dK, dV and dB, where not None."""
    Q, K, V, M, bias, m, c, Z, causal, e_kept = saved
    k, v = _with_axes(K, 4), _with_axes(V, 4)
    q, g, o = (grouped(array, k) for array in (Q, g, o))
    dK, dV = (None if array is None else _with_axes(array, 4) for array in gradients[1:3])
    dQ, dB, B = (None if array is None else grouped(array, k) for array in (*gradients[::4], bias))

    def part(tiles: Any) -> None:
        for tile in tiles:
            at, keys = tile
            whole = at[3].stop == q.shape[3]  # the first tile of these heads, which has all their keys
            e = exponentials(q, k, M, B, m, c, tile) if e_kept is None else e_kept
            g_Z = xp.divide(g[at], Z[at], out=scratch("g/Z", g[at].shape, g.dtype))
            if dV is not None:
                product_into(dV[keys], stacked(e).mT, stacked(g_Z), whole)
            if dQ is None and dK is None and dB is None:
                continue
            dS = scratch("dS", e.shape, e.dtype)
            xp.matmul(stacked(g_Z), v[keys].mT, out=stacked(dS))
            g_Z *= o[at]
            dS -= sums(g_Z)
            dS *= e
            if dQ is not None:
                xp.matmul(dS, k[keys][:, :, None], out=dQ[at])
                if c != 1:
                    dQ[at] *= c
            if dK is not None:
                product_into(dK[keys], stacked(dS).mT, stacked(scaled(q, c, at)), whole)
            if dB is not None:
                dB_here = within(dB, tile)
                dB_here += dS.sum(axis=tuple(axis for axis in range(5) if dB.shape[axis] == 1), keepdims=True)

    places = tiles_of_heads(q.shape, k.shape[2], causal)
    each(part, places if dB is None else [chain(*places)])  # to dB all of them add
    return gradients


def allows_all(mask: Any) -> bool:
    """Return True if nothing is masked; to look would make the host wait for a GPU, where it is False."""
    return xp.module is numpy and bool(mask.array.all())


def one_query(Q: Any, K: Any, V: Any, c: float) -> Any:
    """Compute what the forward returns for a single query that sees all keys, as in generation: no tiles."""
    k, v = _with_axes(K, 4), _with_axes(V, 4)
    q = grouped(Q, k)  # (batch, groups, heads, 1, d)
    e = (q[:, :, :, 0] * c) @ k.mT  # (batch, groups, heads, T_k)
    m = e.max(axis=-1, keepdims=True)
    e -= m
    xp.exp(e, out=e)
    Z = e.sum(axis=-1, keepdims=True)
    o = e @ v
    o /= Z
    saved = (Q, K, V, None, None, m[..., None, :], c, Z[..., None, :], True, None)
    return o.reshape(*Q.shape[:-1], V.shape[-1]), saved


def fits(bias: Any, Q: Any, T_k: int) -> bool:
    """Return True if the bias broadcasts to the scores, rather than they to it."""
    return all(n in (1, m) for n, m in zip(bias.shape, (*Q.shape[:-1], T_k), strict=True))


def grouped(x: Any, k: Any) -> Any:
    """Part the heads of x into as many groups as k has heads: (batch, groups, heads of each, T, n)."""
    batch, heads, *rest = _with_axes(x, 4).shape
    groups = k.shape[1] if heads > 1 else 1  # a single head of a mask or bias stands for all
    return x.reshape(batch, groups, heads // groups, *rest)


def stacked(x: Any) -> Any:
    """Put the rows of the heads of each group below each other: (batch, groups, heads * rows, n)."""
    batch, groups, heads, rows, n = x.shape
    return x.reshape(batch, groups, heads * rows, n)


def within(x: Any, tile: Any) -> Any:
    """Return the part of a mask or bias that belongs to a tile; an axis of length 1 stands for any."""
    at, keys = tile
    return x[tuple(s if n > 1 else slice(None) for s, n in zip((*at, keys[2]), x.shape, strict=True))]


def scaled(q: Any, c: float, at: Any) -> Any:
    """Return c times the queries of a tile."""
    if c == 1:
        return q[at]
    return xp.multiply(q[at], c, out=scratch("queries", q[at].shape, q.dtype))


def product_into(out: Any, a: Any, b: Any, first: bool) -> None:
    """Write a product, or add it to what is there."""
    if first:
        xp.matmul(a, b, out=out)
    else:
        out += xp.matmul(a, b, out=scratch("product", out.shape, out.dtype))


def bounded(q: Any, k: Any, B: Any, c: float) -> bool:
    """Return True if no score can be too large to exponentiate as it is, for |q k| <= |q| |k|.

    With few queries it is quicker to find the largest score, and the host should not wait for a GPU.
    """
    if xp.module is not numpy or q.shape[3] < q.shape[4]:
        return False
    room = LIMIT if B is None else LIMIT - abs(B).max()
    with numpy.errstate(over="ignore"):
        largest_square = numpy.vecdot(q, q).max() * numpy.vecdot(k, k).max() * c**2
    return bool(room > 0 and largest_square < room**2)


def tiles_of_heads(queries: tuple[int, ...], T_k: int, causal: bool) -> list[list[tuple[Any, Any]]]:
    """Return a list for some heads each: the places of queries and of keys, tile by tile, last queries first.

    Under a causal mask a tile ends at the last key that its last query may attend to: with four tiles a
    head, three eighths of the scores are never computed.
    """
    batch, groups, heads, T_q, _ = queries
    on_host = xp.module is numpy
    tile = TILE if on_host else batch * groups * heads * T_q * T_k
    rows = min(T_q, max(ROWS, tile // (heads * T_k)))
    if on_host and causal:
        rows = min(rows, max(ROWS, -(-T_q // 4)))
    items = max(1, tile // (heads * rows * T_k))
    places = []
    for b in range(0, batch, max(1, items // groups)):
        some = slice(b, min(b + max(1, items // groups), batch))
        for h in range(0, groups, items):
            those = some, slice(h, h + items)
            tiles = []
            for r in reversed(range(0, T_q, rows)):
                stop = min(r + rows, T_q)
                keys = stop + T_k - T_q if causal else T_k
                tiles.append(((*those, slice(None), slice(r, stop)), (*those, slice(0, keys))))
            places.append(tiles)
    return places


def exponentials(q: Any, k: Any, M: Any, B: Any, m: Any, c: float, tile: Any, first: bool = False) -> Any:
    """Return e of one tile: exp of the scores, less m unless that is None, or 0 where the mask forbids."""
    at, keys = tile
    queries = scaled(q, c, at)
    e = scratch("e", (*queries.shape[:-1], keys[2].stop), q.dtype)  # (batch, groups, heads, rows, keys)
    xp.matmul(stacked(queries), k[keys].mT, out=stacked(e))
    if B is not None:
        e += within(B, tile)
    if M is not None:
        M = within(M, tile)
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
