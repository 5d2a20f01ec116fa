"""Tokenizers: text to token ids and back, by characters, by bytes, or by byte-level BPE.

All three share one interface (`Tokenizer`), and any Unicode text survives ``decode(encode(text))``
exactly: Chinese, emoji, NUL, even lone surrogates.
"""

import codecs
import contextlib
import heapq
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinytransformer.text.corpora import chunks_of

REPLACEMENT = "\ufffd"  # what decoding writes where ids do not spell a character
LAST_CODE_POINT = 0x10FFFF


class TokenizerError(ValueError):
    """A tokenizer, or a file that should hold one, cannot be used; the message is one line."""


class Tokenizer(ABC):
    """What all tokenizers share.

    Attributes
    ----------
    type : str
        The kind of tokenizer, as its file names it.
    vocab_size : int
        Number of token ids; ids are ``0 … vocab_size - 1``.
    tokens : list of str
        For each id what to print for it, in a plot for example. For people: two ids may look alike.
    """

    type: ClassVar[str]
    _lists: ClassVar[frozenset[str]]  # names of the fields in `to_dict` that are lists
    _switches: ClassVar[frozenset[str]] = frozenset()  # and of those that are true or false
    vocab_size: int

    @property
    @abstractmethod
    def tokens(self) -> list[str]:
        """For each id what to print for it."""

    @property
    @abstractmethod
    def character_counts(self) -> NDArray[np.int64]:
        """Characters that each id adds to a text, (vocab_size,): their sum over its ids is its length."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int32]:
        """Token ids of a text, 1-D int32.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """

    def encode_chunks(self, chunks: str | Iterable[str]) -> Iterator[NDArray[np.int32]]:
        """Encode a stream of text; the arrays joined are exactly the ids of the whole text.

        Parameters
        ----------
        chunks : iterable of str, or str
            The text in chunks, cut anywhere.

        Yields
        ------
        array of int32, 1-D
            Ids of the next part of the text.
        """
        for chunk in chunks_of(chunks):
            yield self.encode(chunk)

    def decode(self, ids: ArrayLike) -> str:
        """Text of token ids; what does not spell a character (a model's sample may) becomes U+FFFD.

        Parameters
        ----------
        ids : sequence or array of int, 1-D
            Token ids.

        Raises
        ------
        ValueError
            If `ids` is not a 1-D sequence of integers, or an id is not in ``0 … vocab_size - 1``.
        """
        array = np.asarray(ids)
        if array.ndim != 1:
            raise ValueError(f"decode takes a 1-D sequence of ids, got shape {array.shape}; decode each row")
        if array.size == 0:
            return ""
        if array.dtype.kind not in "iu":
            raise ValueError(f"decode takes integer ids, got dtype {array.dtype}")
        outside = (array < 0) | (array >= self.vocab_size)
        if outside.any():
            at = int(outside.argmax())
            raise ValueError(
                f"token id {array[at]} at position {at} is not in the vocabulary (0 to {self.vocab_size - 1})"
            )
        return self._decode(array)

    @abstractmethod
    def _decode(self, ids: np.ndarray) -> str:
        """Decode ids already checked: 1-D, not empty, each in range."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Give the tokenizer as JSON-able values; ``"type"`` names its kind."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Tokenizer":
        """Build the tokenizer that `to_dict` gave; `tokenizer_from_dict` takes any kind.

        Raises
        ------
        TokenizerError
            If the fields are not those of this kind of tokenizer.
        """
        if not isinstance(fields, dict) or fields.get("type") != cls.type:
            raise TokenizerError(f"these are not the fields of a tokenizer of type {cls.type!r}")
        if different := sorted(map(repr, fields.keys() ^ {"type", *cls._lists, *cls._switches})):
            raise TokenizerError(
                f"missing or unknown fields for a tokenizer of type {cls.type!r}: {', '.join(different)}"
            )
        for name in sorted(cls._lists):
            if not isinstance(fields[name], list):
                raise TokenizerError(f"the field {name!r} of a tokenizer must be a list")
        for name in sorted(cls._switches):
            if not isinstance(fields[name], bool):
                raise TokenizerError(f"the field {name!r} of a tokenizer must be true or false")
        return cls(**{name: fields[name] for name in (*cls._lists, *cls._switches)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a JSON file, atomically; `load_tokenizer` reads it."""
        with atomic_file(path) as file:
            file.write(json.dumps(self.to_dict(), indent=1).encode("ascii"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"


class CharacterTokenizer(Tokenizer):
    """One token per character of a fixed vocabulary; any other character is spelt with an escape.

    With n characters, ids ``0 … n-1`` are the characters, n is the escape and ``n+1 … n+16`` are the
    hexadecimal digits. A character outside the vocabulary is written as the escape and the six digits of
    its code point. So every text has an encoding, and a model's probabilities over texts still add up.

    Parameters
    ----------
    characters : sequence of str
        The vocabulary: single characters, distinct, in code point order.

    Raises
    ------
    TokenizerError
        If `characters` is not that.

    Examples
    --------
    >>> tokenizer = CharacterTokenizer.train("attention")
    >>> tokenizer.characters
    ['a', 'e', 'i', 'n', 'o', 't']
    >>> tokenizer.encode("ten")
    array([5, 1, 3], dtype=int32)
    >>> tokenizer.encode("é")  # U+0000E9
    array([ 6,  7,  7,  7,  7, 21, 16], dtype=int32)
    >>> tokenizer.decode(tokenizer.encode("注意 attention"))
    '注意 attention'
    """

    type = "character"
    _lists = frozenset({"characters"})

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = list(characters)
        if not all(isinstance(character, str) and len(character) == 1 for character in self.characters):
            raise TokenizerError("each of the characters of a tokenizer must be a string of length 1")
        if not all(left < right for left, right in pairwise(self.characters)):
            raise TokenizerError("the characters of a tokenizer must be distinct and in code point order")
        self._escape = len(self.characters)
        self._zero = self._escape + 1  # the digit 0; the others follow
        self.vocab_size = self._escape + 17
        # id -> code point; the escape and the digits mean no character by themselves
        self._points = np.full(self.vocab_size, ord(REPLACEMENT), dtype="<u4")
        self._points[: self._escape] = [ord(character) for character in self.characters]
        # code point -> id; the last entry stands for every code point above the vocabulary's
        last = ord(self.characters[-1]) if self.characters else -1
        self._ids = np.full(last + 2, self._escape, dtype=np.int32)
        self._ids[self._points[: self._escape]] = np.arange(self._escape)

    @classmethod
    def train(cls, text: str | Iterable[str]) -> "CharacterTokenizer":
        """Take every character of a text (or of an iterable of chunks) into the vocabulary.

        Raises
        ------
        TypeError
            If a chunk is not a string.
        """
        return cls(sorted(set().union(*map(set, chunks_of(text)))))

    @property
    def tokens(self) -> list[str]:
        """The characters, ``<escape>``, and the digits ``<0>`` to ``<f>``."""
        digits = [f"<{digit:x}>" for digit in range(16)]
        return [*map(printable, self.characters), "<escape>", *digits]

    @property
    def character_counts(self) -> NDArray[np.int64]:
        """One for a character and for an escape, which stands for one; none for the digits after it."""
        return (np.arange(self.vocab_size) <= self._escape).astype(np.int64)

    def encode(self, text: str) -> NDArray[np.int32]:
        """One id for each character of the vocabulary, seven for any other."""
        require_text(text)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = self._ids[np.minimum(points, len(self._ids) - 1)]
        unknown = np.flatnonzero(ids == self._escape)
        if unknown.size == 0:
            return ids
        repeats = np.ones(len(ids), dtype=np.intp)
        repeats[unknown] = 7
        spelt = np.repeat(ids, repeats)
        escapes = unknown + 6 * np.arange(len(unknown))  # where each escape lies now
        for place in range(6):  # the highest digit first
            spelt[escapes + 1 + place] = self._zero + (points[unknown] >> (20 - 4 * place) & 15)
        return spelt

    def _decode(self, ids: np.ndarray) -> str:
        points = self._points[ids]
        kept = np.ones(len(ids) + 6, dtype=bool)  # digits that an escape takes are not kept
        escapes = np.flatnonzero(ids == self._escape)
        # padded so that an escape near the end can look six ids ahead; an escape is no digit
        ahead = np.concatenate([ids.astype(np.int64), np.full(6, self._escape)])
        values = np.zeros(len(escapes), dtype=np.int64)
        spelt = np.ones(len(escapes), dtype=bool)  # all digits so far
        for place in range(1, 7):
            digits = ahead[escapes + place] - self._zero
            spelt &= digits >= 0
            values = 16 * values + digits
            kept[escapes[spelt] + place] = False
        spelt &= values <= LAST_CODE_POINT
        points[escapes[spelt]] = values[spelt]
        return points[kept[: len(ids)]].tobytes().decode("utf-32-le", "surrogatepass")

    def to_dict(self) -> dict[str, Any]:
        """Type and characters."""
        return {"type": self.type, "characters": list(self.characters)}


class ByteTokenizer(Tokenizer):
    """One token per byte of the text's UTF-8; 256 ids, nothing to train.

    Examples
    --------
    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("é!")
    array([195, 169,  33], dtype=int32)
    >>> tokenizer.decode([195, 169, 33, 195])  # the last byte begins a character that does not come
    'é!�'
    """

    type = "byte"
    _lists = frozenset()
    vocab_size = 256

    @property
    def tokens(self) -> list[str]:
        r"""ASCII as it is, other bytes as ``\xe6``."""
        return [printable_bytes(bytes([byte])) for byte in range(256)]

    @property
    def character_counts(self) -> NDArray[np.int64]:
        """One for the byte that begins a character, none for those that go on with it."""
        return np.array([characters_in(bytes([byte])) for byte in range(256)])

    def encode(self, text: str) -> NDArray[np.int32]:
        """One id for each byte of the text's UTF-8."""
        require_text(text)
        return np.frombuffer(to_utf8(text), dtype=np.uint8).astype(np.int32)

    def _decode(self, ids: np.ndarray) -> str:
        return from_utf8(ids.astype(np.uint8).tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Type alone."""
        return {"type": self.type}


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding, as GPT-2's (Sennrich et al. 2016; Radford et al. 2019).

    A text is cut into pre-tokens (words with the space before them, up to three digits, punctuation,
    whitespace, runs of Chinese characters; none longer than 64 characters and a space). Each pre-token
    starts as its UTF-8 bytes; then the adjacent pair that was merged earliest in training is replaced by
    its id, again and again, until no adjacent pair is in the list.

    Ids ``0 … 255`` are the bytes, ``256 + k`` is the k-th merge, and special tokens come last.

    Parameters
    ----------
    merges : sequence of (int, int)
        The merged pairs in the order of training; merge k may use ids below ``256 + k``.
    special_tokens : sequence of str
        Markers with an id of their own, for example ``"<|endoftext|>"``.

    Raises
    ------
    TokenizerError
        If the merges or the special tokens are not as described.

    Examples
    --------
    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=258, special_tokens=["<|end|>"])
    >>> tokenizer.merges  # 'l' 'o', the first of the pairs seen three times; none is left for 'lo' 'w'
    [(108, 111)]
    >>> tokenizer.encode("slow")
    array([115, 256, 119], dtype=int32)
    >>> tokenizer.decode(tokenizer.encode("注意力 slow"))
    '注意力 slow'
    >>> tokenizer.encode("lo<|end|>", allow_special=True)
    array([256, 257], dtype=int32)
    """

    type = "bpe"
    _lists = frozenset({"merges", "special_tokens"})

    def __init__(self, merges: Sequence[Sequence[int]], special_tokens: Sequence[str] = ()) -> None:
        self.special_tokens = _checked_special_tokens(special_tokens)
        self.merges: list[tuple[int, int]] = []
        self._merged: dict[tuple[int, int], int] = {}  # pair -> id; the smaller id was merged earlier
        self._bytes = [bytes([byte]) for byte in range(256)]  # id -> its bytes
        for pair in merges:
            left, right = self._checked_merge(pair)
            self._merged[left, right] = len(self._bytes)
            self._bytes.append(self._bytes[left] + self._bytes[right])
            self.merges.append((left, right))
        self._special_ids = {text: len(self._bytes) + k for k, text in enumerate(self.special_tokens)}
        self._bytes += [text.encode("utf-8") for text in self.special_tokens]
        self.vocab_size = len(self._bytes)
        self._cache: dict[str, list[int]] = {}  # pre-token -> ids

    def _checked_merge(self, pair: Any) -> tuple[int, int]:
        """Check the next merge against the ids so far; what no training gives is refused."""
        name = f"merge {len(self.merges)} of a BPE tokenizer"
        known = len(self._bytes)
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TokenizerError(f"{name} must be a pair of ids")
        if not all(type(part) is int and 0 <= part < known for part in pair):
            raise TokenizerError(f"{name} must join two ids from 0 to {known - 1}")
        left, right = pair
        if (left, right) in self._merged:
            raise TokenizerError(f"{name} repeats the pair ({left}, {right})")
        # without this, merging each id with itself doubles the bytes until memory ends
        if len(self._bytes[left]) + len(self._bytes[right]) > _LONGEST_BYTES:
            raise TokenizerError(f"{name} makes a token longer than {_LONGEST_BYTES} bytes")
        return left, right

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        progress: bool = False,
        special_tokens: Sequence[str] = (),
    ) -> "BPETokenizer":
        """Learn merges: again and again join the most frequent adjacent pair of tokens.

        Pairs are counted inside pre-tokens, overlaps included ("aaa" holds "aa" twice). Among pairs of
        equal count the smallest ``(left id, right id)`` wins, so the order of the text does not matter.
        Training ends early when no pair occurs twice; `vocab_size` of the tokenizer is then smaller.

        Parameters
        ----------
        text : str or iterable of str
            The text, whole or in chunks. The distinct pre-tokens are held in memory, the text is not.
        vocab_size : int
            Number of ids wanted: 256 bytes, the merges, the special tokens.
        progress : bool
            Show progress bars.
        special_tokens : sequence of str
            As for the class; training treats them as any other text.

        Raises
        ------
        TokenizerError
            If `vocab_size` is below 256 plus the special tokens.
        TypeError
            If a chunk is not a string.
        """
        smallest = 256 + len(_checked_special_tokens(special_tokens))
        if vocab_size < smallest:
            raise TokenizerError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(special_tokens)} special tokens "
                f"need at least {smallest}"
            )
        merges = _learn_merges(_count_pre_tokens(text, progress), vocab_size - smallest, progress)
        return cls(merges, special_tokens)

    @property
    def tokens(self) -> list[str]:
        r"""The text of each token; parts of characters as ``\xe6``."""
        return [printable_bytes(token) for token in self._bytes]

    @property
    def character_counts(self) -> NDArray[np.int64]:
        """Characters that begin in each token."""
        return np.array([characters_in(token) for token in self._bytes])

    def encode(self, text: str, allow_special: bool = False) -> NDArray[np.int32]:
        """Token ids of a text, 1-D int32.

        Parameters
        ----------
        text : str
            Any text.
        allow_special : bool
            Whether a special token written in the text becomes its own id (the longest one where several
            fit). Without it the text is bytes like any other: text of strangers cannot insert markers.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        require_text(text)
        if not (allow_special and self.special_tokens):
            return self._encode_pre_tokens(_PRE_TOKEN.findall(text))
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        parts = [
            # split at a group: text at even places, special tokens at odd ones
            [self._special_ids[part]] if place % 2 else self._encode_pre_tokens(_PRE_TOKEN.findall(part))
            for place, part in enumerate(special.split(text))
        ]
        return np.concatenate(parts, dtype=np.int32)

    def encode_chunks(self, chunks: str | Iterable[str]) -> Iterator[NDArray[np.int32]]:
        """As `Tokenizer.encode_chunks`; special tokens in the text are bytes like any other."""
        for pre_tokens in _stream_pre_tokens(chunks):
            yield self._encode_pre_tokens(pre_tokens)

    def _encode_pre_tokens(self, pre_tokens: list[str]) -> NDArray[np.int32]:
        ids: list[int] = []
        cache = self._cache
        for pre_token in pre_tokens:
            known = cache.get(pre_token)
            if known is None:
                if len(cache) >= _CACHED_PRE_TOKENS:
                    cache.clear()
                known = cache[pre_token] = self._merge(list(to_utf8(pre_token)))
            ids += known
        return np.array(ids, dtype=np.int32)

    def _merge(self, ids: list[int]) -> list[int]:
        """Merge the bytes of one pre-token, earliest merge first, leftmost first."""
        never = self.vocab_size  # greater than the id of every merge
        merged = self._merged
        made = [merged.get(pair, never) for pair in pairwise(ids)]  # what each adjacent pair would become
        while made and (new := min(made)) < never:
            at = made.index(new)
            ids[at : at + 2] = [new]
            del made[at]
            if at > 0:
                made[at - 1] = merged.get((ids[at - 1], new), never)
            if at < len(made):
                made[at] = merged.get((new, ids[at + 1]), never)
        return ids

    def _decode(self, ids: np.ndarray) -> str:
        return from_utf8(b"".join([self._bytes[token] for token in ids.tolist()]))

    def to_dict(self) -> dict[str, Any]:
        """Type, merges and special tokens."""
        return {
            "type": self.type,
            "merges": [list(pair) for pair in self.merges],
            "special_tokens": list(self.special_tokens),
        }


def tokenizer_from_dict(fields: dict[str, Any]) -> Tokenizer:
    """Build the tokenizer whose `Tokenizer.to_dict` gave these fields.

    Raises
    ------
    TokenizerError
        If the type is unknown or the fields are not those of the type.

    Examples
    --------
    >>> tokenizer_from_dict({"type": "byte"})
    ByteTokenizer(vocab_size=256)
    """
    from tinytransformer.text.gpt2 import GPT2Tokenizer  # they are built on this module
    from tinytransformer.text.marian import MarianTokenizer
    from tinytransformer.text.unigram import UnigramTokenizer
    from tinytransformer.text.wordpiece import WordPieceTokenizer

    kinds: tuple[type[Tokenizer], ...] = (
        CharacterTokenizer,
        ByteTokenizer,
        BPETokenizer,
        WordPieceTokenizer,
        GPT2Tokenizer,
        UnigramTokenizer,
        MarianTokenizer,
    )
    for kind in kinds:
        if isinstance(fields, dict) and fields.get("type") == kind.type:
            return kind.from_dict(fields)
    known = ", ".join(repr(kind.type) for kind in kinds)
    raise TokenizerError(f'a tokenizer is a JSON object whose "type" is one of {known}')


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer that `Tokenizer.save` wrote.

    Raises
    ------
    TokenizerError
        If the file is missing, unreadable, or not a tokenizer; nothing else, whatever the file holds.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "tokenizer.json")
    ...     CharacterTokenizer.train("attention").save(path)
    ...     load_tokenizer(path)
    CharacterTokenizer(vocab_size=23)
    """
    name = os.fspath(path)
    try:
        fields = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise TokenizerError(f"cannot read the tokenizer file {name}: {error.strerror}") from None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, nested too deep, a number too long
        raise TokenizerError(f"{name} is not a tokenizer file: it is not valid JSON") from None
    try:
        return tokenizer_from_dict(fields)
    except TokenizerError as error:
        raise TokenizerError(f"{name} is not a tokenizer file: {error}") from None


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only once it is whole.

    It is written beside its place with ``.tmp`` added to its name, and renamed when the block ends; if
    the block raises, what was there before stays.

    Parameters
    ----------
    path : path
        The file to write.

    Yields
    ------
    binary file
        To write to.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "notes")
    ...     with atomic_file(path) as file:
    ...         _ = file.write(b"whole")
    ...     path.read_bytes()
    b'whole'
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # the bytes must be on the disk before the name points to them
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def progress_bar(
    show: bool, total: int | None, description: str, unit: str
) -> Iterator[Callable[[int], object]]:
    """Show the progress of a long task, or do nothing if not `show`; tqdm is imported only to show it.

    Yields
    ------
    callable
        Call it with how many units are done since the last call.

    Examples
    --------
    >>> with progress_bar(False, 3, "counting", "step") as advance:
    ...     for _ in range(3):
    ...         _ = advance(1)
    """
    if not show:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=description, unit=unit, unit_scale=True) as bar:
        yield bar.update


