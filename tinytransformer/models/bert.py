"""BERT: a Transformer encoder that reads in both directions (document section 5.1), and ALBERT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from ..autograd import raw
from ..formulas import gelu, gelu_tanh
from ..nn import Dropout, Embedding, LayerNorm, Linear, Module, ModuleList, TransformerEncoderLayer
from ..ops import relu, tanh
from ..tensor import Tensor
from .config import check_config
from .inputs import draw_normal, padding, token_ids
from .pretrained import PretrainedModel

__all__ = ["BERT", "BERTConfig", "BERTOutput"]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu}


@dataclasses.dataclass(frozen=True)
class BERTConfig:
    """The sizes and switches of a `BERT`; the defaults are those of BERT-base.

    Parameters
    ----------
    vocab_size, max_positions, type_vocab_size : int
        Token ids, positions and segments that have an embedding.
    d_model, num_layers, num_heads, d_ff : int
        Features of each position, layers, heads of each (they divide ``d_model``), features inside.
    dropout : float
        Probability of dropping an entry of embeddings, attention weights and layer outputs in training.
    layer_norm_eps : float
        Added to the variance in each layer norm.
    pad_token_id : int
        The token whose embedding starts at zero.
    activation : {"gelu", "gelu_tanh", "relu"}
        Of the feed-forward and of the masked-LM head.
    num_labels : int
        Classes of a classification head.
    embedding_size : int
        Features of the embeddings, mapped to ``d_model``; 0 is ``d_model``, and no map.
    shared_layers : bool
        Use one layer ``num_layers`` times.

    Raises
    ------
    ValueError
        If a size is not positive, the heads do not divide the features, or a switch is unknown.

    Examples
    --------
    >>> BERTConfig(vocab_size=30522).d_ff
    3072
    >>> BERTConfig.albert(vocab_size=30000).embedding_size
    128
    """

    vocab_size: int
    max_positions: int = 512
    d_model: int = 768
    num_layers: int = 12
    num_heads: int = 12
    d_ff: int = 3072
    type_vocab_size: int = 2
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    activation: str = "gelu"
    num_labels: int = 2
    embedding_size: int = 0
    shared_layers: bool = False

    @classmethod
    def albert(cls, vocab_size: int, **others: Any) -> BERTConfig:
        """Return a configuration with the switches of ALBERT, unless ``others`` say otherwise."""
        switches = {"embedding_size": 128, "shared_layers": True, "activation": "gelu_tanh", "dropout": 0.0}
        return cls(vocab_size, **{**switches, **others})

    def __post_init__(self) -> None:
        check_config(self, {"activation": tuple(ACTIVATIONS)}, {"num_heads": "d_model"})
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(
                f"BERTConfig: pad_token_id={self.pad_token_id} is outside the vocabulary of {self.vocab_size}"
            )


class BERTOutput(NamedTuple):
    """What the encoder knows: ``hidden`` (batch, T, d_model), and ``pooled`` (batch, d_model) or None."""

    hidden: Tensor
    pooled: Tensor | None


def initialize(module: Module, rng: numpy.random.Generator) -> None:
    """Draw matrices from N(0, 0.02²) and set biases to 0; gains stay 1."""
    draw_normal(module, rng, lambda *_: 0.02)


class BERT(PretrainedModel):
    r"""An encoder: what each token means, given all tokens on both sides of it.

    .. math::
        x &= \mathrm{LN}(E_{\mathrm{ids}} + P + S_{\mathrm{segment}}) \\
        x &\leftarrow \mathrm{LN}(x + \mathrm{MultiHead}(x)), \quad
        x \leftarrow \mathrm{LN}(x + \mathrm{FFN}(x)) \qquad \text{in each layer} \\
        \mathrm{pooled} &= \tanh(x_{[\mathrm{CLS}]} W + b)

    ALBERT (`BERTConfig.albert`) maps smaller embeddings to the features of its layers, which are all one.

    Parameters
    ----------
    config : BERTConfig
        Sizes and switches.
    rng : numpy.random.Generator, optional
        Draws the initial parameters, and later the dropout.
    dtype : dtype
        Of the parameters.
    pooler : bool
        Whether there is a ``pooled`` output: heads that look at each token do without.

    Notes
    -----
    Source: document section 5.1; Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, 2019;
    Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, 2020.

    Examples
    --------
    >>> model = BERT(BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24))
    >>> output = model([[3, 1, 4, 0], [1, 5, 9, 2]], attention_mask=[[1, 1, 1, 0], [1, 1, 1, 1]])
    >>> output.hidden.shape, output.pooled.shape
    ((2, 4, 12), (2, 12))
    """

    def __init__(
        self,
        config: BERTConfig,
        rng: numpy.random.Generator | None = None,
        dtype: Any = "float32",
        pooler: bool = True,
    ):
        rng = numpy.random.default_rng() if rng is None else rng
        self.config = config
        self.rng = rng
        d, made = config.d_model, {"rng": rng, "dtype": dtype}
        size = config.embedding_size or d
        self.token_embedding = Embedding(config.vocab_size, size, **made)
        self.position_embedding = Embedding(config.max_positions, size, **made)
        self.segment_embedding = Embedding(config.type_vocab_size, size, **made)
        self.norm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.projection = Linear(size, d, **made) if config.embedding_size else None
        self.layers = ModuleList(
            TransformerEncoderLayer(
                d,
                config.num_heads,
                config.d_ff,
                dropout=config.dropout,
                activation=ACTIVATIONS[config.activation],
                layer_norm_eps=config.layer_norm_eps,
                norm_first=False,
                **made,
            )
            for _ in range(1 if config.shared_layers else config.num_layers)
        )
        self.pooler = Linear(d, d, **made) if pooler else None
        initialize(self, rng)
        self.token_embedding.weight.data[config.pad_token_id] = 0

    def forward(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, positions: Any = None
    ) -> BERTOutput:
        """Encode token ids.

        Parameters
        ----------
        input_ids : integer array, shape (batch, T)
            Token ids in [0, V).
        attention_mask : array, shape (batch, T), optional
            Not 0 at real tokens, 0 at padding; all are real by default.
        token_type_ids : integer array, shape (batch, T), optional
            Segment of each token: 0 in the first sentence, 1 in the second; all 0 by default.
        positions : integer array, shape (T,) or (batch, T), optional
            Position of each token; 0, 1, … by default.

        Raises
        ------
        IndexError
            If a token, segment or position has no embedding.
        ValueError
            If the ids are not (batch, T), there are too many, or the mask has another shape.
        """
        ids = token_ids(self, input_ids)
        T = ids.shape[1]
        if self.config.max_positions < T:
            raise ValueError(
                f"BERT: {T} tokens are more than max_positions={self.config.max_positions}; truncate the text"
            )
        segments = numpy.zeros((1, T), int) if token_type_ids is None else token_type_ids
        x = self.token_embedding(ids)  # (batch, T, embedding_size or d_model)
        x = x + self.position_embedding(numpy.arange(T) if positions is None else positions)
        x = x + self.segment_embedding(segments)
        x = self.dropout(self.norm(x))
        x = x if self.projection is None else self.projection(x)  # (batch, T, d_model)
        if attention_mask is not None and (shape := numpy.shape(raw(attention_mask))) != tuple(ids.shape):
            raise ValueError(f"BERT: attention_mask of shape {shape} for ids of shape {ids.shape}")
        mask = padding(attention_mask)
        for i in range(self.config.num_layers):
            x = self.layers[i % len(self.layers)](x, mask)
        return BERTOutput(x, None if self.pooler is None else tanh(self.pooler(x[:, 0])))
