"""Token by token: a model's logits, the choice of a token, and once more with that token."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

from ..autograd import no_grad, raw
from ..backend import is_array, to_numpy
from .sampling import check_count, check_sampling, next_tokens

__all__ = ["LanguageModel", "generate", "stream"]

READ_AT_ONCE = 256  # tokens: the logits of a long prompt would not fit the memory


class LanguageModel(Protocol):
    """What generation needs of a model.

    A call ``model(input_ids, attention_mask, positions, cache)`` takes NumPy arrays of integers:
    ``input_ids`` (batch, T) and, where sequences of different length share the batch, ``attention_mask``
    (batch, T_k), 0 at the padding on the left, and ``positions`` (batch, T); None otherwise. It returns
    logits (batch, T, V), a Tensor or an array. Where it takes ``last_only`` too, that is True, and the logits
    of the last position, (batch, 1, V), are enough.

    ``new_cache()`` returns a list of what the model keeps between calls. Each item has ``select(rows)``,
    which makes row i what row ``rows[i]`` was. A call with a cache gets only the tokens that no earlier
    call with that cache has had; ``attention_mask`` covers the earlier ones too.

    ``config.vocab_size`` is V, and ``config.context_length`` the most tokens of one call with those in its
    cache, ``math.inf`` where there is no limit. ``modules()`` yields the model and its parts, whose
    ``training`` is False during the calls.
    """

    config: Any

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, positions: Any = None, cache: Any = None
    ) -> Any:
        """Return logits (batch, T, V)."""

    def new_cache(self) -> Sequence[Any]:
        """Return an empty cache."""

    def modules(self) -> Iterable[Any]:
        """Yield the model and its parts."""


def generate(
    model: LanguageModel,
    prompts: Any,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: int | Iterable[int] = (),
    rng: numpy.random.Generator | None = None,
    use_cache: bool = True,
    progress: bool = False,
) -> Any:
    r"""Continue prompts, each new token drawn given all before it.

    .. math:: x_{t+1} \sim P(\,\cdot \mid x_1, \dots, x_t)

    Parameters
    ----------
    model : LanguageModel
        For example a `tinytransformer.models.GPT`.
    prompts : integer array, shape (T,), or sequence of such of any length
        Token ids.
    max_new_tokens : int
        The most tokens to add to each prompt.
    temperature, top_k, top_p
        See `next_token_probabilities`. Temperature 0 is greedy: always the most probable token, and of
        equals the one with the lowest id.
    stop_tokens : int or iterable of int
        A sequence ends with the first of these it produces; the other prompts go on.
    rng : numpy.random.Generator, optional
        Where the randomness comes from; the same state gives the same tokens. A fresh one by default.
    use_cache : bool
        Compute each token's keys and values once and keep them. The tokens are the same without.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray of int64, shape (n,), or list of them
        The new tokens of each prompt, without the prompt and with the stop token, if one was met. An
        array for a single prompt, a list for a sequence of prompts.

    Raises
    ------
    ValueError
        If there is no prompt, a prompt is empty or not a 1-D array of integers, an id is outside the
        vocabulary, an argument is outside its range, or the model returns NaN.

    Notes
    -----
    Prompts of different length are padded on the left, and every prompt starts at position 0: each gets
    the logits that it gets alone. Each step draws one random number for each prompt, stopped or not, so
    where one stops does not change what another becomes.

    Once the longest sequence has outgrown the model's context, the model sees the last
    ``context_length`` tokens of each. All positions then shift with every token, which no cache survives:
    from there on each step runs over the whole window, with and without ``use_cache``.

    The model runs in evaluation mode and records no graph; each of its parts then returns to its mode.

    Examples
    --------
    >>> import numpy as np
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3))
    >>> len(generate(model, [3, 1, 4], max_new_tokens=5, temperature=0.8, rng=np.random.default_rng(0)))
    5
    >>> [len(tokens) for tokens in generate(model, [[3], [1, 4]], 5, temperature=0)]
    [5, 5]
    """
    arrays, single = as_prompts(prompts, model.config.vocab_size)
    steps: Iterable[tuple[NDArray[Any], NDArray[numpy.int64]]] = _steps(
        model, arrays, max_new_tokens, temperature, top_k, top_p, stop_tokens, rng, use_cache
    )
    new_tokens: list[list[int]] = [[] for _ in arrays]
    for rows, tokens in with_progress(steps, max_new_tokens, progress):
        for row, token in zip(rows, tokens, strict=True):
            new_tokens[row].append(int(token))
    results = [numpy.array(tokens, dtype=numpy.int64) for tokens in new_tokens]
    return results[0] if single else results


def stream(
    model: LanguageModel,
    prompt: Any,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: int | Iterable[int] = (),
    rng: numpy.random.Generator | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield the tokens that `generate` returns, each as soon as it is there.

    The model is in evaluation mode only while it runs, not while the caller has a token in hand: one may
    stop at any token, or train in between.

    Parameters
    ----------
    prompt : integer array, shape (T,)
        A single prompt.

    The others are those of `generate`.

    Yields
    ------
    int
        A new token; last the stop token, if one was met.

    Raises
    ------
    ValueError
        As in `generate`, when called.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3))
    >>> tokens = stream(model, [3, 1, 4], max_new_tokens=5, temperature=0)
    >>> [next(tokens), *tokens] == generate(model, [3, 1, 4], 5, temperature=0).tolist()
    True
    """
    arrays, single = as_prompts(prompt, model.config.vocab_size)
    if not single:
        raise ValueError("generation: stream takes one prompt, a 1-D array; generate takes several")
    steps = _steps(model, arrays, max_new_tokens, temperature, top_k, top_p, stop_tokens, rng, use_cache)
    return (int(tokens[0]) for _, tokens in steps)


