"""Multi-head attention, and the cache that lets generation compute each key and value once."""

from __future__ import annotations

from typing import Any

import numpy

from ..autograd import raw
from ..backend import module_of
from ..formulas import (
    Mask,
    general_attention,
    general_attention_weights,
    merge_heads,
    multi_head_attention,
    repeat_heads,
    rotary_positions,
    self_attention,
    split_heads,
)
from ..tensor import Tensor
from .layers import Dropout, Linear, Random
from .module import Module

__all__ = ["KeyValueCache", "MultiHeadAttention"]


class KeyValueCache:
    """The keys and values of one attention layer, for the positions seen so far.

    Where heads of queries share keys and values, it holds only these few.

    The arrays have room for more positions than they hold and double when it is used up, so that T
    positions cost O(T) copies.

    Attributes
    ----------
    length : int
        Positions held.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> cache = tt.nn.KeyValueCache()
    >>> K, V = cache.append(tt.ones((2, 3, 5, 7)), tt.ones((2, 3, 5, 7)))
    >>> K, V = cache.append(tt.ones((2, 3, 1, 7)), tt.ones((2, 3, 1, 7)))
    >>> K.shape, cache.length
    ((2, 3, 6, 7), 6)
    """

    def __init__(self) -> None:
        self.length = 0
        self._buffers: list[Any] = []  # keys and values, each (batch, heads, room, d)

    @property
    def keys(self) -> Tensor:
        """What is held of the keys, shape (batch, heads, length, d_k)."""
        return Tensor(self._buffers[0][:, :, : self.length])

    @property
    def values(self) -> Tensor:
        """What is held of the values, shape (batch, heads, length, d_v)."""
        return Tensor(self._buffers[1][:, :, : self.length])

    def append(self, k: Any, v: Any) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new positions, and return all of them.

        Parameters
        ----------
        k : Tensor or array, shape (batch, heads, T, d_k)
        v : Tensor or array, shape (batch, heads, T, d_v)

        Returns
        -------
        keys, values : Tensor, shape (batch, heads, length, d_k) and (batch, heads, length, d_v)
            Views: they change when the cache does.

        Raises
        ------
        RuntimeError
            If a gradient would have to flow through the cache.
        ValueError
            If batch, heads or features differ from those held.
        """
        if getattr(k, "requires_grad", False) or getattr(v, "requires_grad", False):
            raise RuntimeError(
                "KeyValueCache.append: no gradient flows through a cache; run the model under tt.no_grad()"
            )
        stop = self.length + k.shape[2]
        new = [raw(k), raw(v)]
        if not self._buffers:
            self._buffers = [_room(array, stop) for array in new]
        for i, array in enumerate(new):
            held = self._buffers[i]
            expected = (*held.shape[:2], k.shape[2], held.shape[3])
            if array.shape != expected:
                raise ValueError(
                    f"KeyValueCache.append: {'keys' if i == 0 else 'values'} of shape {array.shape} do not "
                    f"follow those held: expected {expected}; reorder a batch with select(rows)"
                )
        for i, array in enumerate(new):
            held = self._buffers[i]
            if stop > held.shape[2]:
                self._buffers[i] = _room(held, max(stop, 2 * held.shape[2]))
                self._buffers[i][:, :, : self.length] = held[:, :, : self.length]
            self._buffers[i][:, :, self.length : stop] = array
        self.length = stop
        return self.keys, self.values

    def select(self, rows: Any) -> None:
        """Keep these rows of the batch, in this order; one may be kept more than once, as beams are.

        Parameters
        ----------
        rows : sequence of int
            Places in the batch.

        Raises
        ------
        IndexError
            If a row is not in the batch.
        """
        chosen = numpy.asarray(raw(rows), dtype=numpy.intp)
        if not self._buffers:
            return
        batch = self._buffers[0].shape[0]
        if chosen.size and (chosen.min() < 0 or chosen.max() >= batch):
            raise IndexError(
                f"KeyValueCache.select: rows {chosen.tolist()} are not all in a batch of {batch}"
            )
        self._buffers = [b[module_of(b).asarray(chosen)] for b in self._buffers]


def _room(like: Any, positions: int) -> Any:
    batch, heads, _, d = like.shape
    return module_of(like).empty((batch, heads, positions, d), like.dtype)


class MultiHeadAttention(Module):
    r"""Attention in several subspaces at once, joined and mixed by an output matrix.

    .. math::
        \mathrm{MultiHead}(Q, K, V) &= \mathrm{Concat}(\mathrm{head}_1, \dots, \mathrm{head}_h)W^O \\
        \mathrm{head}_i &= \mathrm{Attention}(QW_i^Q, KW_i^K, VW_i^V)

    Parameters
    ----------
    embed_dim : int
        d_model, features of input and output.
    num_heads : int
        h; each head has d_k = embed_dim / num_heads features.
    bias : bool
        Whether the four projections have biases.
    dropout : float
        Probability of dropping an attention weight in training.
    num_kv_heads : int, optional
        Heads of keys and values, h by default; fewer are shared by groups of query heads (GQA).
    head_dim : int, optional
        d_k, if it is another.
    rope_theta : float, optional
        Rotate queries and keys by their positions, with this base (`rotary_positions`): self-attention only.
    scale : float, optional
        What the products of queries and keys are multiplied by; :math:`1/\sqrt{d_k}` by default.
    rng : numpy.random.Generator or int, optional
        Draws the initial values, as in `Linear`, and what is dropped.
    dtype : dtype

    Attributes
    ----------
    W_Q, W_K, W_V, W_O : Linear
        The h matrices of each projection stand side by side in one.

    Raises
    ------
    ValueError
        If embed_dim does not divide by num_heads, or these not by num_kv_heads.

    Notes
    -----
    Source: document section 4.2; Vaswani et al., Attention Is All You Need, 2017, section 3.2.2.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> layer = tt.nn.MultiHeadAttention(6, 3, rng=0)
    >>> x = tt.ones((2, 5, 6))
    >>> layer(x, mask=tt.Mask.causal(5)).shape
    (2, 5, 6)
    >>> cache = tt.nn.KeyValueCache()
    >>> with tt.no_grad():
    ...     parts = [layer(x[:, :3], cache=cache), layer(x[:, 3:], cache=cache)]
    >>> parts[1].shape, cache.length
    ((2, 2, 6), 5)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        bias: bool = True,
        dropout: float = 0.0,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        rope_theta: float | None = None,
        scale: float | None = None,
        rng: Random = None,
        dtype: Any = numpy.float32,
    ):
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"MultiHeadAttention: {embed_dim} features do not divide into {num_heads} heads")
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % num_kv_heads:
            raise ValueError(
                f"MultiHeadAttention: {num_heads} heads do not divide into {num_kv_heads} groups"
            )
        head_dim = embed_dim // num_heads if head_dim is None else head_dim
        rng = numpy.random.default_rng(rng)
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.rope_theta, self.scale = rope_theta, scale
        self.W_Q = Linear(embed_dim, num_heads * head_dim, bias, rng=rng, dtype=dtype)
        self.W_K = Linear(embed_dim, num_kv_heads * head_dim, bias, rng=rng, dtype=dtype)
        self.W_V = Linear(embed_dim, num_kv_heads * head_dim, bias, rng=rng, dtype=dtype)
        self.W_O = Linear(num_heads * head_dim, embed_dim, bias, rng=rng, dtype=dtype)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        mask: Mask | None = None,
        cache: KeyValueCache | None = None,
        positions: Any = None,
        bias: Any = None,
    ) -> Any:
        """Let each query position collect from the key positions.

        Parameters
        ----------
        query : Tensor or array, shape (batch, T_q, embed_dim)
        key : Tensor or array, shape (batch, T_k, embed_dim), optional
            The query by default: self-attention.
        value : Tensor or array, shape (batch, T_k, embed_dim), optional
            The key by default.
        mask : Mask, optional
            True where a query may attend to a key; all may by default.
        cache : KeyValueCache, optional
            In self-attention, holds the keys and values of earlier positions; those of this call are
            added. The mask then covers all of them, and none means causal, with the last query at the
            last key. In cross-attention (with a key) the first call fills it, later calls only read it.
        positions : integer array, shape (T_q,) or (batch, T_q), optional
            For `rope_theta`; counted from the start, or from the end of the cache, by default.
        bias : Tensor or array, shape (batch or 1, heads, T_q, T_k), optional
            Added to the scores.

        Returns
        -------
        Tensor or array, shape (batch, T_q, embed_dim)

        Raises
        ------
        RuntimeError
            If a graph is recorded with a cache: use ``tt.no_grad()``.
        ValueError
            If the mask does not fit, or a cross-attention cache holds another number of keys.
        """
        crosses = key is not None and key is not query
        key = query if key is None else key
        value = key if value is None else value
        drops = self.training and self.dropout.p > 0
        general = self.num_kv_heads != self.num_heads or bias is not None or self.scale is not None
        if not (general or drops or self.rope_theta) and cache is None:
            maps = (self.W_Q, self.W_K, self.W_V, self.W_O)
            parameters = [*(m.weight for m in maps), *(m.bias for m in maps)]
            if query is key is value:
                return self_attention(query, *parameters, heads=self.num_heads, mask=mask)
            return multi_head_attention(query, key, value, *parameters, heads=self.num_heads, mask=mask)
        if cache is not None and crosses and cache.length:
            if cache.length != key.shape[1]:
                raise ValueError(
                    f"the cache holds {cache.length} keys, not {key.shape[1]}: use one per memory"
                )
            Q = split_heads(self.W_Q(query), self.num_heads)
            K, V = cache.keys, cache.values
        else:
            Q, K = self._queries_and_keys(query, key, positions, cache.length if cache is not None else 0)
            V = split_heads(self.W_V(value), self.num_kv_heads)  # (batch, kv heads, T_k, d_k)
            if cache is not None:
                K, V = cache.append(K, V)
        if cache is not None and mask is None and not crosses:
            mask = Mask.causal(Q.shape[2], K.shape[2]) if Q.shape[2] > 1 else None  # a last query sees all
        if not drops:
            return self.W_O(merge_heads(general_attention(Q, K, V, mask, bias, self.scale)))
        weights = self.dropout(
            general_attention_weights(Q, K, mask, bias, self.scale)
        )  # (batch, h, T_q, T_k)
        return self.W_O(merge_heads(weights @ repeat_heads(V, Q)))

    def _queries_and_keys(self, query: Any, key: Any, positions: Any, past: int) -> tuple[Any, Any]:
        """Return them in heads, (batch, h, T_q, d_k) and (batch, kv heads, T_k, d_k), rotated if need be."""
        Q = split_heads(self.W_Q(query), self.num_heads)
        K = split_heads(self.W_K(key), self.num_kv_heads)
        if self.rope_theta is None:
            return Q, K
        if positions is None:
            positions = numpy.arange(past, past + Q.shape[2])
        theta = self.rope_theta
        return rotary_positions(Q, positions, theta), rotary_positions(K, positions, theta)

    def attention_weights(
        self, query: Any, key: Any = None, mask: Mask | None = None, positions: Any = None, bias: Any = None
    ) -> Any:
        """Return what each head attends to, for looking at.

        Parameters
        ----------
        query, key, mask, positions, bias
            As for the layer itself.

        Returns
        -------
        Tensor or array, shape (batch, heads, T_q, T_k)
            Rows sum to 1, or to 0 where the mask allows nothing.
        """
        Q, K = self._queries_and_keys(query, query if key is None else key, positions, 0)
        return general_attention_weights(Q, K, mask, bias, self.scale)

    def extra_repr(self) -> str:
        """Return its sizes."""
        shared = "" if self.num_kv_heads == self.num_heads else f", kv heads={self.num_kv_heads}"
        return f"{self.W_O.weight.shape[1]}, heads={self.num_heads}{shared}"
