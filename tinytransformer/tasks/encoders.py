"""Encoders to fine-tune, a trained one that is given or a small one from nothing, and tasks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy

from ..models import BERT, BERTConfig
from ..models.bert import initialize
from ..nn import Linear
from ..text import WordPieceTokenizer
from .finetuning import Batch, FineTuning

__all__ = ["EncoderTask", "encoder_of", "hide_tokens", "small_encoder"]

VOCABULARY = 4096  # of a new tokenizer
INITIAL_DEVIATION = 0.02  # of the matrices of a new BERT


def small_encoder(
    texts: Sequence[str], longest: int, pooler: bool, rng: numpy.random.Generator, **changes: Any
) -> tuple[BERT, WordPieceTokenizer]:
    r"""Make an encoder that learns something in two minutes from nothing, and train its tokenizer.

    Its matrices are drawn with a standard deviation of :math:`1/\sqrt{d}`: the 0.02 of BERT, which is nearly
    that for 768 features, is too small for 128 to learn quickly.

    Parameters
    ----------
    texts : sequence of str
        Those to train on.
    longest : int
        Most tokens in a row.
    pooler : bool
        Whether the head looks at the pooled output.
    rng : numpy.random.Generator
        Draws the weights.
    **changes
        Of the configuration.

    Examples
    --------
    >>> rng = numpy.random.default_rng(0)
    >>> encoder, tokenizer = small_encoder(["attention is all you need"], 16, pooler=True, rng=rng)
    >>> encoder.config.vocab_size == tokenizer.vocab_size, encoder.config.max_positions
    (True, 16)
    """
    tokenizer = WordPieceTokenizer.train("\n".join(texts), VOCABULARY)
    sizes = {"d_model": 128, "num_layers": 2, "num_heads": 4, "d_ff": 256, "dropout": 0.0}
    config = BERTConfig(tokenizer.vocab_size, longest, pad_token_id=tokenizer.pad_id, **(sizes | changes))
    encoder = BERT(config, rng, pooler=pooler)
    for p in encoder.layers.parameters():
        if p.ndim == 2:
            p.data *= config.d_model**-0.5 / INITIAL_DEVIATION
    return encoder, tokenizer


def hide_tokens(ids: Any, tokenizer: WordPieceTokenizer, rate: float, rng: numpy.random.Generator) -> Any:
    """Put ``[MASK]`` in the place of some tokens: no single word may decide.

    This does for a small model what dropout does, without random numbers in the layers, so that threads can
    share a batch.

    Parameters
    ----------
    ids : integer array, shape (batch, T)
        Special tokens stay.
    tokenizer : WordPieceTokenizer
    rate : float
        Probability of hiding a token.
    rng : numpy.random.Generator

    Examples
    --------
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"])
    >>> ids = numpy.array([[2, 5, 5, 5, 3]])
    >>> hide_tokens(ids, tokenizer, 0.5, numpy.random.default_rng(0)).tolist()
    [[2, 4, 4, 4, 3]]
    """
    hidden = (rng.random(ids.shape) < rate) & ~numpy.isin(ids, tokenizer.special_ids)
    return numpy.where(hidden, tokenizer.mask_id, ids)


def encoder_of(model: Any, pooler: bool, rng: numpy.random.Generator) -> BERT:
    """Return the encoder of a BERT, whatever head it has, with or without what pools its output.

    Parameters
    ----------
    model : BERT or one of its heads
        Changed in place: a pooler that is missing is drawn anew, one that is not needed goes.
    pooler : bool
        Whether the new head looks at the pooled output.
    rng : numpy.random.Generator
        Draws the new pooler.

    Raises
    ------
    ValueError
        If the model is no BERT.

    Examples
    --------
    >>> from tinytransformer.models import BERTForMaskedLM
    >>> config = BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24)
    >>> encoder_of(BERTForMaskedLM(config), True, numpy.random.default_rng(0)).pooler.weight.shape
    (12, 12)
    """
    encoder = model if isinstance(model, BERT) else getattr(model, "encoder", None)
    if not isinstance(encoder, BERT):
        raise ValueError(
            f"this task needs an encoder, a BERT, and the model given is a {type(model).__name__}"
        )
    if pooler and encoder.pooler is None:
        d = encoder.config.d_model
        encoder.pooler = Linear(d, d, rng=rng, dtype=encoder.token_embedding.weight.dtype)
        initialize(encoder.pooler, rng)
    elif not pooler:
        encoder.pooler = None
    return encoder


class EncoderTask(FineTuning):
    """A task for an encoder, whose batches start with the tokens of texts.

    Attributes
    ----------
    hiding : float
        Part of the tokens of texts that is hidden at each step: see `hide_tokens`.
    hidden : float
        The same, or 0 for a model that has dropout of its own.

    Examples
    --------
    >>> from tinytransformer.tasks import TASKS
    >>> [name for name, kind in TASKS.items() if issubclass(kind, EncoderTask)]
    ['classify', 'qa']
    """

    pretrained_settings: ClassVar[dict[str, Any]] = {
        "learning_rate": 1e-4,
        "batch_size": 16,
        "weight_decay": 0.01,
        "schedule": "linear",
    }
    hiding: ClassVar[float]

    def __init__(self, data: Any, model: Any, tokenizer: Any, batch_size: int, seed: int):
        super().__init__(data, model, tokenizer, batch_size, seed)
        self.hidden = 0.0 if model.config.dropout else self.hiding

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, some tokens hidden."""
        ids, *rest = super().batch(step)
        return hide_tokens(ids, self.tokenizer, self.hidden, self.drawing(step)), *rest
