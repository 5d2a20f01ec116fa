"""The Transformer as it was published: an encoder, and a decoder that also attends to it (document 3.1)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy

from ..backend import module_of, xp
from ..formulas import cross_entropy, linear, silu, sinusoidal_positions
from ..nn import (
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    ModuleList,
    Parameter,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)
from ..ops import concatenate, relu
from ..tensor import Tensor
from .config import check_config
from .inputs import causal, padding, token_ids
from .pretrained import PretrainedModel
from .source import EncoderDecoder

__all__ = ["Transformer", "TransformerConfig"]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The sizes and switches of a `Transformer`; the defaults are the base model of the paper.

    Parameters
    ----------
    source_vocab_size, target_vocab_size : int
        Token ids of what is read and what is written.
    d_model, num_heads, d_ff : int
        Features of each position, heads of each attention (they divide ``d_model``), features inside.
    num_encoder_layers, num_decoder_layers : int
    dropout : float
        Probability of dropping an entry of embeddings, attention weights and sublayer outputs in training.
    norm_first : bool
        Pre-norm, with one more layer norm after each stack, rather than the post-norm of the paper.
    shared_embeddings : bool
        Use the target embeddings as the output matrix, and as source embeddings too where both vocabularies
        have the same size, and so are taken to be one.
    max_length : int
        The most tokens of a source, and of a target. The sines have no end, but what was never trained fails.
    label_smoothing : float
        The part of each target that the loss spreads over all tokens.
    marian : bool
        As Marian has it: in the positions all sines stand before the cosines, the feed-forward has SiLU for
        ReLU, and the output a bias.
    pad_token_id : int
        What fills up a batch; a target of Marian starts with it.

    Raises
    ------
    ValueError
        If a size is not positive, the heads do not divide the features, or a switch is unknown.

    Examples
    --------
    >>> TransformerConfig(source_vocab_size=37000, target_vocab_size=37000).d_ff
    2048
    """

    source_vocab_size: int
    target_vocab_size: int
    d_model: int = 512
    num_heads: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    d_ff: int = 2048
    dropout: float = 0.1
    norm_first: bool = False
    shared_embeddings: bool = True
    max_length: int = 512
    label_smoothing: float = 0.1
    marian: bool = False
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        check_config(self, {}, {"num_heads": "d_model"})
        if self.d_model % 2:
            raise ValueError(f"TransformerConfig: sines need an even d_model, not {self.d_model}")


