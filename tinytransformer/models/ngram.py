"""The n-gram language model: the next token from the last few, by counting (document 2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NGram", "interpolation_weights"]

LARGEST_VOCABULARY = 2**31  # context id * vocab_size + token then fits int64 for any text in memory


class NGram:
    r"""Interpolated n-gram language model over token ids.

    A language model gives a probability to a whole sequence (document 2.1). The chain rule splits it
    into one prediction per token, and an n-gram model lets each see only the n-1 tokens before it:

    .. math:: P(x_1, \dots, x_T) = \prod_{t=1}^{T} P(x_t \mid x_1, \dots, x_{t-1})
              \approx \prod_{t=1}^{T} P(x_t \mid x_{t-n+1}, \dots, x_{t-1})

    Order k estimates this by counting, with the last k-1 tokens :math:`h_k` as its context; order 0
    knows only the size V of the vocabulary:

    .. math:: P_k(w \mid h_k) = \frac{\mathrm{count}(h_k w)}{\sum_{v} \mathrm{count}(h_k v)},
              \qquad P_0(w) = \frac{1}{V}

    Long contexts are precise but rare, short ones are vague but common, so all orders are mixed
    (Jelinek-Mercer interpolation). An order whose context was never seen has nothing to say; the
    weights of the others, :math:`S(h)`, are scaled up so that the probabilities still sum to 1:

    .. math:: P(w \mid h) = \frac{\sum_{k \in S(h)} \lambda_k P_k(w \mid h_k)}{\sum_{k \in S(h)} \lambda_k},
              \qquad S(h) = \{0\} \cup \{k : \textstyle\sum_v \mathrm{count}(h_k v) > 0\}

    The first tokens of a sequence are predicted from the shorter context they have. Only n-grams that
    occur are stored, so a vocabulary of 50,000 costs no more memory than one of 100.

    Parameters
    ----------
    order : int
        n, the longest n-gram counted: 1 is a unigram model, 3 a trigram. At least 1.
    vocab_size : int
        V. Token ids are 0 to V-1.

    Attributes
    ----------
    weights : ndarray of float64, (order + 1,)
        :math:`\lambda_0` (uniform), :math:`\lambda_1` (unigram), ..., :math:`\lambda_n`. They sum to 1.
        Set by `fit`.

    Raises
    ------
    ValueError
        If `order` is below 1 or `vocab_size` is not between 1 and 2**31.

    References
    ----------
    F. Jelinek and R. Mercer, "Interpolated estimation of Markov source parameters from sparse data", 1980.

    Examples
    --------
    >>> text = "to be or not to be, that is the question"
    >>> characters = sorted(set(text))
    >>> tokens = [characters.index(character) for character in text]
    >>> model = NGram(order=2, vocab_size=len(characters)).fit(tokens)
    >>> b, e = characters.index("b"), characters.index("e")
    >>> model.count([b, e]), model.count([b])
    (2, 2)
    >>> probabilities = model.probabilities([b])
    >>> print(characters[probabilities.argmax()], probabilities.sum().round(12))
    e 1.0
    >>> bool(model.perplexity(tokens) < len(characters))
    True
    """

    weights: NDArray[np.float64]

    def __init__(self, order: int, vocab_size: int) -> None:
        if order < 1:
            raise ValueError(f"NGram: order must be at least 1, got {order}")
        if not 1 <= vocab_size <= LARGEST_VOCABULARY:
            raise ValueError(f"NGram: vocab_size must be between 1 and 2**31, got {vocab_size}")
        self.order = order
        self.vocab_size = vocab_size
        self._tables: list[_ContextTable] = []  # [k] holds the contexts of length k; filled by fit

    def __repr__(self) -> str:
        return f"NGram(order={self.order}, vocab_size={self.vocab_size})"

    def fit(self, tokens: ArrayLike, held_out_fraction: float = 0.1) -> NGram:
        """Count the n-grams of `tokens` and choose the interpolation weights.

        The weights are those that best predict the last part of `tokens` from counts of the rest
        (`interpolation_weights`): on the text it was counted on, the longest context always looks best.
        Then all tokens are counted, and the weights are kept.

        Parameters
        ----------
        tokens : array_like of int, (N,)
            The training text, at least 2 tokens.
        held_out_fraction : float
            Share of the tokens, at the end, that the weights are chosen on. Above 0 and below 1.

        Returns
        -------
        NGram
            This model.

        Raises
        ------
        ValueError
            If there are fewer than 2 tokens, they are not a 1-D array of integers from 0 to V-1, or the
            fraction is not between 0 and 1.
        """
        tokens = self._checked(tokens)
        if len(tokens) < 2:
            raise ValueError(f"NGram.fit: needs at least 2 tokens, got {len(tokens)}")
        if not 0 < held_out_fraction < 1:
            raise ValueError(
                f"NGram.fit: held_out_fraction must be above 0 and below 1, got {held_out_fraction}"
            )
        kept = min(max(round(len(tokens) * (1 - held_out_fraction)), 1), len(tokens) - 1)
        self._tables = self._count_contexts(tokens[:kept])
        self.weights = interpolation_weights(*self._predictions(tokens[kept:]))
        self._tables = self._count_contexts(tokens)
        return self

    def count(self, ngram: ArrayLike) -> int:
        """Return how often an n-gram of 1 to `order` tokens occurs in the training tokens.

        Parameters
        ----------
        ngram : array_like of int, (k,)
            Token ids, oldest first.

        Raises
        ------
        ValueError
            If it has no token, more than `order` tokens, or an id out of range.
        RuntimeError
            If the model is not fitted.
        """
        self._check_fitted("count")
        ngram = self._checked(ngram)
        if not 1 <= len(ngram) <= self.order:
            raise ValueError(f"NGram.count: give 1 to {self.order} tokens (the order), got {len(ngram)}")
        *_, contexts = self._context_ids(ngram, self._tables[: len(ngram)])
        table = self._tables[len(ngram) - 1]
        found = _find(table.ngrams, contexts[-1:] * self.vocab_size + ngram[-1:])[0]
        return int(table.ngram_counts[found]) if found >= 0 else 0

    def probabilities(self, context: ArrayLike = ()) -> NDArray[np.float64]:
        r"""Return :math:`P(w \mid h)` for every token w of the vocabulary.

        Parameters
        ----------
        context : array_like of int, (T,)
            The tokens so far, oldest first. Only the last n-1 count; there may be none.

        Returns
        -------
        ndarray of float64, (V,)
            Positive, and sums to 1.

        Raises
        ------
        ValueError
            If the context is not a 1-D array of integers from 0 to V-1.
        RuntimeError
            If the model is not fitted.
        """
        self._check_fitted("probabilities")
        context = self._checked(context)
        context = context[max(len(context) - self.order + 1, 0) :]
        awaited = np.append(context, 0)  # its last place stands for the token to be predicted
        mixture = np.full(self.vocab_size, self.weights[0] / self.vocab_size)
        total_weight = self.weights[0]
        contexts_by_length = self._context_ids(awaited, self._tables)
        for weight, table, contexts in zip(self.weights[1:], self._tables, contexts_by_length, strict=True):
            if contexts[-1] < 0:
                break  # a context that was never seen has no seen extension either
            code = contexts[-1] * self.vocab_size
            first, last = np.searchsorted(table.ngrams, [code, code + self.vocab_size])
            following = table.ngrams[first:last] - code
            mixture[following] += weight * table.ngram_counts[first:last] / table.totals[contexts[-1]]
            total_weight += weight
        return mixture / total_weight

    def log_probabilities(self, tokens: ArrayLike) -> NDArray[np.float64]:
        r"""Return :math:`\log P(x_t \mid x_{t-n+1}, \dots, x_{t-1})` of each token of a sequence.

        Parameters
        ----------
        tokens : array_like of int, (N,)
            At least 1 token.

        Returns
        -------
        ndarray of float64, (N,)
            Natural logarithms, one per token. By the chain rule (document 2.1) their sum is the
            logarithm of the probability of the sequence.

        Raises
        ------
        ValueError
            If there is no token, or they are not a 1-D array of integers from 0 to V-1.
        RuntimeError
            If the model is not fitted.
        """
        self._check_fitted("log_probabilities")
        tokens = self._checked(tokens)
        if len(tokens) == 0:
            raise ValueError("NGram: there are no tokens to predict; give at least 1")
        predictions, seen = self._predictions(tokens)
        return np.log(self.weights @ predictions) - np.log(self.weights @ seen)

    def cross_entropy(self, tokens: ArrayLike) -> float:
        r"""Return :math:`-\frac{1}{N} \sum_t \log P(x_t \mid x_{t-n+1}, \dots, x_{t-1})` in nats per token.

        Parameters and errors are those of `log_probabilities`.
        """
        return -float(self.log_probabilities(tokens).mean())

    def perplexity(self, tokens: ArrayLike) -> float:
        """Return exp(cross-entropy): as unsure as a fair choice among so many tokens.

        Parameters and errors are those of `log_probabilities`.
        """
        return float(np.exp(self.cross_entropy(tokens)))

    def sample(self, length: int, rng: np.random.Generator, prompt: ArrayLike = ()) -> NDArray[np.int64]:
        """Draw tokens one after the other, each from `probabilities` of those before it.

        Parameters
        ----------
        length : int
            How many tokens to draw.
        rng : numpy.random.Generator
            Where the randomness comes from; the same state draws the same tokens.
        prompt : array_like of int, (T,)
            Tokens to go on from.

        Returns
        -------
        ndarray of int64, (length,)
            The new tokens, without the prompt.

        Raises
        ------
        ValueError
            If `length` is negative or the prompt is not a 1-D array of integers from 0 to V-1.
        RuntimeError
            If the model is not fitted.
        """
        self._check_fitted("sample")
        if length < 0:
            raise ValueError(f"NGram.sample: length must not be negative, got {length}")
        prompt = self._checked(prompt)
        tokens = np.concatenate([prompt, np.zeros(length, dtype=np.int64)])
        for t in range(len(prompt), len(tokens)):
            context = tokens[max(t - self.order + 1, 0) : t]
            tokens[t] = rng.choice(self.vocab_size, p=self.probabilities(context))
        return tokens[len(prompt) :]

    def _count_contexts(self, tokens: NDArray[np.int64]) -> list[_ContextTable]:
        tables = []
        contexts = np.zeros(len(tokens), dtype=np.int64)  # (N,) one empty context, with id 0
        codes, totals = np.zeros(1, dtype=np.int64), np.array([len(tokens)])
        for length in range(self.order):
            if length > 0:  # from here on (N - length,): the first tokens have too little before them
                oldest = tokens[: max(len(tokens) - length, 0)]
                codes, contexts, totals = np.unique(
                    contexts[1:] * self.vocab_size + oldest, return_inverse=True, return_counts=True
                )
                contexts = contexts.astype(np.int64)  # intp may have 32 bits
            ngrams, counts = np.unique(contexts * self.vocab_size + tokens[length:], return_counts=True)
            tables.append(_ContextTable(codes, totals, ngrams, counts))
        return tables

    def _context_ids(
        self, tokens: NDArray[np.int64], tables: list[_ContextTable]
    ) -> Iterator[NDArray[np.int64]]:
        """Yield (N,) ids of the context before each token, for lengths 0, 1, ...; -1 where never seen."""
        ids = np.zeros(len(tokens), dtype=np.int64)
        yield ids
        for length, table in enumerate(tables[1:], start=1):
            # The code of a context whose shorter part has id -1 is negative, so it is not found either.
            codes = ids[length:] * self.vocab_size + tokens[: max(len(tokens) - length, 0)]
            ids = np.full(len(tokens), -1, dtype=np.int64)
            ids[length:] = _find(table.contexts, codes)
            yield ids

    def _predictions(self, tokens: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return P_k(x_t | h_k), 0 where h_k was never seen, and where it was seen: (order + 1, N) each."""
        predictions = np.zeros((self.order + 1, len(tokens)))
        seen = np.ones((self.order + 1, len(tokens)), dtype=bool)
        predictions[0] = 1 / self.vocab_size
        contexts_by_length = self._context_ids(tokens, self._tables)
        for k, (table, contexts) in enumerate(zip(self._tables, contexts_by_length, strict=True), start=1):
            found = _find(table.ngrams, contexts * self.vocab_size + tokens)
            occurs = found >= 0
            predictions[k, occurs] = table.ngram_counts[found[occurs]] / table.totals[contexts[occurs]]
            seen[k] = contexts >= 0
        return predictions, seen

    def _checked(self, tokens: ArrayLike) -> NDArray[np.int64]:
        array = np.asarray(tokens)
        if array.ndim != 1:
            raise ValueError(f"NGram: tokens must be a 1-D array, got shape {array.shape}")
        if array.size == 0:
            return np.zeros(0, dtype=np.int64)
        if array.dtype.kind not in "iu":
            raise ValueError(f"NGram: tokens must be integers, got {array.dtype}; encode the text first")
        for token in (array.min(), array.max()):
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"NGram: token id {token} is out of range for vocab_size {self.vocab_size}")
        return array.astype(np.int64)

    def _check_fitted(self, method: str) -> None:
        if not self._tables:
            raise RuntimeError(f"NGram.{method}: the model is not fitted; call fit(tokens) first")