def printable(text: str) -> str:
    r"""Make a token readable on one line: "␣" for a space, escapes such as ``\n`` for what has no sign.

    Examples
    --------
    >>> print(printable(" the\n"))
    ␣the\n
    """
    return "".join(
        "␣" if sign == " " else sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def printable_bytes(token: bytes) -> str:
    r"""Decode a token's bytes; those that are part of a character become escapes such as ``\xe6``."""
    return printable(token.decode("utf-8", "backslashreplace"))


def _checked_special_tokens(special_tokens: Sequence[str]) -> list[str]:
    if isinstance(special_tokens, str):
        raise TokenizerError(f"special_tokens is a list of strings; write [{special_tokens!r}]")
    texts = list(special_tokens)
    for text in texts:
        if not isinstance(text, str) or not text or any("\ud800" <= sign <= "\udfff" for sign in text):
            raise TokenizerError("each special token must be a string, not empty and without lone surrogates")
    if len(set(texts)) < len(texts):
        raise TokenizerError("the special tokens of a tokenizer must be distinct")
    return texts


def require_text(text: object) -> None:
    """Raise a TypeError unless given a string."""
    if not isinstance(text, str):
        raise TypeError(f"encode takes a str, got {type(text).__name__}")


# --- UTF-8 in which a lone surrogate (half of a UTF-16 pair) is allowed ---


def characters_in(utf8: bytes) -> int:
    """Count the characters that begin in these bytes: all but continuation bytes, 10xxxxxx, begin one."""
    return sum(byte & 0xC0 != 0x80 for byte in utf8)


def to_utf8(text: str) -> bytes:
    """Encode, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def from_utf8(encoded: bytes) -> str:
    """Decode, lone surrogates too; what else is invalid becomes U+FFFD."""
    return encoded.decode("utf-8", "tinytransformer.surrogates_or_replacement")


def _surrogates_or_replacement(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode a lone surrogate where there is one, and anything else invalid as U+FFFD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    three = error.object[error.start : error.start + 3]
    try:
        return three.decode("utf-8", "surrogatepass"), error.start + 3
    except UnicodeDecodeError:
        return REPLACEMENT, error.end


codecs.register_error("tinytransformer.surrogates_or_replacement", _surrogates_or_replacement)


# --- pre-tokens: the pieces of a text that byte-pair encoding never merges across ---

_LONGEST = 64  # characters of a run; bounds the work on a pre-token and what a stream must hold back
_LONGEST_BYTES = 4 * _LONGEST + 1  # in UTF-8, with the space before
_CACHED_PRE_TOKENS = 1 << 16
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# A space goes with what follows it: the whitespace rule leaves the last one of a run for the next match.
_PRE_TOKEN = re.compile(
    rf" ?[^\W\d_{_HAN}]{{1,{_LONGEST}}}"  # letters
    rf"| ?[{_HAN}]{{1,{_LONGEST}}}"  # Chinese characters
    r"| ?\d{1,3}"
    rf"| ?(?:[^\s\w]|_){{1,{_LONGEST}}}"  # punctuation and other signs
    rf"|\s{{1,{_LONGEST}}}(?!\S)"
    rf"|\s{{1,{_LONGEST}}}"
)


def _stream_pre_tokens(chunks: str | Iterable[str]) -> Iterator[list[str]]:
    """Pre-tokens of a stream, in lists, the same as those of the whole text.

    Only the last match of a buffer can change with the text that follows: every earlier one was ended by
    a character in the buffer. So the last match is held back until more text, or the end, comes.
    """
    held = ""
    for chunk in chunks_of(chunks):
        pre_tokens = _PRE_TOKEN.findall(held + chunk)
        held = pre_tokens.pop() if pre_tokens else ""
        yield pre_tokens
    if held:
        yield [held]


def _count_pre_tokens(text: str | Iterable[str], progress: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    total = len(text) if isinstance(text, str) else None
    with progress_bar(progress, total, "reading", "char") as advance:
        for pre_tokens in _stream_pre_tokens(text):
            counts.update(pre_tokens)
            advance(sum(map(len, pre_tokens)))
    return counts


# --- training of byte-pair encoding ---


def _learn_merges(pre_tokens: Counter[str], number: int, progress: bool) -> list[tuple[int, int]]:
    """Merge the most frequent pair `number` times; counts are updated where a merge changes them."""
    words = [list(to_utf8(pre_token)) for pre_token in pre_tokens]
    weights = list(pre_tokens.values())
    counts: Counter[tuple[int, int]] = Counter()  # pair -> how often it occurs
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # pair -> words it occurs in
    for place, (word, weight) in enumerate(zip(words, weights, strict=True)):
        for pair in pairwise(word):
            counts[pair] += weight
            places[pair].add(place)
    # Most frequent first, then smallest pair. An entry whose count has changed since is out of date.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    with progress_bar(progress, number, "merging", "merge") as advance:
        while heap and len(merges) < number:
            count, pair = heapq.heappop(heap)
            if -count != counts[pair]:
                continue
            if -count < 2:
                break
            new = 256 + len(merges)
            merges.append(pair)
            changes: Counter[tuple[int, int]] = Counter()
            for place in places.pop(pair):
                for changed, change in merge_word(words[place], pair, new):
                    changes[changed] += change * weights[place]
                    if change > 0:
                        places[changed].add(place)
            for changed, change in changes.items():  # the merged pair is among them: none of it is left
                counts[changed] += change
                heapq.heappush(heap, (-counts[changed], changed))
            advance(1)
    return merges


def merge_word(word: list[int], pair: tuple[int, int], new: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Replace `pair` in a word by `new`, leftmost first; yield each pair that comes (1) or goes (-1).

    After each replacement the pairs are counted as the word then stands, so runs such as "aaaa", where
    occurrences overlap, come out right.
    """
    left, right = pair
    at = 0
    while at < len(word) - 1:
        if word[at] == left and word[at + 1] == right:
            before, after = word[max(at - 1, 0) : at], word[at + 2 : at + 3]
            for old in pairwise([*before, left, right, *after]):
                yield old, -1
            word[at : at + 2] = [new]
            for fresh in pairwise([*before, new, *after]):
                yield fresh, 1
        at += 1
