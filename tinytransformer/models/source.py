"""What an encoder-decoder writes about a given source, as generation asks for it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from ..autograd import raw
from ..backend import module_of, to_numpy
from ..nn import KeyValueCache, Module
from ..ops import broadcast_to, take

__all__ = ["EncoderDecoder", "GivenSource"]


class SourceCache:
    """What the encoder made of the source, for each row of a batch or one for all."""

    def __init__(self) -> None:
        self.memory: Any = None  # (batch, S, d_model)
        self.mask: Any = None  # (batch, S), 0 at padding

    def select(self, rows: Any) -> None:
        """Keep these rows of the batch, in this order; one may be kept more than once, as beams are."""
        if self.memory.shape[0] > 1:
            self.memory = take(self.memory, module_of(raw(self.memory)).asarray(rows), axis=0)
            self.mask = None if self.mask is None else self.mask[rows]

    def memory_for(self, targets: int) -> Any:
        """Return the memory for each of so many targets, (targets, S, d_model).

        Raises
        ------
        ValueError
            If there is neither one source for all of them nor one for each.
        """
        sources, *rest = self.memory.shape
        if sources not in (1, targets):
            raise ValueError(
                f"{sources} sources for {targets} targets: give one for all, or generate with the cache, "
                "which follows the rows"
            )
        return broadcast_to(self.memory, (targets, *rest))


class EncoderDecoder(Module):
    """What reads a source and writes a target: how it remembers the one, and is asked for the other."""

    config: Any

    def encode(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Turn a source (batch, S) into the memory (batch, S, d_model); the mask is 0 at padding."""
        raise AttributeError(f"{type(self).__name__} defines no encode()")

    def source(self, cache: list[Any] | None, input_ids: Any, attention_mask: Any) -> SourceCache:
        """Return what the cache knows of the source, or encode it."""
        source = cache[0] if cache else SourceCache()
        if source.memory is None:
            source.memory = self.encode(input_ids, attention_mask)
            source.mask = None if attention_mask is None else to_numpy(raw(attention_mask))
        return source

    def given(self, input_ids: Any, attention_mask: Any = None) -> GivenSource:
        """Return what generation continues: ``generate(model.given(source), start, …)``."""
        c = self.config
        vocab_size = c.target_vocab_size if hasattr(c, "target_vocab_size") else c.vocab_size
        return GivenSource(self, vocab_size, input_ids, attention_mask)

    def new_cache(self) -> list[Any]:
        """Return an empty cache: the source, then for each layer keys and values of the target and of it."""
        return [SourceCache(), *(KeyValueCache() for _ in range(2 * self.config.num_decoder_layers))]


class GivenSource:
    """A model with its source filled in: what it writes is scored as a `LanguageModel` does.

    Parameters
    ----------
    model : Module
        A `Transformer` or `T5`.
    vocab_size : int
        Of what it writes.
    input_ids : integer array, shape (batch, S)
        A source for each prompt, or one for all. Several are told apart by the cache: without one,
        generation would not know which of them go on.
    attention_mask : array, shape (batch, S), optional
        0 at padding.

    Examples
    --------
    >>> from tinytransformer.generation import generate
    >>> from tinytransformer.models import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig(11, 13, d_model=12, num_heads=3, d_ff=24))
    >>> given = model.given([[3, 1, 4], [1, 5, 0]], attention_mask=[[1, 1, 1], [1, 1, 0]])
    >>> len(generate(given, [[1], [1]], max_new_tokens=7, stop_tokens=2))
    2
    """

    def __init__(self, model: Any, vocab_size: int, input_ids: Any, attention_mask: Any = None):
        self.model, self.input_ids, self.attention_mask = model, input_ids, attention_mask
        self.config = SimpleNamespace(vocab_size=vocab_size, context_length=math.inf)
        self.new_cache, self.modules = model.new_cache, model.modules

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, positions: Any = None, cache: Any = None
    ) -> Any:
        """Return logits (batch, T, V) of target tokens."""
        return self.model(
            self.input_ids,
            attention_mask=self.attention_mask,
            decoder_input_ids=input_ids,
            decoder_attention_mask=attention_mask,
            positions=positions,
            cache=cache,
        )
