"""What a model is asked to do: from token ids to inputs and targets, for each objective of the field.

Functions of their arguments and a random generator. Called again with the same generator they draw anew, so
an epoch sees other masks, pairs and spans than the one before. A target of -100 does not count in a loss.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SentencePair", "corrupt_spans", "mask_tokens", "next_token", "pad", "sentence_pairs"]

IGNORED = -100


def next_token(ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Predict at each place the token that follows: the objective of GPT.

    Parameters
    ----------
    ids : integer array, shape (..., T + 1)

    Returns
    -------
    inputs, targets : arrays of int64, (..., T)

    Raises
    ------
    ValueError
        If there are fewer than 2 tokens.

    Notes
    -----
    Source: document section 5.2; Radford et al., Improving Language Understanding, 2018.

    Examples
    --------
    >>> inputs, targets = next_token([3, 1, 4, 1])
    >>> inputs.tolist(), targets.tolist()
    ([3, 1, 4], [1, 4, 1])
    """
    array = _integers("next_token", ids)
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ValueError(f"next_token needs at least 2 tokens, got shape {array.shape}")
    return array[..., :-1].copy(), array[..., 1:].copy()


def mask_tokens(
    ids: ArrayLike,
    special_ids: ArrayLike,
    mask_id: int,
    vocab_size: int,
    rng: np.random.Generator,
    fraction: float = 0.15,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hide some tokens, to be guessed from those on both sides: masked language modelling.

    Each token that is not special is chosen with probability `fraction`. Of the chosen, 80 % become
    ``[MASK]``, 10 % a random token that is not special, and 10 % stay as they are: a model that will meet no
    ``[MASK]`` later has to know every token it reads.

    Parameters
    ----------
    ids : integer array, any shape
        Token ids, padding and other special tokens included.
    special_ids : sequence of int
        Tokens that are never chosen and never drawn: ``[CLS]``, ``[SEP]``, ``[PAD]`` and the like.
    mask_id : int
        The id of ``[MASK]``.
    vocab_size : int
        V.
    rng : numpy.random.Generator
        Chooses and draws.
    fraction : float
        Above 0 and at most 1.

    Returns
    -------
    inputs, labels : arrays of int64, the shape of ids
        What the model reads; what was there where a token was chosen, and -100 elsewhere.

    Raises
    ------
    ValueError
        If an id is not in the vocabulary, all of the vocabulary is special, or the fraction is out of range.

    Notes
    -----
    Source: Devlin et al., BERT, 2019, section 3.1 and appendix A.1.

    Examples
    --------
    >>> ids, rng = [2, 11, 12, 13, 14, 15, 3], np.random.default_rng(0)
    >>> inputs, labels = mask_tokens(ids, [0, 1, 2, 3, 4], mask_id=4, vocab_size=20, rng=rng, fraction=0.5)
    >>> inputs.tolist(), labels.tolist()
    ([2, 15, 4, 4, 14, 15, 3], [-100, 11, 12, 13, -100, -100, -100])
    """
    array = _integers("mask_tokens", ids)
    if array.size and not 0 <= array.min() <= array.max() < vocab_size:
        raise ValueError(f"mask_tokens: ids from {array.min()} to {array.max()} for vocab_size {vocab_size}")
    if not 0 < fraction <= 1:
        raise ValueError(f"mask_tokens: fraction must be above 0 and at most 1, got {fraction}")
    ordinary = np.setdiff1d(np.arange(vocab_size), special_ids)
    if not ordinary.size:
        raise ValueError("mask_tokens: all tokens of the vocabulary are special, so there is none to guess")
    chosen = (rng.random(array.shape) < fraction) & ~np.isin(array, special_ids)
    drawn = ordinary[rng.integers(ordinary.size, size=array.shape)]
    lot = rng.random(array.shape)  # up to 0.8: masked; up to 0.9: drawn; above: as it is
    inputs = np.where(chosen & (lot < 0.9), drawn, array)
    inputs = np.where(chosen & (lot < 0.8), mask_id, inputs)
    return inputs, np.where(chosen, array, IGNORED)


class SentencePair(NamedTuple):
    """An example for BERT.

    Attributes
    ----------
    ids : array of int64, (T,)
        ``[CLS] a [SEP] b [SEP]``.
    token_type_ids : array of int64, (T,)
        0 up to the first ``[SEP]``, 1 after it.
    label : int
        0 if b follows a in the text, 1 if it is from another document.
    """

    ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    label: int


def sentence_pairs(
    documents: Sequence[Sequence[ArrayLike]],
    cls_id: int,
    sep_id: int,
    max_length: int,
    rng: np.random.Generator,
) -> list[SentencePair]:
    """Make pairs for next-sentence prediction: in half of them b follows a, in the others it is random.

    Neighbouring sentences of a document are collected until they fill `max_length` or the document ends, and
    cut in two at a random place. In half of the cases, by a fair coin, the second part makes way for
    sentences of another document, and is itself the start of the next collection. What is too long is cut,
    token by token, from a random end of the longer part.

    Parameters
    ----------
    documents : sequence of sequence of integer array
        For each document its sentences, as token ids without special tokens. Empty sentences are left out,
        and so is a single sentence at the end of a document: nothing follows it.
    cls_id, sep_id : int
        The ids of ``[CLS]`` and ``[SEP]``.
    max_length : int
        The most tokens of a pair, the three special ones included.
    rng : numpy.random.Generator
        Draws places, coins and random sentences.

    Returns
    -------
    list of SentencePair
        In the order of the documents; shuffle them.

    Raises
    ------
    ValueError
        If fewer than 2 documents have a sentence, or `max_length` is below 5.

    Notes
    -----
    Source: Devlin et al., BERT, 2019, section 3.1 and appendix A.2.

    Examples
    --------
    >>> documents = [[[11, 12], [13], [14, 15]], [[21], [22, 23]]]
    >>> for pair in sentence_pairs(documents, cls_id=2, sep_id=3, max_length=8, rng=np.random.default_rng(1)):
    ...     print(pair.ids, pair.token_type_ids, pair.label)
    [ 2 11 12  3 13 14 15  3] [0 0 0 0 1 1 1 1] 0
    [ 2 21  3 13 14 15  3] [0 0 0 1 1 1 1] 1
    """
    if max_length < 5:
        raise ValueError(
            f"sentence_pairs: max_length={max_length} has no room for 3 special tokens and a pair"
        )
    texts = [[_integers("sentence_pairs", s).tolist() for s in document] for document in documents]
    texts = [[sentence for sentence in text if sentence] for text in texts]
    texts = [text for text in texts if text]
    if len(texts) < 2:
        raise ValueError("sentence_pairs: random sentences come from another document; give at least 2")
    room = max_length - 3
    pairs = []
    for place, text in enumerate(texts):
        start = 0
        while start + 1 < len(text):
            end = start + 2  # a sentence for each part, at the least
            while end < len(text) and sum(map(len, text[start:end])) < room:
                end += 1
            border = int(rng.integers(start + 1, end))
            a, b = _joined(text[start:border]), _joined(text[border:end])
            label = int(rng.random() < 0.5)
            if label:
                other = texts[(place + rng.integers(1, len(texts))) % len(texts)]
                first = last = int(rng.integers(len(other)))
                while last < len(other) and sum(map(len, other[first:last])) < max(room - len(a), 1):
                    last += 1
                b = _joined(other[first:last])
            start = border if label else end
            while len(a) + len(b) > room:
                (a if len(a) > len(b) else b).pop(-int(rng.random() < 0.5))  # the last, or the first
            ids = np.array([cls_id, *a, sep_id, *b, sep_id], dtype=np.int64)
            segments = np.repeat(np.arange(2, dtype=np.int64), [len(a) + 2, len(b) + 1])
            pairs.append(SentencePair(ids, segments, label))
    return pairs


def corrupt_spans(
    ids: ArrayLike,
    sentinels: ArrayLike,
    rng: np.random.Generator,
    density: float = 0.15,
    mean_length: float = 3.0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take spans out of a text, to be written by a decoder: the objective of T5.

    Of T tokens round(density T) are taken out, in round(density T / mean_length) spans, at least one of
    each. Their places and lengths are random, and spans do not touch. In the inputs each span is replaced by
    a sentinel; the targets are each sentinel and its span in turn, and one more sentinel at the end.

    Parameters
    ----------
    ids : integer array, (T,)
        A text, without an end token.
    sentinels : sequence of int
        Ids that stand for spans, in order of use: one more than there are spans.
    rng : numpy.random.Generator
        Draws the spans.
    density : float
        Part of the tokens to take out, between 0 and 1.
    mean_length : float
        Tokens of a span on average, at least 1.

    Returns
    -------
    inputs, targets : arrays of int64, 1-D
        Every token of the text is in exactly one of them; append an end token to both.

    Raises
    ------
    ValueError
        If there are fewer than 2 tokens or too few sentinels, or an argument is out of range.

    Notes
    -----
    Source: Raffel et al., Exploring the Limits of Transfer Learning, 2020, sections 3.1.4 and 3.3.4. There a
    text always begins with a token that stays and ends in a span; here either may come at either end.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> inputs, targets = corrupt_spans(np.arange(10, 20), [99, 98, 97], rng, density=0.4, mean_length=2)
    >>> inputs.tolist(), targets.tolist()
    ([10, 11, 12, 99, 15, 16, 98, 19], [99, 13, 14, 98, 17, 18, 97])
    """
    array = _integers("corrupt_spans", ids)
    marks = _integers("corrupt_spans", sentinels)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"corrupt_spans needs a 1-D array of at least 2 tokens, got shape {array.shape}")
    if not 0 < density < 1 or mean_length < 1:
        raise ValueError(
            f"corrupt_spans: density must be between 0 and 1 and mean_length at least 1, got {density} and "
            f"{mean_length}"
        )
    taken = min(max(round(len(array) * density), 1), len(array) - 1)
    kept = len(array) - taken
    spans = min(max(round(taken / mean_length), 1), taken, kept + 1)
    if len(marks) < spans + 1:
        raise ValueError(f"corrupt_spans: {spans} spans need {spans + 1} sentinels, got {len(marks)}")
    lengths = _composition(taken, spans, rng)
    # between spans at least one token stays, before the first and after the last perhaps none
    gaps = _composition(kept + 2, spans + 1, rng)
    gaps[[0, -1]] -= 1
    inputs: list[int] = []
    targets: list[int] = []
    at = 0
    for mark, gap, length in zip(marks[:spans].tolist(), gaps[:-1].tolist(), lengths.tolist(), strict=True):
        inputs += [*array[at : at + gap].tolist(), mark]
        targets += [mark, *array[at + gap : at + gap + length].tolist()]
        at += gap + length
    inputs += array[at:].tolist()
    targets.append(int(marks[spans]))
    return np.array(inputs, dtype=np.int64), np.array(targets, dtype=np.int64)


