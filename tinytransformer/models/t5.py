"""T5: an encoder and a decoder that turn text into text, and know positions by their distances alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy

from .. import nn
from ..autograd import raw
from ..backend import to_numpy
from ..formulas import cross_entropy, gelu_tanh, linear, relative_position_bucket
from ..ops import relu
from ..tensor import Tensor
from .config import check_config
from .inputs import causal, draw_normal, padding, token_ids
from .pretrained import PretrainedModel
from .source import EncoderDecoder

__all__ = ["T5", "T5Config"]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes and switches of a `T5`. The defaults are the small model of version 1.0.

    Parameters
    ----------
    vocab_size : int
        V, the number of token ids.
    d_model, d_kv, d_ff : int
        Features of each position, of each head (all heads need not make ``d_model``), in the feed-forward.
    num_layers, num_decoder_layers, num_heads : int
        Layers of the encoder and, by default as many, of the decoder; heads of each attention.
    relative_buckets, relative_max_distance : int
        Of `relative_position_bucket`.
    feed_forward : {"relu", "gated-gelu"}
        Version 1.0: two matrices and a ReLU. Version 1.1: three, and a GELU as gate.
    tied_head : bool
        Version 1.0: the output matrix is that of the embeddings, divided by the square root of ``d_model``.
    dropout : float
        Probability of dropping an entry of embeddings, attention weights, what is inside the feed-forward,
        and sublayer outputs in training.
    layer_norm_eps : float
        Added to the mean square in each norm.
    pad_token_id, decoder_start_token_id : int
        What fills up a batch, and what a target starts with.

    Raises
    ------
    ValueError
        If a size is not positive or a switch is unknown.

    Examples
    --------
    >>> T5Config(vocab_size=32128, num_layers=8).num_decoder_layers
    8
    """

    vocab_size: int
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 0
    num_heads: int = 8
    relative_buckets: int = 32
    relative_max_distance: int = 128
    feed_forward: str = "relu"
    tied_head: bool = True
    dropout: float = 0.1
    layer_norm_eps: float = 1e-6
    pad_token_id: int = 0
    decoder_start_token_id: int = 0

    def __post_init__(self) -> None:
        if not self.num_decoder_layers:
            object.__setattr__(self, "num_decoder_layers", self.num_layers)
        check_config(self, {"feed_forward": ("relu", "gated-gelu")}, {})


class T5Activation(nn.Module):
    """The activation of the feed-forward, and dropout: what a gate lets through is dropped with it."""

    def __init__(self, activation: Callable[[Any], Any], dropout: nn.Dropout):
        self.activation, self.dropout = activation, dropout

    def forward(self, x: Any) -> Any:
        """Map (batch, T, d_ff) to the same shape."""
        return self.dropout(self.activation(x))


