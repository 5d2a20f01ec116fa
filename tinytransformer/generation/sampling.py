"""From the scores of the next token to the token."""

from __future__ import annotations

import math
from typing import Any

import numpy
from numpy.typing import NDArray

from ..autograd import raw
from ..backend import to_numpy
from ..formulas import softmax

__all__ = ["next_token_probabilities"]

FEW = 256  # tokens that mostly hold the nucleus: to sort a large vocabulary takes as long as a small model


def next_token_probabilities(
    logits: Any, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> NDArray[numpy.float64]:
    r"""Probabilities from which the next token is drawn.

    .. math:: P(i) = \frac{e^{z_i / \tau}}{\sum_{j \in S} e^{z_j / \tau}} \;\; (i \in S), \qquad
              P(i) = 0 \;\; (i \notin S)

    The temperature :math:`\tau` comes first, then S is narrowed, first to the ``top_k`` most probable
    tokens, then to the fewest of these that together hold ``top_p`` of their probability. Among equally
    probable tokens the lower id ranks higher, so S has exactly k tokens even when there are ties.

    Parameters
    ----------
    logits : Tensor or array, shape (..., V)
        Scores z of the next token; -inf for a token that must not come.
    temperature : float
        Below 1 sharpens, above 1 flattens. 0 gives all probability to the token of the highest score.
    top_k : int, optional
        How many tokens to keep, at least 1; all of them by default.
    top_p : float, optional
        Probability to keep, above 0 and at most 1; all of it by default. One token always stays.

    Returns
    -------
    ndarray of float64, shape (..., V)
        Each row sums to 1.

    Raises
    ------
    ValueError
        If an argument is outside its range, or a row of logits holds NaN or +inf, or nothing above -inf.

    Notes
    -----
    Source: top-k, Fan et al., Hierarchical Neural Story Generation, 2018; top-p (nucleus sampling),
    Holtzman et al., The Curious Case of Neural Text Degeneration, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.log([0.1, 0.5, 0.2, 0.2])
    >>> next_token_probabilities(z, top_k=3).round(3)
    array([0.   , 0.556, 0.222, 0.222])
    >>> next_token_probabilities(z, top_p=0.6).round(3)
    array([0.   , 0.714, 0.286, 0.   ])
    >>> next_token_probabilities(z, temperature=0.5).round(3)
    array([0.029, 0.735, 0.118, 0.118])
    """
    check_sampling(temperature, top_k, top_p)
    z = to_numpy(raw(logits)).astype(numpy.float64)
    highest = z.max(axis=-1, keepdims=True)
    check_finite(highest)
    if temperature == 0:
        top_k, temperature = 1, 1
    with numpy.errstate(over="ignore"):  # a difference of scores over a tiny temperature: -inf is right
        p = softmax((z - highest) / temperature, axis=-1)
    if top_k is None and top_p is None:
        return p
    narrowed = numpy.zeros_like(p)
    for row in numpy.ndindex(p.shape[:-1]):
        S = _nucleus(z[row], p[row], top_k or z.shape[-1], 1 if top_p is None else top_p)
        narrowed[row][S] = p[row][S] / p[row][S].sum()
    return narrowed


def _nucleus(z: Any, p: Any, k: int, mass: float) -> NDArray[numpy.integer]:
    """Return the fewest of the k highest scores that hold this part of their probability: falling."""
    if mass == 1:
        return largest(z, k)
    total = p.sum() if k >= len(p) else numpy.partition(p, -k)[-k:].sum()
    S = largest(z, min(k, FEW))
    if p[S].sum() < mass * total:
        S = largest(z, k)
    return S[: numpy.searchsorted(p[S].cumsum(), mass * total) + 1]


def next_tokens(
    logits: NDArray[Any],
    uniform: NDArray[numpy.float64],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> NDArray[numpy.int64]:
    """Choose a token for each row of logits (batch, V), with a number from [0, 1) for each."""
    if temperature > 0:
        return sample(next_token_probabilities(logits, temperature, top_k, top_p), uniform)
    tokens = logits.argmax(axis=-1)  # of equals the first; a NaN, if there is one
    check_finite(numpy.take_along_axis(logits, tokens[:, None], axis=-1))
    return tokens


def sample(probabilities: NDArray[numpy.float64], uniform: NDArray[numpy.float64]) -> NDArray[numpy.int64]:
    """Draw a token from each row (batch, V) with a number from [0, 1) for each, by inverting the sum."""
    cumulative = probabilities.cumsum(axis=-1)
    threshold = uniform[:, None] * cumulative[:, -1:]  # the last sum may differ from 1 by rounding
    # A token of probability 0 adds nothing to the sum, so the sum never passes the threshold at it.
    return (cumulative <= threshold).sum(axis=-1, dtype=numpy.int64)


def largest(values: NDArray[numpy.float64], k: int) -> NDArray[numpy.integer]:
    """Places of the k largest of (n,) values, or of all if there are fewer: falling, ties by place."""
    candidates = numpy.arange(len(values))
    if k < len(values):  # sort only those that can be among the k
        candidates = numpy.flatnonzero(values >= numpy.partition(values, -k)[-k])
    return candidates[numpy.argsort(-values[candidates], kind="stable")[:k]]


def check_finite(highest: NDArray[numpy.float64]) -> None:
    """Refuse logits without a finite maximum: no probability can be made of them."""
    if not numpy.isfinite(highest).all():
        raise ValueError(
            f"generation: the largest logit of a row is {highest[~numpy.isfinite(highest)][0]}; "
            "it must be finite. Look for NaN or infinite parameters in the model"
        )


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse what `next_token_probabilities` cannot use."""
    if not 0 <= temperature < math.inf:
        raise ValueError(
            f"generation: temperature must be 0 (greedy) or a positive number, not {temperature!r}"
        )
    if top_k is not None:
        check_count("top_k", top_k, least=1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generation: top_p must be above 0 and at most 1, not {top_p!r}")


def check_count(name: str, value: int, least: int) -> None:
    """Refuse what is not an integer, or too small."""
    if not isinstance(value, (int, numpy.integer)) or value < least:
        raise ValueError(f"generation: {name} must be an integer of at least {least}, not {value!r}")
