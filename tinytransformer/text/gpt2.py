"""The tokenizer of GPT-2 and of many models after it: byte-level BPE with a published vocabulary."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytransformer.text.corpora import chunks_of
from tinytransformer.text.tokenizers import (
    Tokenizer,
    TokenizerError,
    characters_in,
    from_utf8,
    printable_bytes,
    require_text,
    to_utf8,
)

CACHED_PRE_TOKENS = 1 << 16
WHITESPACE = "\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def _byte_alphabet() -> list[str]:
    """Return the sign that stands for each byte in a published vocabulary.

    Those that print as themselves in Latin-1 stay, the others follow from U+0100 on.
    """
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


SIGNS = _byte_alphabet()
BYTES = {sign: byte for byte, sign in enumerate(SIGNS)}


class GPT2Tokenizer(Tokenizer):
    """Byte-level BPE whose ids are those of a published vocabulary.

    A text is cut into words with the space before them, numbers, other signs, and whitespace; the UTF-8 of
    each is merged, the earliest merge first, as by a `BPETokenizer`. Only the cuts, the ids and the place
    of special tokens are those that the published files have.

    Parameters
    ----------
    vocabulary : sequence of str
        The token of each id; a sign stands for each byte, as in ``vocab.json``, but in special tokens.
    merges : sequence of str
        What is merged, earliest first: two tokens with a space between, as in ``merges.txt``.
    special_tokens : sequence of str
        Markers, such as ``"<|endoftext|>"``; they are in the vocabulary.
    single_digits : bool
        Whether each digit is a token of its own, as with SmolLM.

    Attributes
    ----------
    special_ids : dict of str to int
        Ids of the special tokens.

    Raises
    ------
    TokenizerError
        If these are not a vocabulary and its merges.

    Notes
    -----
    A byte that has no token in the vocabulary is dropped, as the published tokenizers do; GPT-2's own has
    all. Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019, and the tokenizer
    published with it.

    Examples
    --------
    >>> vocabulary = ["l", "o", "w", "Ġ", "lo", "low", "Ġlow", "<|endoftext|>"]
    >>> tokenizer = GPT2Tokenizer(vocabulary, ["l o", "lo w", "Ġ low"], ["<|endoftext|>"])
    >>> tokenizer.encode("low low")
    array([5, 6], dtype=int32)
    >>> tokenizer.decode([5, 6, 7])
    'low low<|endoftext|>'
    """

    type = "gpt2"
    _lists = frozenset({"vocabulary", "merges", "special_tokens"})
    _switches = frozenset({"single_digits"})

    def __init__(
        self,
        vocabulary: Sequence[str],
        merges: Sequence[str],
        special_tokens: Sequence[str] = (),
        single_digits: bool = False,
    ) -> None:
        self.vocabulary, self.merges = list(vocabulary), list(merges)
        self.special_tokens, self.single_digits = list(special_tokens), single_digits
        if not all(isinstance(text, str) and text for text in (*self.vocabulary, *self.special_tokens)):
            raise TokenizerError("each token of a GPT-2 vocabulary must be a string, and not empty")
        ids = {token: i for i, token in enumerate(self.vocabulary)}
        if len(ids) < len(self.vocabulary):
            raise TokenizerError("the tokens of a GPT-2 vocabulary must be distinct")
        if missing := [token for token in self.special_tokens if token not in ids]:
            raise TokenizerError(f"a GPT-2 vocabulary lacks its special tokens {', '.join(missing)}")
        self.special_ids = {token: ids[token] for token in self.special_tokens}
        self.vocab_size = len(self.vocabulary)
        self._bytes: list[bytes] = []  # id -> its bytes
        for token in self.vocabulary:
            if token not in self.special_ids and not all(sign in BYTES for sign in token):
                raise TokenizerError(
                    f"the token {token!r} is no special one, and not spelt in signs for bytes"
                )
            spelt = to_utf8(token) if token in self.special_ids else bytes(BYTES[sign] for sign in token)
            self._bytes.append(spelt)
        self._byte_ids = [ids.get(sign) for sign in SIGNS]
        self._merged: dict[tuple[int, int], tuple[int, int]] = {}  # pair -> rank and id
        for rank, merge in enumerate(self.merges):
            left, _, right = merge.partition(" ") if isinstance(merge, str) else ("", "", "")
            if not (left in ids and right in ids and left + right in ids):
                raise TokenizerError(
                    f"merge {rank} of a GPT-2 tokenizer, {merge!r}, does not join two tokens to one"
                )
            self._merged.setdefault((ids[left], ids[right]), (rank, ids[left + right]))
        self._cache: dict[str, list[int]] = {}  # pre-token -> ids

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
            fit). Without it the text is like any other: text of strangers cannot insert markers.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        require_text(text)
        ids: list[int] = []
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        for place, part in enumerate(special.split(text) if allow_special and longest_first else [text]):
            if place % 2:  # split at a group: text at even places, special tokens at odd ones
                ids.append(self.special_ids[part])
            else:
                ids += self._ids(pre_tokens(part, self.single_digits))
        return np.array(ids, dtype=np.int32)

    def encode_chunks(self, chunks: str | Iterable[str]) -> Iterator[NDArray[np.int32]]:
        """As `Tokenizer.encode_chunks`; special tokens in the text are text like any other."""
        held = ""  # what follows can change the last pre-token and, as in "'r" before "e", the one before
        for chunk in chunks_of(chunks):
            found = pre_tokens(held + chunk, self.single_digits)
            held = "".join(found[-2:])
            yield np.array(self._ids(found[:-2]), dtype=np.int32)
        if held:
            yield self.encode(held)

    def _ids(self, found: list[str]) -> list[int]:
        ids: list[int] = []
        for pre_token in found:
            known = self._cache.get(pre_token)
            if known is None:
                if len(self._cache) >= CACHED_PRE_TOKENS:
                    self._cache.clear()
                known = self._cache[pre_token] = self._merge(pre_token)
            ids += known
        return ids

    def _merge(self, pre_token: str) -> list[int]:
        """Merge the bytes of a pre-token: all places of the earliest merge, then of the next."""
        known = [self._byte_ids[byte] for byte in to_utf8(pre_token)]
        ids = [i for i in known if i is not None]
        never = (len(self.merges), 0)
        while len(ids) > 1:
            made = [self._merged.get(pair, never) for pair in pairwise(ids)]
            earliest = min(made)
            if earliest == never:
                break
            joined, place = [], 0
            while place < len(ids):
                if place < len(made) and made[place] == earliest:
                    joined.append(earliest[1])
                    place += 2
                else:
                    joined.append(ids[place])
                    place += 1
            ids = joined
        return ids

    def _decode(self, ids: np.ndarray) -> str:
        return from_utf8(b"".join([self._bytes[token] for token in ids.tolist()]))

    def to_dict(self) -> dict[str, Any]:
        """Type, vocabulary, merges, special tokens, and whether digits are single."""
        return {
            "type": self.type,
            "vocabulary": list(self.vocabulary),
            "merges": list(self.merges),
            "special_tokens": list(self.special_tokens),
            "single_digits": self.single_digits,
        }


def pre_tokens(text: str, single_digits: bool = False) -> list[str]:
    """Cut a text where GPT-2 does: the parts that are never merged with one another.

    Examples
    --------
    >>> pre_tokens("We've  12 apples!")
    ['We', "'ve", ' ', ' 12', ' apples', '!']
    >>> pre_tokens("12 apples", single_digits=True)
    ['1', '2', ' apples']
    """
    number, pattern = _patterns()
    parts = number.split(text) if single_digits else [text]  # numbers at odd places
    return [token for i, part in enumerate(parts) for token in ([part] if i % 2 else pattern.findall(part))]


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Compile what cuts out numbers, and what cuts as GPT-2; ``re`` has no names for letters and numbers."""
    kinds = [unicodedata.category(chr(point))[0] for point in range(sys.maxunicode + 1)]
    ranges: dict[str, list[str]] = {"L": [], "N": []}
    point = 0
    for kind, run in groupby(kinds):
        length = sum(1 for _ in run)
        if kind in ranges:
            ranges[kind].append(f"{chr(point)}-{chr(point + length - 1)}")
        point += length
    letter, number, white = "".join(ranges["L"]), "".join(ranges["N"]), WHITESPACE
    cuts = (
        r"'(?:s|t|re|ve|m|ll|d)",
        rf" ?[{letter}]+",
        rf" ?[{number}]+",
        rf" ?[^{white}{letter}{number}]+",
        rf"[{white}]+(?![^{white}])",  # the last one of a run goes with what follows
        rf"[{white}]+",
    )
    return re.compile(f"([{number}])"), re.compile("|".join(cuts))