def interpolation_weights(predictions: ArrayLike, seen: ArrayLike) -> NDArray[np.float64]:
    r"""Return the mixture weights under which held-out tokens are most probable, by EM.

    Expectation: how much order k has to do with token t. An order that did not see the context gets
    what the weights alone would have given it, so that it neither gains nor loses against the others:

    .. math:: r_{kt} = \frac{\lambda_k P_k(x_t)}{\sum_{j \in S_t} \lambda_j P_j(x_t)}
              \;\; (k \in S_t), \qquad
              r_{kt} = \frac{\lambda_k}{\sum_{j \in S_t} \lambda_j} \;\; (k \notin S_t)

    Maximisation: the weights become the shares. One imaginary token per order keeps every weight, and so
    every probability, above zero:

    .. math:: \lambda_k = \frac{1 + \sum_t r_{kt}}{\sum_j (1 + \sum_t r_{jt})}

    Parameters
    ----------
    predictions : array_like of float, (orders, N)
        :math:`P_k(x_t)`, the probability that order k gave held-out token t; 0 where it has none to give.
    seen : array_like of bool, (orders, N)
        Whether k is in :math:`S_t`, the orders that have a prediction. Order 0 always has.

    Returns
    -------
    ndarray of float64, (orders,)
        Positive, and sums to 1.

    References
    ----------
    A. Dempster, N. Laird and D. Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977,
    sections 4.2 (the unseen orders are truncated data) and 4.3 (mixtures).

    Examples
    --------
    Order 1 gave the right token 0.9 where order 0 gave it 0.5:

    >>> interpolation_weights([[0.5, 0.5, 0.5], [0.9, 0.9, 0.9]], [[True] * 3, [True] * 3]).round(2)
    array([0.33, 0.67])
    """
    predictions = np.asarray(predictions, dtype=np.float64)
    seen = np.asarray(seen, dtype=bool)
    weights = np.full(len(predictions), 1 / len(predictions))
    change = np.inf
    while change > 1e-5:
        mixture = weights @ predictions  # (N,) still to be divided by the weight of the seen orders
        seen_weight = weights @ seen  # (N,)
        responsibilities = weights * (predictions @ (1 / mixture) + ~seen @ (1 / seen_weight))  # (orders,)
        shares = 1 + responsibilities
        shares /= shares.sum()
        change = np.abs(shares - weights).max()
        weights = shares
    return weights


class _ContextTable(NamedTuple):
    """The contexts of one length that were seen, and what followed them.

    The id of a context is its place in `contexts`. Its code there is made of the id of the context
    without its oldest token, times V, plus that oldest token: so codes stay below N V at any length.
    """

    contexts: NDArray[np.int64]  # (contexts,) sorted codes
    totals: NDArray[np.integer]  # (contexts,) how many tokens followed each
    ngrams: NDArray[np.int64]  # (n-grams,) sorted: context id times V, plus the token that followed
    ngram_counts: NDArray[np.integer]  # (n-grams,)


def _find(table: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each code in a sorted table, -1 where it is not there."""
    first = np.searchsorted(table, codes)
    last = np.searchsorted(table, codes, side="right")
    return np.where(first < last, first, -1).astype(np.int64)
