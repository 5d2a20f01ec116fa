"""What a language model learns from text alone: the next token, hidden tokens and sentences, lost spans."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy

from ..formulas import cross_entropy
from ..models import T5, BERTForPretraining
from ..tensor import Tensor
from ..text import (
    Batches,
    SentencePair,
    Tokenizer,
    WordPieceTokenizer,
    corrupt_spans,
    mask_tokens,
    pad,
    sentence_pairs,
)
from ..training import Batch, evaluate, evaluating

__all__ = [
    "DocumentTokens",
    "LanguageModelling",
    "MaskedLanguageModelling",
    "SpanCorruption",
    "documents_in",
    "split_documents",
    "without_context",
]

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n\s*\n")
BLOCKS = 100  # that a text is cut into, of which some are kept for validation


class LanguageModelling:
    """Predict each token from those before it: the objective of GPT.

    Parameters
    ----------
    train_tokens, validation_tokens : integer arrays, 1-D
        The split; they may be mapped from a file.
    batch_size, context : int
        Sequences in a batch, and tokens in each.
    seed : int
        Of the places in the text that batches are drawn from.
    evaluate_tokens : int
        Validation tokens that `validation_loss` looks at, at least 2, from all over the split.

    Raises
    ------
    ValueError
        If there are too few tokens, or an argument is out of range.

    Examples
    --------
    >>> task = LanguageModelling(numpy.arange(90), numpy.arange(90, 99), batch_size=2, context=3, seed=7)
    >>> inputs, targets = task.batch(step=0)
    >>> inputs.shape, bool((targets == inputs + 1).all())
    ((2, 3), True)
    """

    def __init__(
        self,
        train_tokens: Any,
        validation_tokens: Any,
        batch_size: int,
        context: int,
        seed: int = 0,
        evaluate_tokens: int = 8192,
    ):
        if type(evaluate_tokens) is not int or evaluate_tokens < 2:
            raise ValueError(
                f"evaluate_tokens must be an integer of at least 2, a token and one before it, "
                f"not {evaluate_tokens!r}"
            )
        self.train_tokens = train_tokens
        self.validation_tokens = validation_tokens
        self.evaluate_tokens = evaluate_tokens
        self.batch = Batches(train_tokens, batch_size, context, seed)
        self.tokens_per_batch = batch_size * context

    def loss(self, model: Any, inputs: Any, targets: Any) -> Tensor:
        """Mean cross-entropy of the targets (batch, T), in nats per token."""
        return model.loss(inputs, targets)

    def count(self, inputs: Any, targets: Any) -> int:
        """How many tokens are predicted."""
        return targets.size

    def validation_loss(self, model: Any) -> float:
        """Mean loss in nats per token on validation tokens from all over the split."""
        counts = numpy.zeros(model.config.vocab_size, int)  # the characters do not matter here
        scores = [evaluate(model, t, counts) for t in _spread(self.validation_tokens, self.evaluate_tokens)]
        return sum(score.nats for score in scores) / sum(score.tokens for score in scores)


def _spread(tokens: Any, number: int, most_pieces: int = 8) -> list[Any]:
    """Return pieces of about so many tokens together, at even distances: a text is not alike all over."""
    if number >= len(tokens):
        return [tokens]
    pieces = min(most_pieces, number // 2)  # a piece has a token to guess and one before it
    length = number // pieces
    starts = numpy.linspace(0, len(tokens) - length, pieces).astype(int)
    return [tokens[start : start + length] for start in starts]


class DocumentTokens:
    """Encode documents one by one, each closed by a token, as `TokenFile.write` asks for it.

    Parameters
    ----------
    tokenizer : Tokenizer
    end_id : int
        Ends a document.
    sentences : bool
        Whether it ends each sentence too; the end of a document is then an empty sentence.

    Examples
    --------
    >>> from tinytransformer.text import ByteTokenizer
    >>> tokens = DocumentTokens(ByteTokenizer(), end_id=0, sentences=True)
    >>> [ids.tolist() for ids in tokens.encode_chunks(["A. B.", "C"])]
    [[65, 46, 0, 66, 46, 0, 0], [67, 0, 0]]
    """

    def __init__(self, tokenizer: Tokenizer, end_id: int, sentences: bool = False):
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.end_id = end_id
        self.sentences = sentences

    def encode_chunks(self, documents: Iterable[str]) -> Iterator[numpy.ndarray]:
        """Yield the ids of each document, 1-D; one without tokens is left out."""
        for document in documents:
            parts = SENTENCE_END.split(document) if self.sentences else [document]
            encoded = [ids for part in parts if len(ids := self.tokenizer.encode(part))]
            if encoded:
                ends = [[self.end_id]] * len(encoded)
                both = [ids for pair in zip(encoded, ends, strict=True) for ids in pair]
                yield numpy.concatenate([*both, ends[0]] if self.sentences else both).astype(numpy.int32)


def split_documents(documents: Sequence[Any], validation_fraction: float) -> tuple[list[Any], list[Any]]:
    """Keep some documents for validation: runs of neighbours, at even distances all over the text.

    Neighbours are often alike, as the methods of one class are: together they are on one side. The text is
    cut, where a document ends, into blocks of about a hundredth of its tokens.

    Parameters
    ----------
    documents : sequence of array or sequence of array
        Of each its tokens, or its sentences.
    validation_fraction : float
        Between 0 and 1.

    Returns
    -------
    train, validation : list

    Raises
    ------
    ValueError
        If a side has fewer than 2 documents, or the fraction is out of range.

    Examples
    --------
    >>> train, validation = split_documents([numpy.zeros(7)] * 100, 0.2)
    >>> len(train), len(validation)
    (80, 20)
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {validation_fraction}")
    sizes = [len(d) if isinstance(d, numpy.ndarray) else sum(map(len, d)) for d in documents]
    ends = numpy.cumsum(sizes) / max(sum(sizes), 1)  # where each document ends, of the whole
    block = numpy.ceil(ends * BLOCKS) - 1
    # block b is kept where b f reaches a new whole number: a part f of them, at even distances
    kept = numpy.floor((block + 1) * validation_fraction) > numpy.floor(block * validation_fraction)
    train = [document for document, k in zip(documents, kept, strict=True) if not k]
    validation = [document for document, k in zip(documents, kept, strict=True) if k]
    if min(len(train), len(validation)) < 2:
        raise ValueError(
            f"{len(train)} documents to train on and {len(validation)} to validate on are too few, 2 of each "
            "are needed: use a longer text or another validation_fraction"
        )
    return train, validation