def _steps(
    model: LanguageModel,
    prompts: list[NDArray[numpy.int64]],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stop_tokens: int | Iterable[int],
    rng: numpy.random.Generator | None,
    use_cache: bool,
) -> Iterator[tuple[NDArray[Any], NDArray[numpy.int64]]]:
    """Check the arguments; then yield, at each step, the prompts that still run and their next tokens."""
    check_count("max_new_tokens", max_new_tokens, least=0)
    check_sampling(temperature, top_k, top_p)
    stop = as_stop_tokens(stop_tokens, model.config.vocab_size)
    generator = numpy.random.default_rng(rng)

    def steps() -> Iterator[tuple[NDArray[Any], NDArray[numpy.int64]]]:
        state = DecodingState(model, prompts, use_cache)
        rows = numpy.arange(len(prompts))  # row i of the state continues prompt rows[i]
        for _ in range(max_new_tokens):
            uniform = generator.random(len(prompts))[rows]
            tokens = next_tokens(state.logits(), uniform, temperature, top_k, top_p)  # (rows,)
            yield rows, tokens
            running = numpy.flatnonzero(~numpy.isin(tokens, stop))
            if not len(running):
                return
            rows = rows[running]
            state.extend(running, tokens[running])

    return steps()


class DecodingState:
    """Sequences that grow on the right, and what the model needs to score their next tokens.

    Parameters
    ----------
    model : LanguageModel
    prompts : list of ndarray of int64, each of shape (T_i,)
        Row i begins with prompt i, padded on the left to the length of the longest.
    use_cache : bool
        Keep keys and values of tokens that the model has seen, while all of them fit the context.

    Attributes
    ----------
    tokens : ndarray of int64, shape (rows, T)
    padding : ndarray of int64, shape (rows,)
        How many tokens at the left of each row are padding.
    """

    def __init__(self, model: LanguageModel, prompts: list[NDArray[numpy.int64]], use_cache: bool):
        self.model = model
        self.modules = list(model.modules())
        taken = inspect.signature(getattr(model, "forward", model)).parameters
        self.options = {"last_only": True} if "last_only" in taken else {}
        self.cache = model.new_cache() if use_cache else None
        self.cached = 0  # columns of tokens that the cache holds
        T = max(len(prompt) for prompt in prompts)
        self.padding = numpy.array([T - len(prompt) for prompt in prompts], dtype=numpy.int64)
        self.tokens = numpy.zeros((len(prompts), T), dtype=numpy.int64)
        for row, prompt in zip(self.tokens, prompts, strict=True):
            row[T - len(prompt) :] = prompt

    def logits(self) -> NDArray[Any]:
        """Scores (rows, V) of the token after each row. Call it once after each `extend`."""
        T = self.tokens.shape[1]
        start = max(T - self.model.config.context_length, 0)  # the window is tokens[:, start:]
        if start > 0:
            self.cache, self.cached = None, 0
        while self.cache is not None and T - self.cached > READ_AT_ONCE:
            self._read(start, self.cached + READ_AT_ONCE)
        return to_numpy(raw(self._read(start, T))[:, -1])  # (rows, T or 1, V) -> (rows, V)

    def _read(self, start: int, stop: int) -> Any:
        """Let the model score tokens[:, start:stop], of which it gets only what it has not in its cache."""
        first = max(start, self.cached)
        attention_mask = positions = None
        if (self.padding > start).any():
            origin = numpy.maximum(self.padding, start)[:, None]  # (rows, 1) the column of position 0
            attention_mask = numpy.arange(start, stop) >= origin  # (rows, stop - start)
            positions = numpy.maximum(numpy.arange(first, stop) - origin, 0)  # (rows, stop - first)
        try:
            with inference(self.modules):
                tokens = self.tokens[:, first:stop]
                logits = self.model(tokens, attention_mask, positions, self.cache, **self.options)
        except BaseException:  # Ctrl-C among others: some layers may have cached more than others
            if self.cache is not None:
                self.cache, self.cached = self.model.new_cache(), 0
            raise
        if self.cache is not None:
            self.cached = stop
        return logits

    def extend(self, rows: NDArray[Any], tokens: NDArray[numpy.int64]) -> None:
        """Let row i become what row ``rows[i]`` was, followed by ``tokens[i]``."""
        if self.cache is not None and not numpy.array_equal(rows, numpy.arange(len(self.tokens))):
            for layer in self.cache:
                layer.select(rows)
        self.tokens = numpy.concatenate([self.tokens[rows], tokens[:, None]], axis=1)
        self.padding = self.padding[rows]

    def append(self, tokens: NDArray[numpy.int64]) -> None:
        """Let each row go on with the same tokens (T,)."""
        more = numpy.broadcast_to(tokens, (len(self.tokens), len(tokens)))
        self.tokens = numpy.concatenate([self.tokens, more], axis=1)