class T5Layer(nn.Module):
    """Self-attention, in the decoder attention to the memory, and feed-forward: pre-norm residuals."""

    def __init__(self, config: T5Config, decodes: bool, made: dict[str, Any]):
        d, eps, dtype = config.d_model, config.layer_norm_eps, made["dtype"]
        heads = {"bias": False, "dropout": config.dropout, "head_dim": config.d_kv, "scale": 1.0, **made}
        self.self_norm = nn.RMSNorm(d, eps, dtype=dtype)
        self.self_attention = nn.MultiHeadAttention(d, config.num_heads, **heads)
        if decodes:
            self.cross_norm = nn.RMSNorm(d, eps, dtype=dtype)
            self.cross_attention = nn.MultiHeadAttention(d, config.num_heads, **heads)
        self.feed_forward_norm = nn.RMSNorm(d, eps, dtype=dtype)
        gated = config.feed_forward == "gated-gelu"
        kind, activation = (nn.GatedFeedForward, gelu_tanh) if gated else (nn.FeedForward, relu)
        self.dropout = nn.Dropout(config.dropout, rng=made["rng"])
        self.feed_forward = kind(d, config.d_ff, T5Activation(activation, self.dropout), bias=False, **made)

    def forward(self, x: Any, mask: Any, bias: Any, memory: Any, memory_mask: Any, caches: Any) -> Any:
        """Map (batch, T, d_model) to the same shape."""
        cache, cross_cache = caches
        x = x + self.dropout(self.self_attention(self.self_norm(x), mask=mask, cache=cache, bias=bias))
        if memory is not None:
            n = self.cross_norm(x)
            x = x + self.dropout(self.cross_attention(n, memory, mask=memory_mask, cache=cross_cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class T5Stack(nn.Module):
    """The layers of the encoder or decoder, with one table of biases for all, a row for each bucket."""

    def __init__(self, config: T5Config, decodes: bool, made: dict[str, Any]):
        self.config, self.decodes = config, decodes
        self.relative_bias = nn.Embedding(config.relative_buckets, config.num_heads, **made)
        layers = config.num_decoder_layers if decodes else config.num_layers
        self.layers = nn.ModuleList(T5Layer(config, decodes, made) for _ in range(layers))
        self.norm = nn.RMSNorm(config.d_model, config.layer_norm_eps, dtype=made["dtype"])
        self.dropout = nn.Dropout(config.dropout, rng=made["rng"])

    def bias(self, T_q: int, T_k: int) -> Tensor:
        """Return what is added to the scores: (1, heads, T_q, T_k), with the last query at the last key."""
        distance = numpy.arange(T_k) - numpy.arange(T_k - T_q, T_k)[:, None]  # key minus query: (T_q, T_k)
        buckets, farthest = self.config.relative_buckets, self.config.relative_max_distance
        bucket = relative_position_bucket(distance, not self.decodes, buckets, farthest)
        return self.relative_bias(bucket).transpose(2, 0, 1)[None]

    def forward(
        self, x: Any, mask: Any, memory: Any = None, memory_mask: Any = None, caches: Any = None
    ) -> Any:
        """Map embeddings (batch, T, d_model) to the same shape; there are two caches for each layer."""
        T = x.shape[1]
        bias = self.bias(T, caches[0].length + T if caches else T)
        x = self.dropout(x)
        for i, layer in enumerate(self.layers):
            own = caches[2 * i : 2 * i + 2] if caches else (None, None)
            x = layer(x, mask, bias, memory, memory_mask, own)
        return self.dropout(self.norm(x))


class T5(EncoderDecoder, PretrainedModel):
    r"""Text to text: the probability of each token of a target, given a source and the tokens before it.

    .. math::
        m &= \mathrm{Encoder}(E_{\mathrm{source}}), \qquad
        z = \mathrm{Decoder}(E_{\mathrm{target}}, m)\, E^T / \sqrt{d} \\
        \mathrm{head} &= \mathrm{softmax}(QK^T + B)V, \qquad B_{ij} = b_{\mathrm{bucket}(j - i)}

    Parameters
    ----------
    config : T5Config
        Sizes and switches.
    rng : numpy.random.Generator, optional
        Draws the initial parameters, and later the dropout.
    dtype : dtype
        Of the parameters.

    Notes
    -----
    Source: Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    2020, section 2.1. Products of queries and keys are not divided by :math:`\sqrt{d_k}`: W_Q starts so much
    smaller instead. Other matrices start normal with variance 1/inputs, embeddings with variance 1.

    Examples
    --------
    >>> from tinytransformer.generation import generate
    >>> model = T5(T5Config(13, d_model=12, d_kv=5, d_ff=24, num_layers=2, num_heads=3, dropout=0.0))
    >>> model([[3, 1, 4, 1]], decoder_input_ids=[[0, 5]]).shape
    (1, 2, 13)
    >>> tokens = generate(model.given([[3, 1, 4, 1]]), [0], max_new_tokens=7, stop_tokens=1)
    """

    def __init__(self, config: T5Config, rng: numpy.random.Generator | None = None, dtype: Any = "float32"):
        rng = numpy.random.default_rng() if rng is None else rng
        made = {"rng": rng, "dtype": dtype}
        self.config = config
        self.rng = rng
        self.embedding = nn.Embedding(config.vocab_size, config.d_model, **made)
        self.encoder = T5Stack(config, False, made)
        self.decoder = T5Stack(config, True, made)
        self.head = None if config.tied_head else nn.Linear(config.d_model, config.vocab_size, False, **made)

        def deviation(name: str, p: Any) -> float:
            if p is self.embedding.weight:
                return 1.0
            inputs = config.d_model if name.endswith("relative_bias.weight") else p.shape[0]
            return (inputs * (config.d_kv if name.endswith("W_Q.weight") else 1)) ** -0.5

        draw_normal(self, rng, deviation)

    def encode(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Turn a source (batch, S) into the memory (batch, S, d_model); arguments as in `forward`."""
        return self.encoder(self.embedding(token_ids(self, input_ids)), padding(attention_mask))

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        labels: Any = None,
        positions: Any = None,
        cache: list[Any] | None = None,
    ) -> Tensor:
        """Score the next token at every place of the target: logits (batch, T, V).

        Parameters
        ----------
        input_ids : integer array, shape (batch, S)
            The source; a batch of 1 serves all targets.
        attention_mask : array, shape (batch, S), optional
            Not 0 at real tokens of the source, 0 at padding.
        decoder_input_ids : integer array, shape (batch, T), optional
            The target so far, from its start token on; by default ``labels``, each one place later.
        decoder_attention_mask : array, shape (batch, T_k), optional
            The same for the target and what the cache holds of it. Padding at its end needs no mask.
        labels : integer array, shape (batch, T), optional
            The tokens to predict. Where they are -100, the decoder reads padding.
        positions
            Not looked at: distances are all that counts.
        cache : list, optional
            From `new_cache`; the first call encodes the source, later ones use what is kept of it.

        Raises
        ------
        IndexError
            If a token id is outside the vocabulary.
        ValueError
            If ids are not (batch, T), there is no target, or masks and batches do not fit.
        """
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("T5: give decoder_input_ids, the target so far, or labels, all of it")
            decoder_input_ids = self.shifted(labels)
        source = self.source(cache, input_ids, attention_mask)
        x = self.embedding(token_ids(self, decoder_input_ids))  # (batch, T, d_model)
        batch, T, _ = x.shape
        mask = causal(T, cache[1].length if cache else 0, decoder_attention_mask)
        memory, memory_mask = source.memory_for(batch), padding(source.mask)  # (batch, S, d_model)
        x = self.decoder(x, mask, memory, memory_mask, cache[1:] if cache else None)
        if self.head is not None:
            return self.head(x)
        return linear(x * self.config.d_model**-0.5, self.embedding.weight.mT)  # (batch, T, V)

    def shifted(self, labels: Any) -> numpy.ndarray:
        """Return what is read to predict labels (batch, T): the start token, then all but the last."""
        before = numpy.roll(to_numpy(raw(labels)), 1, axis=1)
        before[:, :1] = self.config.decoder_start_token_id
        return numpy.where(before == -100, self.config.pad_token_id, before)

    def loss(self, input_ids: Any, labels: Any, attention_mask: Any = None) -> Tensor:
        """Mean cross-entropy of the labels (batch, T) in nats per token; those of -100 do not count."""
        return cross_entropy(self(input_ids, attention_mask, labels=labels), labels)
