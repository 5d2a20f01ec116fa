"""The GPU's kernels of ``attention`` and ``general_attention``: products, and one pass between them."""

from __future__ import annotations

import math
from typing import Any

from ...backend import is_array, xp
from ...formulas import attention, general_attention
from ...formulas.masks import _with_axes, fitted
from ..attention import fits, grouped, stacked
from ..common import fusible
from .device import dense, launch_rows, on_gpu, real


@on_gpu(general_attention)
class GeneralAttention:
    """o_i = sum_j e_ij v_j / Z_i with e_ij = M_ij exp(c q_i k_j + B_ij - m_i) and Z_i = sum_j e_ij.

    Scores are computed again in the backward: between the two only one number for each row is kept.
    """

    @staticmethod
    def forward(Q: Any, K: Any, V: Any, mask: Any = None, bias: Any = None, scale: Any = None) -> Any:
        """Compute o; save the inputs and m + log Z."""
        if not (fusible(Q, K, V) and 2 <= Q.ndim <= 4 and Q.size and K.size and V.size):
            return NotImplemented
        T_k = K.shape[-2]
        if K.ndim != Q.ndim or K.shape[-1] != Q.shape[-1] or V.shape[:-1] != K.shape[:-1]:
            return NotImplemented
        shared = Q.ndim == 4 and K.shape[0] == Q.shape[0] and Q.shape[1] % K.shape[1] == 0
        if not (shared or K.shape[:-2] == Q.shape[:-2]):
            return NotImplemented
        if bias is not None and not (fusible(Q, bias) and bias.ndim == Q.ndim == 4 and fits(bias, Q, T_k)):
            return NotImplemented
        if mask is not None:
            fitted(mask, (*Q.shape[:-1], T_k))
        c = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale
        e = scores(Q, K)
        Z, log_Z = exponentials(e, mask, bias, c)
        o = product(e, V)
        o /= Z
        return o.reshape(*Q.shape[:-1], V.shape[-1]), (Q, K, V, mask, bias, c, log_Z)

    # With P = e / Z, S = c q k^T + B, O = P v and g = dL/dO, for each head:
    #   dL/dV = P^T g,  dL/dP = g V^T,  dL/dS = P (dL/dP - D) with D = rowsum(O g),
    #   dL/dQ = c dL/dS K,  dL/dK = c dL/dS^T Q,  dL/dB = dL/dS
    # CuPy copies a transposed operand of a batch of products: so those with P^T and dL/dS^T, the largest
    # arrays, are computed transposed, as (g^T P)^T.
    @staticmethod
    def backward(g: Any, o: Any, saved: Any, needs: list[bool]) -> Any:
        """Compute the scores again, and from them and dP in one pass P and dS."""
        Q, K, V, mask, bias, c, log_Z = saved
        P, dS = scores(Q, K), scores(g, V)
        D = (o * g).sum(axis=-1)
        _pass("attention_gradient", (P, dS, log_Z, dense(D)), mask, bias, c)
        needs = [*needs, *[False] * (5 - len(needs))]
        dQ = product(dS, K).reshape(Q.shape) if needs[0] else None
        dK = transposed_product(dS, Q, K) if needs[1] else None
        for d in (dQ, dK):
            if d is not None:
                d *= c
        dV = transposed_product(P, g, V) if needs[2] else None
        dB = None
        if needs[4]:
            axes = tuple(axis for axis in range(4) if bias.shape[axis] == 1)
            dB = dS.sum(axis=axes, keepdims=True) if axes else dS
        return [dQ, dK, dV, None, dB]


@on_gpu(attention)
class Attention:
    """The same with c = 1 / sqrt(d_k), B = 0, and keys and values for each head."""

    backward = staticmethod(GeneralAttention.backward)

    @staticmethod
    def forward(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
        """Leave what has to be broadcast to the formula."""
        if not all(map(is_array, (Q, K, V))) or not Q.shape[:-2] == K.shape[:-2] == V.shape[:-2]:
            return NotImplemented
        return GeneralAttention.forward(Q, K, V, mask)


def scores(a: Any, b: Any) -> Any:
    """Return a b^T for each head of a, shape (batch, heads, rows of a, rows of b)."""
    b = _with_axes(b, 4)
    rows = stacked(grouped(a, b))  # (batch, groups, heads of a group * rows of a, n)
    return dense((rows @ b.mT).reshape(*_with_axes(a, 4).shape[:-1], b.shape[2]))


def product(weights: Any, b: Any) -> Any:
    """Return weights b for each head of the weights (batch, heads, rows, rows of b)."""
    b = _with_axes(b, 4)
    return (stacked(grouped(weights, b)) @ b).reshape(*weights.shape[:-1], b.shape[3])


def transposed_product(weights: Any, a: Any, like: Any) -> Any:
    """Return weights^T a, added up over the heads that share, in the shape of keys or values."""
    k = _with_axes(like, 4)
    return (stacked(grouped(a, k)).mT @ stacked(grouped(weights, k))).mT.reshape(like.shape)


def exponentials(s: Any, mask: Any, bias: Any, c: float) -> tuple[Any, Any]:
    """Turn scores (batch, heads, T_q, T_k) into e in place; return Z, shape (..., 1), and m + log Z."""
    Z, log_Z = (xp.empty(s.shape[:-1], s.dtype) for _ in range(2))
    _pass("attention_exponentials", (s, Z, log_Z), mask, bias, c)
    return Z[..., None], log_Z


def _pass(name: str, arrays: tuple[Any, ...], mask: Any, bias: Any, c: float) -> None:
    s = arrays[0]
    batch, heads, T_q, T_k = s.shape
    causal = mask is not None and mask.is_causal and mask.shape[-2:] == (T_q, T_k)
    M = None if mask is None else dense(_with_axes(xp.asarray(mask.array), 4))
    B = None if bias is None else dense(bias)
    described = []
    for array, dtype in ((M, bool), (B, s.dtype)):
        if array is None:
            described += [False, xp.empty(0, dtype), *map(xp.int64, (0, 0, 0)), 0]
        else:
            by_batch, by_head, by_query, by_key = strides(array.shape)
            described += [True, array, *map(xp.int64, (by_batch, by_head, by_query)), by_key]
    launch_rows(name, batch * heads * T_q, T_k, *arrays, heads, T_q, T_k, real(c, s), causal, *described)


def strides(shape: tuple[int, ...]) -> list[int]:
    """Return how many entries apart neighbours along each axis are; 0 along an axis of length 1."""
    return [math.prod(shape[axis + 1 :]) if n > 1 else 0 for axis, n in enumerate(shape)]
