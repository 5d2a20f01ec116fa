"""GPT: a stack of Transformer blocks that see only what came before (document section 5.2)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy

from .. import nn
from ..autograd import raw
from ..backend import module_of, running, to_numpy
from ..formulas import Mask, cross_entropy, gelu_tanh, linear, silu, sinusoidal_positions
from ..tensor import Tensor
from .config import check_config
from .inputs import causal, draw_normal, token_ids
from .pretrained import PretrainedModel

__all__ = ["GPT", "GPTConfig"]

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
FEED_FORWARDS = {"gelu": (nn.FeedForward, gelu_tanh), "swiglu": (nn.GatedFeedForward, silu)}
CHOICES = {
    "positions": ("learned", "sinusoidal", "rotary"),
    "normalization": tuple(NORMS),
    "feed_forward": tuple(FEED_FORWARDS),
}
LAST_OF_BRANCH = ("W_O.weight", "linear2.weight", "down.weight")  # in a block: what is added to the residual


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The sizes and switches of a `GPT`. The switches are GPT-2's by default; `llama` sets today's.

    Parameters
    ----------
    vocab_size : int
        V, the number of token ids.
    context_length : int
        T, the most tokens the model sees at once.
    d_model : int
        Features of each position.
    num_layers, num_heads : int
        Blocks, and heads in the attention of each; the heads divide ``d_model``.
    d_ff : int, optional
        Features inside the feed-forward: four times ``d_model`` by default, or 8/3 of it with three matrices.
    dropout : float
        Probability of dropping an entry of embeddings, attention weights and block outputs in training.
    positions : {"learned", "sinusoidal", "rotary"}
        A trained vector for each position, the sines of Vaswani et al. 2017, or rotated queries and keys.
    tied_head : bool
        Use the token embeddings as the output matrix too.
    layer_norm_eps : float
        Added to the variance, or mean square, in each norm.
    normalization : {"layer", "rms"}
        `layer_norm` or `rms_norm`.
    feed_forward : {"gelu", "swiglu"}
        Two matrices and a GELU, or three and a SiLU as gate.
    num_kv_heads : int, optional
        Heads of keys and values, each shared by a group of query heads; ``num_heads`` by default.
    bias : bool
        Whether the matrices of the blocks have biases.
    rope_theta : float
        Base of the rotary positions.

    Raises
    ------
    ValueError
        If a size is not positive, the heads do not divide the features, or a switch is unknown.

    Examples
    --------
    >>> GPTConfig(vocab_size=65, d_model=96, num_heads=4).d_ff
    384
    >>> GPTConfig.llama(vocab_size=65, d_model=96, num_heads=4, num_kv_heads=2).d_ff
    256
    """

    vocab_size: int
    context_length: int = 64
    d_model: int = 128
    num_layers: int = 2
    num_heads: int = 4
    d_ff: int = 0
    dropout: float = 0.0
    positions: str = "learned"
    tied_head: bool = True
    layer_norm_eps: float = 1e-5
    normalization: str = "layer"
    feed_forward: str = "gelu"
    num_kv_heads: int = 0
    bias: bool = True
    rope_theta: float = 10000.0

    @classmethod
    def llama(cls, vocab_size: int, **others: Any) -> GPTConfig:
        """Return a configuration with the switches of Llama, unless ``others`` say otherwise."""
        switches = {"normalization": "rms", "positions": "rotary", "feed_forward": "swiglu", "bias": False}
        return cls(vocab_size, **{**switches, **others})

    def __post_init__(self) -> None:
        if not self.d_ff:
            d_ff = 8 * self.d_model // 3 if self.feed_forward == "swiglu" else 4 * self.d_model
            object.__setattr__(self, "d_ff", d_ff)
        if not self.num_kv_heads:
            object.__setattr__(self, "num_kv_heads", self.num_heads)
        check_config(self, CHOICES, {"num_heads": "d_model", "num_kv_heads": "num_heads"})
        features = {"sinusoidal": self.d_model, "rotary": self.d_model // self.num_heads}
        if features.get(self.positions, 0) % 2:
            raise ValueError(
                f"GPTConfig: {self.positions} positions need an even number of features, not "
                f"{features[self.positions]}: change d_model={self.d_model} or num_heads={self.num_heads}"
            )

    @property
    def num_parameters(self) -> int:
        """How many parameters the model has, told without building it."""
        V, T, d, f = self.vocab_size, self.context_length, self.d_model, self.d_ff
        d_kv = d // self.num_heads * self.num_kv_heads
        maps = 3 if self.feed_forward == "swiglu" else 2
        norm = 2 * d if self.normalization == "layer" else d
        biases = 2 * d + 2 * d_kv + (maps - 1) * f + d if self.bias else 0
        block = 2 * d * (d + d_kv) + maps * d * f + biases + 2 * norm
        embeddings = V * d + (T * d if self.positions == "learned" else 0)
        return embeddings + self.num_layers * block + norm + (0 if self.tied_head else V * d)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm, and added to its input."""

    def __init__(self, config: GPTConfig, rng: numpy.random.Generator, dtype: Any):
        c, norm, made = config, NORMS[config.normalization], {"rng": rng, "dtype": dtype}
        theta = c.rope_theta if c.positions == "rotary" else None
        self.self_attention = nn.MultiHeadAttention(
            c.d_model, c.num_heads, c.bias, c.dropout, num_kv_heads=c.num_kv_heads, rope_theta=theta, **made
        )
        feed_forward, activation = FEED_FORWARDS[c.feed_forward]
        self.feed_forward = feed_forward(c.d_model, c.d_ff, activation, c.bias, **made)
        self.norm1 = norm(c.d_model, c.layer_norm_eps, dtype=dtype)
        self.norm2 = norm(c.d_model, c.layer_norm_eps, dtype=dtype)
        self.dropout = nn.Dropout(c.dropout, rng=rng)

    def forward(self, x: Any, mask: Mask, positions: Any, cache: nn.KeyValueCache | None) -> Any:
        """Map (batch, T, d_model) to the same shape."""
        x = x + self.dropout(self.self_attention(self.norm1(x), mask=mask, cache=cache, positions=positions))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class GPT(PretrainedModel):
    r"""A causal language model: the probability of each token given those before it.

    .. math::
        x &= E_{\mathrm{ids}} + P \\
        x &\leftarrow x + \mathrm{MultiHead}(\mathrm{LN}(x)), \quad
        x \leftarrow x + \mathrm{FFN}(\mathrm{LN}(x)) \qquad \text{in each block} \\
        z &= \mathrm{LN}(x) E^T

    Parameters
    ----------
    config : GPTConfig
        Sizes and switches.
    rng : numpy.random.Generator, optional
        Draws the initial parameters, and later the dropout.
    dtype : dtype
        Of the parameters.

    Notes
    -----
    Source: document section 5.2; Radford et al., Language Models are Unsupervised Multitask Learners, 2019,
    with its initialisation: normal with deviation 0.02, and in the last matrix of each residual branch
    divided by the square root of the number of branches. The switches of `GPTConfig.llama`: Touvron et al.,
    LLaMA, 2023; its rotary positions take the place of P and act on queries and keys instead.

    Examples
    --------
    >>> import numpy as np
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3))
    >>> model([[3, 1, 4], [1, 5, 9]]).shape
    (2, 3, 11)
    """

    def __init__(self, config: GPTConfig, rng: numpy.random.Generator | None = None, dtype: Any = "float32"):
        rng = numpy.random.default_rng() if rng is None else rng
        self.config = config
        self.rng = rng
        d, made = config.d_model, {"rng": rng, "dtype": dtype}
        self.token_embedding = nn.Embedding(config.vocab_size, d, **made)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, d, **made)
        self.dropout = nn.Dropout(config.dropout, rng=rng)
        self.blocks = nn.ModuleList(Block(config, rng, dtype) for _ in range(config.num_layers))
        self.norm = NORMS[config.normalization](d, config.layer_norm_eps, dtype=dtype)
        if not config.tied_head:
            self.head = nn.Linear(d, config.vocab_size, bias=False, **made)
        residual = 1 / math.sqrt(2 * config.num_layers)  # two branches in each block
        draw_normal(self, rng, lambda name, _: 0.02 * (residual if name.endswith(LAST_OF_BRANCH) else 1))

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        positions: Any = None,
        cache: list[nn.KeyValueCache] | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Score the next token at every position: logits (batch, T, V).

        Parameters
        ----------
        input_ids : integer array, shape (batch, T)
            Token ids in [0, V).
        attention_mask : array, shape (batch, T_k), optional
            Not 0 at real tokens, 0 at padding; with a cache it covers the cached tokens too.
        positions : integer array, shape (batch, T), optional
            Position of each token; counted from the start, or from the end of the cache, by default.
        cache : list of KeyValueCache, optional
            Keys and values of earlier tokens, from `new_cache`; the new ones are added.
        last_only : bool
            Score the token after the last position alone: logits (batch, 1, V).

        Raises
        ------
        IndexError
            If a token id is outside the vocabulary.
        ValueError
            If the ids are not (batch, T), or reach past the context length.
        """
        ids = token_ids(self, input_ids)
        T = ids.shape[1]
        past = cache[0].length if cache else 0
        if past + T > self.config.context_length:
            raise ValueError(
                f"GPT: {past + T} tokens are more than the context length {self.config.context_length}; "
                "keep only the last ones, or train with a longer context"
            )
        if positions is None:
            positions = numpy.arange(past, past + T)  # (T,)
        x = self.token_embedding(ids)  # (batch, T, d_model)
        if self.config.positions == "learned":
            x = x + self.position_embedding(positions)
        with running(module_of(x.data)):  # what is new here is born where the model lives
            if self.config.positions == "sinusoidal":
                # sines have size 1: the embeddings are scaled up to them, as in Vaswani et al. 2017, 3.4
                sines = sinusoidal_positions(to_numpy(raw(positions)), self.config.d_model, x.dtype)
                x = x * math.sqrt(self.config.d_model) + sines
            mask = causal(T, past, attention_mask)
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, positions, cache[i] if cache else None)
        x = self.norm(x[:, -1:] if last_only else x)
        if self.config.tied_head:
            return linear(x, self.token_embedding.weight.mT)
        return self.head(x)

    def loss(self, input_ids: Any, targets: Any) -> Tensor:
        """Mean cross-entropy of the targets (batch, T) in nats per token; targets of -100 do not count."""
        return cross_entropy(self(input_ids), targets)

    def new_cache(self) -> list[nn.KeyValueCache]:
        """Return an empty cache for each block, to pass to every call of one generation."""
        return [nn.KeyValueCache() for _ in self.blocks]
