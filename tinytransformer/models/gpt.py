"""GPT: a stack of Transformer blocks that see only what came before (document section 5.2)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy

from ..autograd import raw
from ..backend import module_of, to_numpy, xp
from ..formulas import Mask, cross_entropy, gelu_tanh, linear, sinusoidal_positions
from ..nn import (
    Dropout,
    Embedding,
    KeyValueCache,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    TransformerEncoderLayer,
)
from ..tensor import Tensor

__all__ = ["GPT", "GPTConfig"]


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The sizes and switches of a `GPT`.

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
        Features inside the feed-forward; four times ``d_model`` by default.
    dropout : float
        Probability of dropping an entry of embeddings, attention weights and block outputs in training.
    positions : {"learned", "sinusoidal"}
        A trained vector for each position, or the sines of Vaswani et al. 2017.
    tied_head : bool
        Use the token embeddings as the output matrix too.
    layer_norm_eps : float
        Added to the variance in each layer norm.

    Raises
    ------
    ValueError
        If a size is not positive, the heads do not divide the features, or a switch is unknown.

    Examples
    --------
    >>> GPTConfig(vocab_size=65, d_model=96, num_heads=4).d_ff
    384
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

    def __post_init__(self) -> None:
        if not self.d_ff:
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        for name in ("vocab_size", "context_length", "d_model", "num_layers", "num_heads", "d_ff"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"GPTConfig: {name} must be a positive integer, not {value!r}")
        if self.d_model % self.num_heads:
            raise ValueError(f"GPTConfig: num_heads={self.num_heads} does not divide d_model={self.d_model}")
        if self.positions not in ("learned", "sinusoidal"):
            raise ValueError(
                f"GPTConfig: positions must be 'learned' or 'sinusoidal', not {self.positions!r}"
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"GPTConfig: sinusoidal positions need an even d_model, not {self.d_model}")
        if not isinstance(self.tied_head, bool):
            raise ValueError(f"GPTConfig: tied_head must be True or False, not {self.tied_head!r}")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig: dropout must be in [0, 1), not {self.dropout!r}")
        if not isinstance(self.layer_norm_eps, (int, float)) or not 0 < self.layer_norm_eps < 1:
            raise ValueError(f"GPTConfig: layer_norm_eps must be in (0, 1), not {self.layer_norm_eps!r}")

    @property
    def num_parameters(self) -> int:
        """How many parameters the model has, told without building it."""
        V, T, d, f = self.vocab_size, self.context_length, self.d_model, self.d_ff
        embeddings = V * d + (T * d if self.positions == "learned" else 0)
        block = 4 * (d * d + d) + (2 * d * f + f + d) + 2 * 2 * d  # attention, feed-forward, two norms
        return embeddings + self.num_layers * block + 2 * d + (0 if self.tied_head else V * d)


class GPT(Module):
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
    divided by the square root of the number of branches.

    Examples
    --------
    >>> import numpy as np
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3))
    >>> model([[3, 1, 4], [1, 5, 9]]).shape
    (2, 3, 11)
    """

    def __init__(self, config: GPTConfig, rng: numpy.random.Generator | None = None, dtype: Any = "float32"):
        super().__init__()
        rng = numpy.random.default_rng() if rng is None else rng
        self.config = config
        self.rng = rng
        self.token_embedding = Embedding(config.vocab_size, config.d_model, rng=rng, dtype=dtype)
        if config.positions == "learned":
            self.position_embedding = Embedding(config.context_length, config.d_model, rng=rng, dtype=dtype)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.blocks = ModuleList(
            TransformerEncoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                dropout=config.dropout,
                activation=gelu_tanh,
                layer_norm_eps=config.layer_norm_eps,
                norm_first=True,
                rng=rng,
                dtype=dtype,
            )
            for _ in range(config.num_layers)
        )
        self.norm = LayerNorm(config.d_model, config.layer_norm_eps, dtype=dtype)
        if not config.tied_head:
            self.head = Linear(config.d_model, config.vocab_size, bias=False, rng=rng, dtype=dtype)
        self._initialize(rng)

    def _initialize(self, rng: numpy.random.Generator) -> None:
        """Draw the parameters as GPT-2 does; gains stay 1."""
        residual = 1 / math.sqrt(2 * self.config.num_layers)  # two branches in each block
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                p.data[...] = 0
            elif p.ndim == 2:
                last_of_branch = name.endswith(("W_O.weight", "linear2.weight"))
                drawn = rng.normal(0.0, 0.02 * (residual if last_of_branch else 1), p.shape)
                p.data[...] = module_of(p.data).asarray(drawn)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        positions: Any = None,
        cache: list[KeyValueCache] | None = None,
    ) -> Tensor:
        """Score the next token at every position.

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

        Returns
        -------
        Tensor, shape (batch, T, V)
            Logits.

        Raises
        ------
        IndexError
            If a token id is outside the vocabulary.
        ValueError
            If the ids are not (batch, T), or reach past the context length.
        """
        ids = numpy.asarray(input_ids) if isinstance(input_ids, (list, tuple)) else raw(input_ids)
        if ids.ndim != 2:
            raise ValueError(f"GPT: input_ids must have shape (batch, T), not {tuple(ids.shape)}")
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
        else:  # sines have size 1: the embeddings are scaled up to them, as in Vaswani et al. 2017, 3.4
            x = x * math.sqrt(self.config.d_model) + sinusoidal_positions(
                positions, self.config.d_model, x.dtype
            )
        x = self.dropout(x)
        mask = Mask.causal(T, past + T)
        if attention_mask is not None:
            real = xp.asarray(to_numpy(raw(attention_mask)) != 0)  # (batch, T_k), where masks are born
            mask = mask & Mask(real[:, None, :])
        for i, block in enumerate(self.blocks):
            x = block(x, mask, cache[i] if cache else None)
        x = self.norm(x)
        if self.config.tied_head:
            return linear(x, self.token_embedding.weight.mT)
        return self.head(x)

    def loss(self, input_ids: Any, targets: Any) -> Tensor:
        """Mean cross-entropy of the targets (batch, T) in nats per token; targets of -100 do not count."""
        return cross_entropy(self(input_ids), targets)

    def new_cache(self) -> list[KeyValueCache]:
        """Return an empty cache for each block, to pass to every call of one generation."""
        return [KeyValueCache() for _ in self.blocks]