@contextmanager
def inference(modules: list[Any]) -> Iterator[None]:
    """Run a block in evaluation mode, without a graph; then give each module its own mode back."""
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def as_prompts(prompts: Any, vocab_size: int) -> tuple[list[NDArray[numpy.int64]], bool]:
    """Return the prompts as a list of checked arrays (T,), and whether there was a single one."""
    prompts = to_numpy(raw(prompts)) if is_array(raw(prompts)) else prompts
    if not isinstance(prompts, (list, tuple, numpy.ndarray)) or getattr(prompts, "ndim", 1) == 0:
        raise ValueError(
            f"generation: prompts must be a 1-D array of token ids or a list of such, not {prompts!r}; "
            "encode text with the model's tokenizer"
        )
    if not len(prompts):
        raise ValueError("generation: the prompt is empty; give at least one token")
    single = not isinstance(prompts[0], (list, tuple)) and getattr(prompts[0], "ndim", 0) == 0
    arrays = [_as_prompt(prompt, i, vocab_size) for i, prompt in enumerate([prompts] if single else prompts)]
    return arrays, single


def _as_prompt(prompt: Any, i: int, vocab_size: int) -> NDArray[numpy.int64]:
    array = numpy.asarray(to_numpy(raw(prompt)))
    if array.size == 0:
        raise ValueError(f"generation: prompt {i} is empty; give at least one token")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"generation: prompt {i} must be a 1-D array of integers, not {array.dtype} "
            f"of shape {array.shape}; encode text with the model's tokenizer"
        )
    for token in (array.min(), array.max()):
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"generation: prompt {i} holds the id {token}, outside the vocabulary of {vocab_size}; "
                "use the tokenizer that the model was trained with"
            )
    return array.astype(numpy.int64)


def as_stop_tokens(stop_tokens: int | Iterable[int], vocab_size: int) -> list[int]:
    """Return the distinct stop tokens in order."""
    stop = sorted({stop_tokens} if isinstance(stop_tokens, (int, numpy.integer)) else set(stop_tokens))
    for token in stop:
        if not 0 <= token < vocab_size:
            raise ValueError(f"generation: stop token {token} is outside the vocabulary of {vocab_size}")
    return [int(token) for token in stop]


def with_progress(steps: Iterable[Any], total: int, show: bool) -> Iterable[Any]:
    """Show a bar of steps if asked to."""
    if not show:
        return steps
    from tqdm import tqdm

    return tqdm(steps, total=total, desc="generating", unit="token")