def documents_in(tokens: Any, end_id: int) -> list[list[numpy.ndarray]]:
    """Cut what `DocumentTokens` encoded by sentences into documents, and those into sentences.

    Examples
    --------
    >>> documents_in(numpy.array([65, 46, 0, 66, 46, 0, 0, 67, 0, 0]), end_id=0)
    [[array([65, 46]), array([66, 46])], [array([67])]]
    """
    tokens = numpy.asarray(tokens)
    documents: list[list[numpy.ndarray]] = [[]]
    start = 0
    for end in numpy.flatnonzero(tokens == end_id).tolist():
        if end > start:
            documents[-1].append(tokens[start:end])
        elif documents[-1]:
            documents.append([])
        start = end + 1
    return documents if documents[-1] else documents[:-1]


class MaskedLanguageModelling:
    r"""Guess hidden tokens from both sides, and whether one sentence follows another: the objectives of BERT.

    .. math::
        L = \frac1B \sum_{b=1}^B \Big[-\log p(\mathrm{follows}_b)
        + \frac1r \sum_{n \in \mathrm{hidden}_b} -\log p(x_n)\Big]

    over the B pairs of a batch, with r the mean number of hidden tokens in a pair. It is about the sum of
    the means over pairs and over hidden tokens, and exactly the mean of the L of the parts of a batch, which
    threads need: a mean over the hidden tokens of a part would weigh them by how few they are.

    Pairs and masks are drawn anew in every epoch.

    Parameters
    ----------
    train_documents, validation_documents : sequence of sequence of integer array
        Of each document its sentences, as token ids.
    tokenizer : WordPieceTokenizer
        Knows the special tokens.
    batch_size : int
        Pairs in a batch.
    max_length : int
        Most tokens of a pair, special ones included.
    seed : int
        Of pairs, their order, and masks.
    evaluate_pairs : int
        Validation pairs that are looked at, at most.

    Raises
    ------
    ValueError
        If there are too few documents, or an argument is out of range.

    Examples
    --------
    >>> text = "To be or not to be. That is the question. Whether 'tis nobler. "
    >>> tokenizer = WordPieceTokenizer.train(text, 60)
    >>> documents = [[tokenizer.encode(s) for s in (text + text).split(".")] for _ in range(5)]
    >>> task = MaskedLanguageModelling(documents[:3], documents[3:], tokenizer, batch_size=2, max_length=30)
    >>> ids, attention_mask, token_type_ids, labels, pair_labels = task.batch(0)
    >>> ids.shape == labels.shape, pair_labels.shape
    (True, (2,))
    """

    def __init__(
        self,
        train_documents: Sequence[Sequence[Any]],
        validation_documents: Sequence[Sequence[Any]],
        tokenizer: WordPieceTokenizer,
        batch_size: int,
        max_length: int,
        seed: int = 0,
        evaluate_pairs: int = 512,
    ):
        if min(batch_size, evaluate_pairs) < 1:
            raise ValueError(
                f"batch_size and evaluate_pairs must be at least 1, got {batch_size}, {evaluate_pairs}"
            )
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length
        self.seed = seed
        self.train_documents, self.validation_documents = train_documents, validation_documents
        self._drawn: tuple[int, list[SentencePair]] = (-1, [])  # the pairs of an epoch, by its number
        first = self._pairs(0)
        rng = numpy.random.default_rng([seed])
        validation = self._paired(validation_documents, rng)
        if not first or not validation:
            raise ValueError("no document has two sentences, of which one could follow the other")
        self.batches_per_epoch = -(-len(first) // batch_size)
        tokens = sum(len(pair.ids) for pair in first)
        self.tokens_per_batch = round(tokens / len(first) * batch_size)
        self.hidden_per_pair = 0.15 * (tokens / len(first) - 3)  # r
        chosen = rng.permutation(len(validation))[:evaluate_pairs]
        ordered = sorted(
            (validation[i] for i in chosen), key=lambda pair: len(pair.ids)
        )  # with little padding
        self.validation = [self._batch(ordered[i : i + 32], rng) for i in range(0, len(ordered), 32)]

    def _paired(self, documents: Sequence[Sequence[Any]], rng: numpy.random.Generator) -> list[SentencePair]:
        tokenizer = self.tokenizer
        return sentence_pairs(documents, tokenizer.cls_id, tokenizer.sep_id, self.max_length, rng)

    def _pairs(self, epoch: int) -> list[SentencePair]:
        """Return the pairs of an epoch, in its order."""
        if self._drawn[0] != epoch:
            rng = numpy.random.default_rng([self.seed, epoch, 0])
            pairs = self._paired(self.train_documents, rng)
            self._drawn = (epoch, [pairs[i] for i in rng.permutation(len(pairs))])
        return self._drawn[1]

    def batch(self, step: int) -> Batch:
        """Return ids, attention mask, segments and labels (batch, T), and (batch,) whether b is random.

        Labels are -100 where no token is hidden.
        """
        epoch, place = divmod(step, self.batches_per_epoch)
        pairs = self._pairs(epoch)
        rows = numpy.arange(place * self.batch_size, (place + 1) * self.batch_size) % len(pairs)
        return self._batch([pairs[i] for i in rows], numpy.random.default_rng([self.seed, step, 1]))

    def _batch(self, pairs: list[SentencePair], rng: numpy.random.Generator) -> Batch:
        tokenizer = self.tokenizer
        ids, attention_mask = pad([pair.ids for pair in pairs], tokenizer.pad_id)  # (batch, T)
        segments, _ = pad([pair.token_type_ids for pair in pairs], 0)
        pair_labels = numpy.array([pair.label for pair in pairs])
        inputs, labels = mask_tokens(ids, tokenizer.special_ids, tokenizer.mask_id, tokenizer.vocab_size, rng)
        return inputs, attention_mask, segments, labels, pair_labels

    def loss(
        self,
        model: BERTForPretraining,
        ids: Any,
        attention_mask: Any,
        segments: Any,
        labels: Any,
        pair_labels: Any,
    ) -> Tensor:
        """Return L, in nats."""
        output = model.encoder(ids, attention_mask, segments)
        hidden = model.masked_lm.loss(output.hidden, model.encoder.token_embedding.weight, labels)  # mean
        number = int((labels >= 0).sum())
        pairs = cross_entropy(model.next_sentence(output.pooled), pair_labels)
        return hidden * (number / (self.hidden_per_pair * len(ids))) + pairs

    def count(self, ids: Any, *others: Any) -> int:
        """How many pairs there are."""
        return len(ids)

    def scores(self, model: BERTForPretraining) -> dict[str, float]:
        """Measure a model on the validation pairs, whose masks are always the same.

        Returns
        -------
        dict
            ``"masked_loss"`` in nats per hidden token, ``"masked_accuracy"``, ``"next_sentence_loss"`` in
            nats per pair, ``"next_sentence_accuracy"``.
        """
        sums = numpy.zeros(4)
        with evaluating(model):
            for ids, attention_mask, segments, labels, pair_labels in self.validation:
                output = model(ids, attention_mask, segments)
                for i, (z, y) in enumerate(
                    ((output.logits, labels), (output.next_sentence_logits, pair_labels))
                ):
                    sums[2 * i] += float(cross_entropy(z, y, reduction="sum"))
                    sums[2 * i + 1] += int((z.numpy().argmax(-1) == y).sum())
        names = ("masked_loss", "masked_accuracy", "next_sentence_loss", "next_sentence_accuracy")
        hidden = sum(int((batch[3] >= 0).sum()) for batch in self.validation)
        pairs = sum(len(batch[4]) for batch in self.validation)
        return dict(zip(names, (sums / [hidden, hidden, pairs, pairs]).tolist(), strict=True))

    def baseline(self) -> dict[str, float]:
        """Return the `scores` of the best guesses without context: the frequencies of these very targets."""
        hidden = numpy.concatenate([batch[3][batch[3] >= 0] for batch in self.validation])
        pairs = numpy.concatenate([batch[4] for batch in self.validation])
        names = ("masked_loss", "masked_accuracy", "next_sentence_loss", "next_sentence_accuracy")
        return dict(zip(names, (*without_context(hidden), *without_context(pairs)), strict=True))

    def validation_loss(self, model: BERTForPretraining) -> float:
        """Mean loss of the hidden tokens plus mean loss of the pairs, in nats."""
        scores = self.scores(model)
        return scores["masked_loss"] + scores["next_sentence_loss"]


class SpanCorruption:
    """Write the spans that are missing from a text: the objective of T5.

    Each sequence is a part of the text, of which 15 % is missing in spans of 3 tokens on average.

    Parameters
    ----------
    train_documents, validation_documents : sequence of integer array
        Each document's tokens, the end token included; they are read one after the other.
    end_id : int
        Closes inputs and targets.
    sentinels : sequence of int
        Ids that stand for the spans.
    batch_size, context : int
        Sequences in a batch, and tokens of the text in each.
    seed : int
        Of the places in the text and the spans.
    evaluate_sequences : int
        Validation sequences that are looked at, at most.

    Raises
    ------
    ValueError
        If there are too few tokens or sentinels, or an argument is out of range.

    Examples
    --------
    >>> documents = [numpy.arange(40) for _ in range(5)]
    >>> task = SpanCorruption(
    ...     documents[:3], documents[3:], 40, [41, 42, 43], batch_size=2, context=14
    ... )
    >>> inputs, labels = task.batch(0)
    >>> inputs.shape, labels.shape  # 2 of 14 tokens, in one span
    ((2, 14), (2, 5))
    """

    def __init__(
        self,
        train_documents: Sequence[Any],
        validation_documents: Sequence[Any],
        end_id: int,
        sentinels: Sequence[int],
        batch_size: int,
        context: int,
        seed: int = 0,
        evaluate_sequences: int = 256,
    ):
        self.end_id = end_id
        self.sentinels = sentinels
        self.seed = seed
        self.tokens_per_batch = batch_size * context
        self.train_documents, self.validation_documents = train_documents, validation_documents
        # the targets of `Batches` are one token later than its inputs: together they are a sequence
        self.texts = Batches(numpy.concatenate(train_documents), batch_size, context - 1, seed)
        held_out = numpy.concatenate(validation_documents)
        if len(held_out) < context:
            raise ValueError(
                f"the validation part has {len(held_out)} tokens, and a context of {context} needs more"
            )
        number = min(evaluate_sequences, len(held_out) // context)
        starts = numpy.linspace(0, len(held_out) - context, number).astype(int)
        rng = numpy.random.default_rng([seed])
        sequences = held_out[starts[:, None] + numpy.arange(context)]  # (number, context)
        self.validation = [self._batch(sequences[i : i + 32], rng) for i in range(0, number, 32)]

    def batch(self, step: int) -> Batch:
        """Return inputs and labels, (batch, S) and (batch, T)."""
        inputs, targets = self.texts(step)
        sequences = numpy.concatenate([inputs, targets[:, -1:]], axis=1)  # (batch, context)
        return self._batch(sequences, numpy.random.default_rng([self.seed, step, 1]))

    def _batch(self, sequences: Any, rng: numpy.random.Generator) -> Batch:
        # sequences of one length lose equally many tokens in equally many spans: nothing has to be padded
        corrupted = [corrupt_spans(sequence, self.sentinels, rng) for sequence in sequences]
        return tuple(
            numpy.array([[*ids, self.end_id] for ids in side]) for side in zip(*corrupted, strict=True)
        )

    def loss(self, model: T5, inputs: Any, labels: Any) -> Tensor:
        """Mean cross-entropy of the labels, in nats per token."""
        return model.loss(inputs, labels)

    def count(self, inputs: Any, labels: Any) -> int:
        """How many tokens are written."""
        return labels.size

    def scores(self, model: T5) -> dict[str, float]:
        """Measure a model on the validation sequences, whose spans are always the same.

        Returns
        -------
        dict
            In nats per token ``"loss"``, of all targets, and ``"span_loss"``, of those that were in the text
            and are neither sentinel nor end.
        """
        sums = numpy.zeros(2)
        with evaluating(model):
            for inputs, labels in self.validation:
                z = model(inputs, labels=labels)
                for i, y in enumerate((labels, self._in_spans(labels))):
                    sums[i] += float(cross_entropy(z, y, reduction="sum"))
        targets = self._targets()
        numbers = targets.size, (self._in_spans(targets) >= 0).sum()
        return dict(zip(("loss", "span_loss"), (sums / numbers).tolist(), strict=True))

    def baseline(self) -> dict[str, float]:
        """Return the `scores` of the best guesses without context: the frequencies of these very targets."""
        targets = self._targets()
        spans = targets[self._in_spans(targets) >= 0]
        return {"loss": without_context(targets)[0], "span_loss": without_context(spans)[0]}

    def _targets(self) -> numpy.ndarray:
        return numpy.concatenate([labels.reshape(-1) for _, labels in self.validation])

    def _in_spans(self, labels: Any) -> numpy.ndarray:
        return numpy.where(numpy.isin(labels, [*self.sentinels, self.end_id]), -100, labels)

    def validation_loss(self, model: T5) -> float:
        """Mean loss in nats per token of all validation targets."""
        return self.scores(model)["loss"]


def without_context(targets: Any) -> tuple[float, float]:
    """Return loss and accuracy of the best guess that is the same for all targets.

    The loss is their unigram entropy, and no model without context does better: this one has counted the
    very targets that it is asked for.

    Parameters
    ----------
    targets : integer array, 1-D

    Returns
    -------
    loss : float
        In nats for each target.
    accuracy : float
        Of the target that occurs most often.

    Examples
    --------
    >>> without_context(numpy.array([1, 1, 3, 5]))
    (1.0397207708399179, 0.5)
    """
    counts = numpy.unique(targets, return_counts=True)[1]
    p = counts / counts.sum()
    return float(-(p * numpy.log(p)).sum()), float(p.max())