class Transformer(EncoderDecoder, PretrainedModel):
    r"""Translate a source: the probability of each target token, given the source and the tokens before it.

    .. math::
        x &= \sqrt{d} E_{\mathrm{source}} + P, \qquad m = \mathrm{Encoder}(x) \\
        y &= \sqrt{d} E_{\mathrm{target}} + P, \qquad z = \mathrm{Decoder}(y, m) E^T

    Parameters
    ----------
    config : TransformerConfig
        Sizes and switches.
    rng : numpy.random.Generator, optional
        Draws the initial parameters, and later the dropout.
    dtype : dtype
        Of the parameters.

    Notes
    -----
    Source: document sections 3.1 and 3.2; Vaswani et al., Attention Is All You Need, 2017. Matrices start
    uniform after Glorot and Bengio 2010, embeddings normal with variance 1/d_model.

    Examples
    --------
    >>> from tinytransformer.generation import generate
    >>> config = TransformerConfig(11, 13, d_model=12, num_heads=3, d_ff=24, dropout=0.0)
    >>> model = Transformer(config)
    >>> model([[3, 1, 4]], decoder_input_ids=[[1, 5]]).shape
    (1, 2, 13)
    >>> tokens = generate(model.given([[3, 1, 4]]), [1], max_new_tokens=7, stop_tokens=2)
    """

    def __init__(
        self, config: TransformerConfig, rng: numpy.random.Generator | None = None, dtype: Any = "float32"
    ):
        rng = numpy.random.default_rng() if rng is None else rng
        self.config = config
        self.rng = rng
        d, made = config.d_model, {"rng": rng, "dtype": dtype}
        layer = {"dropout": config.dropout, "norm_first": config.norm_first, **made}
        layer["activation"] = silu if config.marian else relu
        self.source_embedding = Embedding(config.source_vocab_size, d, **made)
        self.target_embedding = self.source_embedding
        if not (config.shared_embeddings and config.source_vocab_size == config.target_vocab_size):
            self.target_embedding = Embedding(config.target_vocab_size, d, **made)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.encoder_layers = ModuleList(
            TransformerEncoderLayer(d, config.num_heads, config.d_ff, **layer)
            for _ in range(config.num_encoder_layers)
        )
        self.decoder_layers = ModuleList(
            TransformerDecoderLayer(d, config.num_heads, config.d_ff, **layer)
            for _ in range(config.num_decoder_layers)
        )
        self.encoder_norm = LayerNorm(d, dtype=dtype) if config.norm_first else None
        self.decoder_norm = LayerNorm(d, dtype=dtype) if config.norm_first else None
        self.head = None
        if not config.shared_embeddings:
            self.head = Linear(d, config.target_vocab_size, bias=False, **made)
        # (1, V), as its files have it
        self.output_bias = (
            Parameter(xp.zeros((1, config.target_vocab_size), dtype)) if config.marian else None
        )
        self._initialize(rng)

    def _initialize(self, rng: numpy.random.Generator) -> None:
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                p.data[...] = 0
            elif p.ndim == 2:
                if name.endswith("embedding.weight"):
                    drawn = rng.normal(0.0, p.shape[1] ** -0.5, p.shape)
                else:
                    bound = math.sqrt(6 / sum(p.shape))
                    drawn = rng.uniform(-bound, bound, p.shape)
                p.data[...] = module_of(p.data).asarray(drawn)

    def _embed(self, embedding: Embedding, input_ids: Any, positions: Any, past: int) -> Any:
        """Return sqrt(d) E + P, shape (batch, T, d_model); by default the first token is at ``past``."""
        ids = token_ids(self, input_ids)
        end = past + ids.shape[1]
        if end > self.config.max_length:
            raise ValueError(f"Transformer: {end} tokens are more than max_length={self.config.max_length}")
        positions = numpy.arange(past, end) if positions is None else positions
        x = embedding(ids) * math.sqrt(self.config.d_model)
        P = sinusoidal_positions(positions, self.config.d_model, x.dtype)
        P = concatenate([P[..., 0::2], P[..., 1::2]], axis=-1) if self.config.marian else P
        return self.dropout(x + P)

    def encode(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Turn a source (batch, S) into the memory (batch, S, d_model); arguments as in `forward`."""
        x = self._embed(self.source_embedding, input_ids, None, 0)
        mask = padding(attention_mask)
        for layer in self.encoder_layers:
            x = layer(x, mask)
        return x if self.encoder_norm is None else self.encoder_norm(x)

    def decode(
        self,
        decoder_input_ids: Any,
        memory: Any,
        attention_mask: Any = None,
        decoder_attention_mask: Any = None,
        positions: Any = None,
        cache: list[Any] | None = None,
    ) -> Tensor:
        """Score the target (batch, T), given a memory (batch, S, d_model); arguments as in `forward`."""
        past = cache[1].length if cache else 0
        x = self._embed(self.target_embedding, decoder_input_ids, positions, past)  # (batch, T, d_model)
        mask, memory_mask = causal(x.shape[1], past, decoder_attention_mask), padding(attention_mask)
        for i, layer in enumerate(self.decoder_layers):
            x = layer(x, memory, mask, memory_mask, *(cache[2 * i + 1 : 2 * i + 3] if cache else ()))
        x = x if self.decoder_norm is None else self.decoder_norm(x)
        z = linear(x, self.target_embedding.weight.mT) if self.head is None else self.head(x)
        return z if self.output_bias is None else z + self.output_bias

    def forward(
        self,
        input_ids: Any,
        decoder_input_ids: Any,
        attention_mask: Any = None,
        decoder_attention_mask: Any = None,
        positions: Any = None,
        cache: list[Any] | None = None,
    ) -> Tensor:
        """Score the next token at every place of the target: logits (batch, T, V).

        Parameters
        ----------
        input_ids : integer array, shape (batch, S)
            The source; a batch of 1 serves all targets.
        decoder_input_ids : integer array, shape (batch, T)
            The target so far, from its start token on; with a cache, its new tokens.
        attention_mask : array, shape (batch, S), optional
            Not 0 at real tokens of the source, 0 at padding.
        decoder_attention_mask : array, shape (batch, T_k), optional
            The same for the target and what the cache holds of it. Padding at its end needs no mask.
        positions : integer array, shape (batch, T), optional
            Of the target; counted from the start, or from the end of the cache, by default.
        cache : list, optional
            From `new_cache`; the first call encodes the source, later ones use what is kept of it.

        Raises
        ------
        IndexError
            If a token id is outside its vocabulary.
        ValueError
            If ids are not (batch, T), there are too many, or masks and batches do not fit.
        """
        source = self.source(cache, input_ids, attention_mask)
        memory = source.memory_for(len(decoder_input_ids))  # (batch, S, d_model)
        return self.decode(decoder_input_ids, memory, source.mask, decoder_attention_mask, positions, cache)

    def loss(self, input_ids: Any, attention_mask: Any, decoder_input_ids: Any, labels: Any) -> Tensor:
        """Mean cross-entropy of the labels (batch, T), smoothed as configured; -100 does not count."""
        logits = self(input_ids, decoder_input_ids, attention_mask)
        return cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
