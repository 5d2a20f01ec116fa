"""The two listings of the document, sections 5.1 and 5.2, so that they run: the calls are as printed there.

``docs/listings.md`` says what is wrong with each printed line, and what stands here instead.
"""

from __future__ import annotations

from typing import Any

import numpy

from ..autograd import raw
from ..backend import to_numpy, xp
from ..formulas import Mask, gelu, gelu_tanh, sinusoidal_positions
from ..nn import Embedding, LayerNorm, Linear, Module, ModuleList, TransformerEncoderLayer
from ..tensor import Tensor
from .inputs import token_ids

__all__ = ["Bert", "Gpt"]


class Listing(Module):
    """What the two listings have in common: embeddings with positions, and the mask of the padding."""

    embedding: Embedding

    def _embed(self, input_ids: Any) -> Any:
        """Look up (batch, T) tokens, and add where each stands: (batch, T, embedding_size)."""
        ids = token_ids(self, input_ids)
        x = self.embedding(ids)
        return x + sinusoidal_positions(numpy.arange(ids.shape[1]), x.shape[-1], x.dtype)

    def _real(self, attention_mask: Any, shape: tuple[int, ...]) -> Mask:
        """Let each token attend to what is not padding, (batch, 1, T)."""
        real = numpy.ones(shape, bool) if attention_mask is None else to_numpy(raw(attention_mask)) != 0
        if real.shape != shape:
            raise ValueError(
                f"{type(self).__name__}: attention_mask of shape {real.shape} for input_ids of shape {shape}"
            )
        return Mask(xp.asarray(real[:, None, :]))


class Bert(Listing):
    r"""The encoder of document section 5.1: each token is classified by all tokens on both sides of it.

    .. math::
        x &= (E_{\mathrm{ids}} + P) W + b \\
        x &\leftarrow x + \mathrm{MultiHead}(\mathrm{LN}(x)), \quad
        x \leftarrow x + \mathrm{FFN}(\mathrm{LN}(x)) \qquad \text{in each layer} \\
        z &= \mathrm{LN}(x) W_{\mathrm{out}} + c

    Parameters
    ----------
    vocab_size : int
        Number of token ids.
    embedding_size, hidden_size : int
        Features of an embedding (even), and of each position in the layers; W leads from one to the other.
    num_layers, num_attention_heads : int
        Layers, and heads in each; the heads divide ``hidden_size``.
    num_output_classes : int
        Features of the output.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters, and later the dropout.
    dtype : dtype
        Of the parameters.

    Notes
    -----
    Source: document section 5.1. The step from ``embedding_size`` to ``hidden_size`` is that of Lan et al.,
    ALBERT, 2020, section 3.1. `BERT` is the model of the paper.

    Examples
    --------
    >>> model = Bert(vocab_size=11, embedding_size=6, hidden_size=12, num_layers=2,
    ...              num_attention_heads=3, num_output_classes=2)
    >>> model(input_ids=[[3, 1, 4, 0], [1, 5, 9, 2]], attention_mask=[[1, 1, 1, 0], [1, 1, 1, 1]]).shape
    (2, 4, 2)
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        num_attention_heads: int,
        num_output_classes: int,
        *,
        rng: numpy.random.Generator | int | None = None,
        dtype: Any = "float32",
    ):
        rng = numpy.random.default_rng(rng)
        made = {"rng": rng, "dtype": dtype}
        self.embedding = Embedding(vocab_size, embedding_size, **made)
        self.projection = Linear(embedding_size, hidden_size, **made)
        self.encoder = ModuleList(
            TransformerEncoderLayer(
                hidden_size, num_attention_heads, activation=gelu, norm_first=True, **made
            )
            for _ in range(num_layers)
        )
        self.norm = LayerNorm(hidden_size, dtype=dtype)
        self.final_layer = Linear(hidden_size, num_output_classes, **made)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """Classify each token.

        Parameters
        ----------
        input_ids : integer array, shape (batch, T)
            Token ids in [0, vocab_size).
        attention_mask : array, shape (batch, T), optional
            Not 0 at real tokens, 0 at padding; all are real by default.

        Returns
        -------
        Tensor, shape (batch, T, num_output_classes)
            Logits. Those of the first token serve as the logits of the text.

        Raises
        ------
        IndexError
            If a token id is outside the vocabulary.
        ValueError
            If the ids are not (batch, T), or the mask has another shape.
        """
        embedded = self._embed(input_ids)  # (batch, T, embedding_size)
        encoded = self.projection(embedded)  # (batch, T, hidden_size)
        mask = self._real(attention_mask, embedded.shape[:2])
        for layer in self.encoder:
            encoded = layer(encoded, mask)
        return self.final_layer(self.norm(encoded))


class Gpt(Listing):
    r"""The decoder of document section 5.2: each token is classified by itself and those before it.

    .. math::
        x &= E_{\mathrm{ids}} + P \\
        x &\leftarrow x + \mathrm{MaskedMultiHead}(\mathrm{LN}(x)), \quad
        x \leftarrow x + \mathrm{FFN}(\mathrm{LN}(x)) \qquad \text{in each layer} \\
        z &= \mathrm{LN}(x) W_{\mathrm{out}} + c

    Parameters
    ----------
    vocab_size : int
        Number of token ids.
    embedding_size : int
        Features of each position, even.
    num_layers, num_attention_heads : int
        Layers, and heads in each; the heads divide ``embedding_size``.
    num_output_classes : int
        Features of the output; ``vocab_size`` of them make a language model.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters, and later the dropout.
    dtype : dtype
        Of the parameters.

    Notes
    -----
    Source: document sections 3.2 and 5.2. `GPT` is the model of the paper, and generates text.

    Examples
    --------
    >>> model = Gpt(vocab_size=11, embedding_size=6, num_layers=2, num_attention_heads=3,
    ...             num_output_classes=2)
    >>> model(input_ids=[[3, 1, 4, 0], [1, 5, 9, 2]], attention_mask=[[1, 1, 1, 0], [1, 1, 1, 1]]).shape
    (2, 4, 2)
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        num_layers: int,
        num_attention_heads: int,
        num_output_classes: int,
        *,
        rng: numpy.random.Generator | int | None = None,
        dtype: Any = "float32",
    ):
        rng = numpy.random.default_rng(rng)
        made = {"rng": rng, "dtype": dtype}
        self.embedding = Embedding(vocab_size, embedding_size, **made)
        self.encoder = ModuleList(
            TransformerEncoderLayer(
                embedding_size, num_attention_heads, activation=gelu_tanh, norm_first=True, **made
            )
            for _ in range(num_layers)
        )
        self.norm = LayerNorm(embedding_size, dtype=dtype)
        self.final_layer = Linear(embedding_size, num_output_classes, **made)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """Classify each token by those up to it; arguments, result and errors as in `Bert`.

        Parameters
        ----------
        input_ids : integer array, shape (batch, T)
            Token ids in [0, vocab_size).
        attention_mask : array, shape (batch, T), optional
            Not 0 at real tokens, 0 at padding; all are real by default.

        Returns
        -------
        Tensor, shape (batch, T, num_output_classes)
            Logits. Those of the last real token have seen the whole text.

        Raises
        ------
        IndexError
            If a token id is outside the vocabulary.
        ValueError
            If the ids are not (batch, T), or the mask has another shape.
        """
        encoded = self._embed(input_ids)  # (batch, T, embedding_size)
        batch, T, _ = encoded.shape
        mask = self._real(attention_mask, (batch, T)) & Mask.causal(T)
        for layer in self.encoder:
            encoded = layer(encoded, mask)
        return self.final_layer(self.norm(encoded))
