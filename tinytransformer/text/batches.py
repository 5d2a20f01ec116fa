"""From a text to batches: token files on disk, the split, training batches, evaluation windows.

A language model reads tokens ``x[0] … x[T-1]`` and predicts at each place the one that follows: the
targets are the inputs shifted by one.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytransformer.text.corpora import Fingerprint, TextError, chunks_of
from tinytransformer.text.tokenizers import Tokenizer, atomic_file, progress_bar


class TokenFile:
    """Token ids of a text in a file, mapped into memory: pages are read when they are used.

    The file holds the ids alone: little-endian uint16 where the vocabulary fits, else uint32. Beside it
    lies a JSON file of the same name with ``.json`` added, which holds ``vocab_size``, ``dtype``,
    ``length``, ``characters`` and ``fingerprint``. Make one with `write` or `open`.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    tokens : numpy.memmap, 1-D, read-only
        The token ids.
    vocab_size : int
        Vocabulary size of the tokenizer that wrote it.
    characters : int
        Characters of the text, for losses per character.
    fingerprint : str
        Fingerprint of the text, as `tinytransformer.text.fingerprint` gives it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from tinytransformer.text import ByteTokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "corpus.tokens")
    ...     file = TokenFile.write(path, ByteTokenizer(), ["atten", "tion"], progress=False)
    ...     len(file), file.tokens[:3].tolist(), file.fingerprint
    (9, [97, 116, 116], '9 characters, sha256 e0787d272a43')
    """

    def __init__(
        self, path: Path, tokens: np.memmap, vocab_size: int, characters: int, fingerprint: str
    ) -> None:
        self.path = path
        self.tokens = tokens
        self.vocab_size = vocab_size
        self.characters = characters
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r}, {len(self)} tokens, vocab_size={self.vocab_size})"

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        tokenizer: Tokenizer,
        chunks: str | Iterable[str],
        progress: bool = True,
    ) -> "TokenFile":
        """Encode a stream of text into a token file; neither text nor tokens are held in memory.

        The file appears under its name only once it is whole. A file that was there is replaced.

        Parameters
        ----------
        path : path
            The file to write.
        tokenizer : Tokenizer
            Encodes the text; the ids are those of the whole text, wherever the chunks are cut.
        chunks : iterable of str, or str
            The text, for example from `iterate_text`.
        progress : bool
            Show a progress bar.

        Returns
        -------
        TokenFile
            The file, opened.

        Raises
        ------
        TextError
            If the text is empty.
        """
        path = Path(path)
        dtype = _dtype(tokenizer.vocab_size)
        length = 0
        running = Fingerprint()

        with progress_bar(progress, None, f"writing {path.name}", "char") as advance:

            def watched() -> Iterator[str]:
                for chunk in chunks_of(chunks):
                    yield chunk
                    running.update(chunk)
                    advance(len(chunk))

            with atomic_file(path) as file:
                for ids in tokenizer.encode_chunks(watched()):
                    file.write(ids.astype(dtype).tobytes())
                    length += len(ids)
                if length == 0:
                    raise TextError(f"there is no text to write to {str(path)!r}")
                # no description may stand beside tokens it does not describe, not even if all ends here
                _description_path(path).unlink(missing_ok=True)
        description = {
            "vocab_size": tokenizer.vocab_size,
            "dtype": dtype.name,
            "length": length,
            "characters": running.characters,
            "fingerprint": str(running),
        }
        with atomic_file(_description_path(path)) as file:
            file.write(json.dumps(description, indent=1).encode("ascii"))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "TokenFile":
        """Open a token file that `write` made; nothing but its description is read.

        Raises
        ------
        TextError
            If the file or its description is missing, unreadable or malformed, or if they disagree.
        """
        path = Path(path)
        description = _read_description(path)
        vocab_size, length = description["vocab_size"], description["length"]
        dtype = _dtype(vocab_size)
        try:
            size = path.stat().st_size
            if size != length * dtype.itemsize:
                raise TextError(
                    f"the token file {str(path)!r} has {size} bytes where its description says "
                    f"{length} x {dtype.itemsize}; write it again"
                )
            tokens = np.memmap(path, dtype, mode="r", shape=(length,))
        except OSError as error:
            raise TextError(f"cannot read the token file {str(path)!r}: {error.strerror}") from None
        return cls(path, tokens, vocab_size, description["characters"], description["fingerprint"])


def _dtype(vocab_size: int) -> np.dtype:
    """Smallest of little-endian uint16 and uint32 that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _description_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_description(path: Path) -> dict[str, Any]:
    """Read the JSON file beside a token file and check each field."""
    beside = _description_path(path)
    try:
        description = json.loads(beside.read_bytes())
    except OSError as error:
        raise TextError(
            f"{str(path)!r} is not a token file: cannot read {str(beside)!r} ({error.strerror}); "
            f"write it again"
        ) from None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, nested too deep, a number too long
        raise TextError(f"{str(beside)!r} is not valid JSON; write the token file again") from None
    expected = {"vocab_size": int, "dtype": str, "length": int, "characters": int, "fingerprint": str}
    if (
        not isinstance(description, dict)
        or description.keys() != expected.keys()
        or any(type(description[name]) is not kind for name, kind in expected.items())
        or any(not 0 < description[name] < 1 << 63 for name, kind in expected.items() if kind is int)
        or description["vocab_size"] > 1 << 32
        or description["dtype"] != _dtype(description["vocab_size"]).name
    ):
        raise TextError(f"{str(beside)!r} does not describe a token file; write the token file again")
    return description


