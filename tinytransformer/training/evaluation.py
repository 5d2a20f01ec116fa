"""How good a language model is: cross-entropy, perplexity, bits per character."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from ..autograd import no_grad
from ..formulas import cross_entropy
from ..models import NGram
from ..text import windows
from ..text.tokenizers import progress_bar

__all__ = ["Score", "evaluate", "evaluating", "ngram_scores"]


@dataclasses.dataclass(frozen=True)
class Score:
    r"""The cross-entropy of a model on a text, in the units of the field.

    .. math::
        \mathrm{perplexity} = e^{L / N}, \qquad \mathrm{bits\ per\ character} = L / (C \ln 2)

    for the loss L in nats summed over N tokens, which spell C characters. Bits per character do not depend
    on the tokenizer: that is the number to compare models by.

    Attributes
    ----------
    nats : float
        L, the negative natural logarithm of the probability given to the tokens.
    tokens, characters : int
        N and C.

    Examples
    --------
    >>> score = Score(nats=20 * math.log(2), tokens=10, characters=20)
    >>> round(score.perplexity, 9), score.bits_per_character
    (4.0, 1.0)
    """

    nats: float
    tokens: int
    characters: int

    @property
    def nats_per_token(self) -> float:
        """Mean loss L / N."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """How many equally likely tokens would be as hard to guess."""
        return math.exp(min(self.nats_per_token, 700.0))

    @property
    def bits_per_character(self) -> float:
        """Bits an ideal compressor led by the model would need for each character."""
        return self.nats / self.characters / math.log(2) if self.characters else math.inf


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Run a model without dropout and without a graph; its mode comes back.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> dropout = tt.nn.Dropout(0.5)
    >>> with evaluating(dropout):
    ...     dropout(tt.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    >>> dropout.training
    True
    """
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        model.train(was_training)


def evaluate(
    model: Any,
    tokens: Any,
    characters: Any,
    batch_size: int = 64,
    limit: int | None = None,
    stride: int | None = None,
    progress: bool = False,
) -> Score:
    """Score every token but the first, each given the tokens before it in its window.

    Parameters
    ----------
    model : GPT
        Anything that maps ids (batch, T) to logits, with ``config.context_length``.
    tokens : integer array, 1-D
        The text, as token ids.
    characters : integer array, shape (V,)
        Characters that each token adds to the text, from `Tokenizer.character_counts`.
    batch_size : int
        Windows at once.
    limit : int, optional
        Score only the first so many tokens: for a quick look during training.
    stride : int, optional
        Tokens from one window to the next. With the context length (the default) windows do not overlap,
        and tokens at the start of a window are guessed with little before them; with less every token but
        the first few has at least ``context_length - stride`` before it, at a higher cost.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Score

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=7, context_length=5, d_model=8, num_heads=2))
    >>> score = evaluate(model, numpy.arange(40) % 7, numpy.ones(7, int))
    >>> score.tokens
    39
    """
    tokens = tokens[:limit]
    context = model.config.context_length
    nats, count = 0.0, 0
    with evaluating(model), progress_bar(progress, len(tokens) - 1, "evaluating", "token") as advance:
        for inputs, targets in windows(tokens, batch_size, context, stride):
            nats += float(cross_entropy(model(inputs), targets, reduction="sum"))
            new = int((targets >= 0).sum())
            count += new
            advance(new)
    return Score(nats, count, int(numpy.asarray(characters)[tokens[1:]].sum()))


def ngram_scores(
    train: Any, validation: Any, vocab_size: int, characters: Any, orders: tuple[int, ...] = (1, 2, 3)
) -> dict[str, Score]:
    """Train n-gram models on the same split and score them on the same tokens, for comparison.

    Parameters
    ----------
    train, validation : integer arrays, 1-D
        The split.
    vocab_size : int
        V.
    characters : integer array, shape (V,)
        Characters that each token adds to the text.
    orders : tuple of int
        n of each model.

    Returns
    -------
    dict
        Name of the model to its `Score`.

    Examples
    --------
    >>> tokens = numpy.tile([0, 1, 2, 1], 50)
    >>> list(ngram_scores(tokens[:150], tokens[150:], 3, numpy.ones(3, int)))
    ['unigram', 'bigram', 'trigram']
    """
    names = {1: "unigram", 2: "bigram", 3: "trigram"}
    counted = int(numpy.asarray(characters)[validation[1:]].sum())
    scores = {}
    for order in orders:
        model = NGram(order, vocab_size).fit(train)
        nats = -float(model.log_probabilities(validation)[1:].sum())
        scores[names.get(order, f"{order}-gram")] = Score(nats, len(validation) - 1, counted)
    return scores
