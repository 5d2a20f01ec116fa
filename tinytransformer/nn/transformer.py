"""The layers of the Transformer: attention and feed-forward, each with a residual and a layer norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ..formulas import Mask
from ..ops import relu
from .attention import KeyValueCache, MultiHeadAttention
from .layers import Dropout, FeedForward, LayerNorm, Random
from .module import Module

__all__ = ["TransformerDecoderLayer", "TransformerEncoderLayer"]


class TransformerEncoderLayer(Module):
    r"""Self-attention and feed-forward: a layer of BERT, and with a causal mask a layer of GPT.

    Each sublayer S is joined to its input by a residual, after or before its layer norm:

    .. math::
        \text{post-norm:}\quad x &\leftarrow \mathrm{LayerNorm}(x + \mathrm{Dropout}(S(x))) \\
        \text{pre-norm:}\quad x &\leftarrow x + \mathrm{Dropout}(S(\mathrm{LayerNorm}(x)))

    Parameters
    ----------
    d_model : int
        Features of input and output.
    nhead : int
        Heads of the attention.
    dim_feedforward : int
        Features inside the feed-forward.
    dropout : float
        Probability of dropping an entry of a sublayer's output, or an attention weight, in training.
    activation : callable
        Of the feed-forward.
    layer_norm_eps : float
    norm_first : bool
        Pre-norm, as GPT-2 has it, rather than the post-norm of the original.
    bias : bool
        Whether the linear maps have biases.
    rng : numpy.random.Generator or int, optional
        Draws the initial values, as in `Linear`, and what is dropped.
    dtype : dtype

    Attributes
    ----------
    self_attention : MultiHeadAttention
    feed_forward : FeedForward
    norm1, norm2 : LayerNorm

    Notes
    -----
    Source: document section 3.1; Vaswani et al., Attention Is All You Need, 2017, sections 3.1 and 5.4;
    pre-norm: Xiong et al., On Layer Normalization in the Transformer Architecture, 2020.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> layer = tt.nn.TransformerEncoderLayer(6, 3, 24, norm_first=True)
    >>> layer(tt.ones((2, 5, 6)), mask=tt.Mask.padding([5, 4])).shape
    (2, 5, 6)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Callable[[Any], Any] = relu,
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rng: Random = None,
        dtype: Any = numpy.float32,
    ):
        rng = numpy.random.default_rng(rng)
        self.norm_first = norm_first
        self.self_attention = MultiHeadAttention(d_model, nhead, bias, dropout, rng=rng, dtype=dtype)
        self.feed_forward = FeedForward(d_model, dim_feedforward, activation, bias, rng=rng, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(self, src: Any, mask: Mask | None = None, cache: KeyValueCache | None = None) -> Any:
        """Apply the layer.

        Parameters
        ----------
        src : Tensor or array, shape (batch, T, d_model)
        mask : Mask, optional
            Which positions may attend to which; see `MultiHeadAttention`.
        cache : KeyValueCache, optional
            Earlier positions; see `MultiHeadAttention`.

        Returns
        -------
        Tensor or array, shape (batch, T, d_model)
        """
        x = src
        if self.norm_first:
            x = x + self.dropout(self.self_attention(self.norm1(x), mask=mask, cache=cache))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.self_attention(x, mask=mask, cache=cache)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))

    def extra_repr(self) -> str:
        """Return where the norms stand."""
        return "pre-norm" if self.norm_first else "post-norm"


class TransformerDecoderLayer(Module):
    r"""Masked self-attention, attention to the encoder's output, and feed-forward.

    Each is a sublayer with a residual and a layer norm, as in `TransformerEncoderLayer`.

    Parameters
    ----------
    d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, norm_first, bias, rng, dtype
        As for `TransformerEncoderLayer`.

    Attributes
    ----------
    self_attention, cross_attention : MultiHeadAttention
    feed_forward : FeedForward
    norm1, norm2, norm3 : LayerNorm

    Notes
    -----
    Source: document sections 3.1 and 3.2; Vaswani et al., Attention Is All You Need, 2017, section 3.1.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> layer = tt.nn.TransformerDecoderLayer(6, 3, 24)
    >>> target, memory = tt.ones((2, 5, 6)), tt.ones((2, 7, 6))
    >>> layer(target, memory, mask=tt.Mask.causal(5)).shape
    (2, 5, 6)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Callable[[Any], Any] = relu,
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rng: Random = None,
        dtype: Any = numpy.float32,
    ):
        rng = numpy.random.default_rng(rng)
        self.norm_first = norm_first
        self.self_attention = MultiHeadAttention(d_model, nhead, bias, dropout, rng=rng, dtype=dtype)
        self.cross_attention = MultiHeadAttention(d_model, nhead, bias, dropout, rng=rng, dtype=dtype)
        self.feed_forward = FeedForward(d_model, dim_feedforward, activation, bias, rng=rng, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, dtype=dtype)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(
        self,
        tgt: Any,
        memory: Any,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        cache: KeyValueCache | None = None,
        cross_cache: KeyValueCache | None = None,
    ) -> Any:
        """Apply the layer.

        Parameters
        ----------
        tgt : Tensor or array, shape (batch, T, d_model)
        memory : Tensor or array, shape (batch, T_memory, d_model)
            What the encoder returned.
        mask : Mask, optional
            Which target positions may attend to which: ``Mask.causal(T)`` in training. None lets all
            attend to all; with a cache it means causal.
        memory_mask : Mask, optional
            Which positions of the memory may be attended to: ``Mask.padding(lengths)``.
        cache : KeyValueCache, optional
            Earlier target positions; see `MultiHeadAttention`.
        cross_cache : KeyValueCache, optional
            Keys and values of the memory, computed at the first call.

        Returns
        -------
        Tensor or array, shape (batch, T, d_model)
        """
        x, drop = tgt, self.dropout
        if self.norm_first:
            x = x + drop(self.self_attention(self.norm1(x), mask=mask, cache=cache))
            x = x + drop(self.cross_attention(self.norm2(x), memory, mask=memory_mask, cache=cross_cache))
            return x + drop(self.feed_forward(self.norm3(x)))
        x = self.norm1(x + drop(self.self_attention(x, mask=mask, cache=cache)))
        x = self.norm2(x + drop(self.cross_attention(x, memory, mask=memory_mask, cache=cross_cache)))
        return self.norm3(x + drop(self.feed_forward(x)))

    def extra_repr(self) -> str:
        """Return where the norms stand."""
        return "pre-norm" if self.norm_first else "post-norm"