def split(
    tokens: NDArray[np.integer], validation_fraction: float = 0.1, context: int = 1
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Split tokens into the first part, to train on, and the rest, to validate on.

    Parameters
    ----------
    tokens : array of int, 1-D
        The tokens, in memory or mapped.
    validation_fraction : float
        Part of the tokens to validate on, between 0 and 1.
    context : int
        Tokens a model sees at once; each part must hold one sequence of it with its targets.

    Returns
    -------
    train, validation : arrays, 1-D
        Contiguous views without overlap; joined they are `tokens`.

    Raises
    ------
    ValueError
        If a part has fewer than ``context + 1`` tokens, or an argument is out of range.

    Examples
    --------
    >>> split(np.arange(10), validation_fraction=0.3)
    (array([0, 1, 2, 3, 4, 5, 6]), array([7, 8, 9]))
    """
    _require_tokens(tokens, "split")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {validation_fraction}")
    border = len(tokens) - round(len(tokens) * validation_fraction)
    parts = tokens[:border], tokens[border:]
    for name, part in zip(("training", "validation"), parts, strict=True):
        if len(part) < context + 1:
            raise ValueError(
                f"the {name} part has {len(part)} of {len(tokens)} tokens, but context {context} needs at "
                f"least {context + 1}: use a longer text, a shorter context or another validation_fraction"
            )
    return parts


class Batches:
    """Training batches: sequences of tokens from places drawn at random, as a pure function of the step.

    ``batches(step)`` draws its places with a generator seeded by ``(seed, step)``. So a run is resumed
    with its step number alone, and every step can be looked at again.

    Parameters
    ----------
    tokens : array of int, 1-D
        The tokens to train on, in memory or mapped.
    batch_size : int
        Sequences in a batch.
    context : int
        Tokens in a sequence.
    seed : int
        Seed, not negative.

    Raises
    ------
    ValueError
        If there are fewer than ``context + 1`` tokens, or an argument is out of range.

    Examples
    --------
    >>> batches = Batches(np.arange(100), batch_size=2, context=3, seed=7)
    >>> inputs, targets = batches(step=0)
    >>> inputs.shape, bool((targets == inputs + 1).all())
    ((2, 3), True)
    """

    def __init__(self, tokens: NDArray[np.integer], batch_size: int, context: int, seed: int) -> None:
        _require_tokens(tokens, "Batches")
        _require_positive(batch_size=batch_size, context=context)
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if len(tokens) < context + 1:
            raise ValueError(
                f"{len(tokens)} tokens are too few for context {context}, which needs at least "
                f"{context + 1}: use a longer text or a shorter context"
            )
        self.tokens = tokens
        self.batch_size = batch_size
        self.context = context
        self.seed = seed

    def __call__(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the inputs and targets of a step.

        Parameters
        ----------
        step : int
            Step number, not negative.

        Returns
        -------
        inputs, targets : arrays of int64, (batch, context)
            ``targets[:, t]`` is the token after ``inputs[:, t]``.

        Raises
        ------
        ValueError
            If `step` is negative.
        """
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        rng = np.random.default_rng([self.seed, step])
        offsets = rng.integers(len(self.tokens) - self.context, size=self.batch_size)  # (batch,)
        sequences = self.tokens[offsets[:, None] + np.arange(self.context + 1)]  # (batch, context + 1)
        return _inputs_and_targets(sequences)


def windows(
    tokens: NDArray[np.integer], batch_size: int, context: int, stride: int | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cut tokens into windows in which every token but the first is a target exactly once.

    Parameters
    ----------
    tokens : array of int, 1-D
        The tokens to evaluate on, in memory or mapped.
    batch_size : int
        Windows in a batch; the last batch may have fewer.
    context : int
        Tokens in a window; what remains at the end comes as a batch of one shorter window.
    stride : int, optional
        Tokens from the start of one window to the next, at most `context`, which is the default. Where
        windows overlap, a target that an earlier window had is -100: it does not count again.

    Yields
    ------
    inputs, targets : arrays of int64, (batch, time)
        ``targets[:, t]`` is the token after ``inputs[:, t]``, or -100.

    Raises
    ------
    ValueError
        If there are fewer than 2 tokens, or an argument is out of range.

    Examples
    --------
    >>> for inputs, targets in windows(np.arange(8), batch_size=2, context=3):
    ...     print(inputs.tolist(), targets.tolist())
    [[0, 1, 2], [3, 4, 5]] [[1, 2, 3], [4, 5, 6]]
    [[6]] [[7]]
    >>> for inputs, targets in windows(np.arange(6), batch_size=2, context=3, stride=2):
    ...     print(inputs.tolist(), targets.tolist())
    [[0, 1, 2], [2, 3, 4]] [[1, 2, 3], [-100, 4, 5]]
    """
    stride = context if stride is None else stride
    _require_tokens(tokens, "windows")
    _require_positive(batch_size=batch_size, context=context, stride=stride)
    if len(tokens) < 2:
        raise ValueError(f"windows needs at least 2 tokens, got {len(tokens)}")
    if stride > context:
        raise ValueError(f"stride {stride} would leave out tokens between windows of {context}")
    tokens = np.asarray(tokens)
    last = len(tokens) - 1  # targets in all
    whole = max(0, (last - context) // stride + 1)  # windows that are full
    within = np.arange(context + 1)
    for first in range(0, whole, batch_size):
        starts = stride * np.arange(first, min(first + batch_size, whole))  # (batch,)
        inputs, targets = _inputs_and_targets(tokens[starts[:, None] + within])
        targets[int(first == 0) :, : context - stride] = -100  # only the very first window has them new
        yield inputs, targets
    seen = (whole - 1) * stride + context if whole else 0  # targets so far
    if seen < last:
        inputs, targets = _inputs_and_targets(tokens[None, whole * stride :])
        targets[:, : seen - whole * stride] = -100
        yield inputs, targets


def _inputs_and_targets(sequences: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences (batch, time + 1) to inputs and targets (batch, time), copies that share no memory."""
    return sequences[:, :-1].astype(np.int64), sequences[:, 1:].astype(np.int64)


def _require_tokens(tokens: object, name: str) -> None:
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        got = (
            f"{tokens.dtype} of shape {tokens.shape}"
            if isinstance(tokens, np.ndarray)
            else type(tokens).__name__
        )
        raise ValueError(f"{name} takes a 1-D array of token ids, got {got}")


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
