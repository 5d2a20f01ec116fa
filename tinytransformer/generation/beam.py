"""Beam search: the most probable continuation, rather than the most probable next token."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from ..formulas import log_softmax
from .decoding import DecodingState, LanguageModel, as_prompts, as_stop_tokens, with_progress
from .sampling import check_count, check_finite, largest

__all__ = ["Hypothesis", "beam_search"]


class Hypothesis(NamedTuple):
    """A finished continuation and its score.

    Attributes
    ----------
    tokens : ndarray of int64, shape (n,)
        The new tokens, without the prompt and with the stop token, if it ends in one.
    score : float
        The sum of their log-probabilities in nats, divided by n ** length_penalty.
    """

    tokens: NDArray[numpy.int64]
    score: float


def beam_search(
    model: LanguageModel,
    prompts: Any,
    max_new_tokens: int,
    *,
    num_beams: int = 4,
    length_penalty: float = 1.0,
    stop_tokens: int | Iterable[int] = (),
    use_cache: bool = True,
    progress: bool = False,
) -> Any:
    r"""Search for the continuation of each prompt with the highest score.

    .. math:: \mathrm{score}(y_1, \dots, y_n) =
              \frac{1}{n^\alpha} \sum_{i=1}^{n} \log P(y_i \mid x, y_1, \dots, y_{i-1})

    Each step extends each of the running beams by every token of the vocabulary. Of these candidates,
    ranked by the sum of log-probabilities, the ``num_beams`` best are looked at: those that end in a stop
    token, or are ``max_new_tokens`` long, are finished and compete by score. The ``num_beams`` best that
    are not finished run on.

    Parameters
    ----------
    model : LanguageModel
        For example a `tinytransformer.models.GPT`.
    prompts : integer array, shape (T,), or sequence of such of any length
        Token ids.
    max_new_tokens : int
        The most tokens to add to each prompt.
    num_beams : int
        How many continuations run side by side. 1 is greedy decoding: it ends at its first stop token.
    length_penalty : float
        :math:`\alpha`. 0 compares sums, which favours short continuations; 1 compares means; more than
        1 favours long ones.
    stop_tokens : int or iterable of int
        Tokens that end a continuation.
    use_cache : bool
        Compute each token's keys and values once and keep them. The result is the same without.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Hypothesis or list of Hypothesis
        The best for each prompt: ``tokens`` and ``score``. One for a single prompt, a list for a sequence.

    Raises
    ------
    ValueError
        As in `generate`, or if ``num_beams`` is below 1 or ``length_penalty`` is not finite.

    Notes
    -----
    The search for a prompt ends as soon as no running beam can win any more. A log-probability is at most
    0, so a beam whose sum is s after n tokens can at best keep that sum until it finishes, with between
    n + 1 and N = ``max_new_tokens`` tokens: its score is then at most the larger of
    :math:`s / (n + 1)^\alpha` and :math:`s / N^\alpha`. The bound is exact for every :math:`\alpha`; with
    one of 0 or more the second term is the larger. A hypothesis must be better to replace an earlier one,
    and of equal candidates the one from the better beam, then the one with the lower token id, ranks higher.

    Prompts of different length, and those that outgrow the context, are treated as in `generate`.
    The ``transformers`` library finds the same continuations with ``early_stopping="never"``; its default
    may stop at a lower score.

    Source: Sutskever et al., Sequence to Sequence Learning with Neural Networks, 2014; the length
    penalty after Wu et al., Google's Neural Machine Translation System, 2016, as a plain power of n.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3))
    >>> best = beam_search(model, [3, 1, 4], max_new_tokens=5, num_beams=3, stop_tokens=0)
    >>> best.score < 0, 1 <= len(best.tokens) <= 5
    (True, True)
    """
    arrays, single = as_prompts(prompts, model.config.vocab_size)
    check_count("max_new_tokens", max_new_tokens, least=0)
    check_count("num_beams", num_beams, least=1)
    if not math.isfinite(length_penalty):
        raise ValueError(f"generation: length_penalty must be a finite number, not {length_penalty!r}")
    stop = as_stop_tokens(stop_tokens, model.config.vocab_size)
    nothing = Hypothesis(numpy.zeros(0, dtype=numpy.int64), -math.inf if max_new_tokens else 0.0)
    best = [nothing for _ in arrays]

    state = DecodingState(model, arrays, use_cache)
    T = state.tokens.shape[1]
    owner = numpy.arange(len(arrays))  # (rows,) row i of the state is a beam of prompt owner[i]
    sums = numpy.zeros(len(arrays))  # (rows,) log-probability of its new tokens
    for n in with_progress(range(1, max_new_tokens + 1), max_new_tokens, progress):
        if not len(owner):
            break  # every search has ended
        logits = state.logits().astype(numpy.float64)  # (rows, V)
        check_finite(logits.max(axis=-1))
        V = logits.shape[1]
        candidates = sums[:, None] + log_softmax(logits, axis=-1)  # (rows, V)
        survivors = []  # of each prompt that goes on: rows, next tokens, sums
        for prompt in numpy.unique(owner):
            beams = numpy.flatnonzero(owner == prompt)
            flat = candidates[beams].ravel()  # (beams * V,) candidate i extends beam i // V by token i % V
            # At most len(stop) candidates of each beam end, so num_beams that run on are among these.
            ranked = largest(flat, num_beams * (1 + len(stop)))
            ends = numpy.isin(ranked % V, stop) | (n == max_new_tokens)
            finished = ranked[:num_beams][ends[:num_beams]]
            running = ranked[~ends][:num_beams]
            if len(finished) and flat[finished[0]] / n**length_penalty > best[prompt].score:
                beam, token = divmod(finished[0], V)
                new_tokens = numpy.append(state.tokens[beams[beam], T:], token)
                best[prompt] = Hypothesis(new_tokens, float(flat[finished[0]] / n**length_penalty))
            if len(running) and not (num_beams == 1 and len(finished)):
                s = flat[running[0]]
                bound = max(s / (n + 1) ** length_penalty, s / max_new_tokens**length_penalty)
                if bound > best[prompt].score:
                    survivors.append((beams[running // V], running % V, flat[running]))
        if survivors:
            rows, tokens, sums = map(numpy.concatenate, zip(*survivors, strict=True))
            state.extend(rows, tokens)
            owner = owner[rows]
        else:
            owner = owner[:0]
    return best[0] if single else best