def pad(sequences: Sequence[ArrayLike], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Make sequences of any length one array, padded at the end.

    Parameters
    ----------
    sequences : sequence of integer array, each (T_i,)
        Token ids; segments with a `pad_id` of 0; labels with one of -100.
    pad_id : int
        What stands where a sequence has ended.

    Returns
    -------
    ids : array of int64, (batch, T)
        T is the length of the longest.
    attention_mask : array of bool, (batch, T)
        True at tokens, False at padding.

    Raises
    ------
    ValueError
        If there is no sequence, or one is not 1-D.

    Examples
    --------
    >>> ids, attention_mask = pad([[3, 1, 4], [1]], pad_id=0)
    >>> ids.tolist(), attention_mask.tolist()
    ([[3, 1, 4], [1, 0, 0]], [[True, True, True], [True, False, False]])
    """
    arrays = [_integers("pad", sequence) for sequence in sequences]
    if not arrays or any(array.ndim != 1 for array in arrays):
        raise ValueError(f"pad takes 1-D sequences, got shapes {[array.shape for array in arrays]}")
    lengths = np.array([len(array) for array in arrays])
    attention_mask = np.arange(lengths.max()) < lengths[:, None]  # (batch, T)
    ids = np.full(attention_mask.shape, pad_id, dtype=np.int64)
    ids[attention_mask] = np.concatenate(arrays)
    return ids, attention_mask


def _composition(total: int, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw positive integers that add up to a total, each way of doing so equally likely."""
    borders = np.sort(rng.choice(np.arange(1, total, dtype=np.int64), size=parts - 1, replace=False))
    return np.diff(borders, prepend=0, append=total)


def _joined(sentences: list[list[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]


def _integers(name: str, ids: Any) -> NDArray[np.int64]:
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} takes integer token ids, got {array.dtype}; encode the text first")
    return array.astype(np.int64)
