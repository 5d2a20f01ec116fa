"""WordPiece, the tokenizer of BERT: words, cut into the longest pieces that the vocabulary has."""

import os
import re
import string
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytransformer.text.corpora import chunks_of
from tinytransformer.text.tokenizers import (
    Tokenizer,
    TokenizerError,
    atomic_file,
    merge_word,
    printable,
    progress_bar,
    require_text,
)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters; longer words are unknown
CACHED_WORDS = 1 << 16
CJK = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f"
)
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")
_CJK = re.compile(f"[{CJK}]")
_UP_TO_A_BORDER = re.compile(rf"(?s).*[ \t\n\r{CJK}]")  # no word goes on past its end


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer: text to words, words to the longest pieces in a vocabulary.

    *Words.* Control characters are dropped; accents are stripped and letters made lower-case if asked for;
    each Chinese character and each punctuation mark is a word of its own; the others end at whitespace.

    *Pieces.* From the left, each word gives up the longest beginning that is in the vocabulary; pieces
    inside a word are written with ``##`` before them. A word that has a part without a piece, or more than
    100 characters, becomes ``[UNK]`` as a whole.

    What is dropped on the way does not come back: ``decode(encode(text))`` is not the text, unlike with the
    other tokenizers.

    Parameters
    ----------
    vocabulary : sequence of str
        The pieces; the id of each is its place. The five special tokens ``[PAD]``, ``[UNK]``, ``[CLS]``,
        ``[SEP]`` and ``[MASK]`` must be among them.
    lowercase : bool
        Make letters lower-case.
    strip_accents : bool, optional
        Drop the accents of letters; by default together with ``lowercase``, as BERT does.

    Attributes
    ----------
    vocabulary : list of str
    pad_id, unknown_id, cls_id, sep_id, mask_id : int
        Ids of the special tokens.
    special_ids : list of int
        All five, in this order.

    Raises
    ------
    TokenizerError
        If the vocabulary is not that.

    Notes
    -----
    Source: Devlin et al., BERT, 2019, and the tokenizer published with it; Wu et al., Google's Neural
    Machine Translation System, 2016, section 4.1.

    Examples
    --------
    >>> pieces = ["atten", "##tion", "is", "注", "意", "!"]
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])
    >>> tokenizer.encode("Attention is 注意!")
    array([ 5,  6,  7,  8,  9, 10], dtype=int32)
    >>> tokenizer.decode([5, 6, 7, 8, 9, 10])
    'attention is 注 意 !'
    >>> ids, token_type_ids = tokenizer.encode_pair("attention", "is [MASK]", allow_special=True)
    >>> ids.tolist(), token_type_ids.tolist()
    ([2, 5, 6, 3, 7, 4, 3], [0, 0, 0, 0, 1, 1, 1])
    """

    type = "wordpiece"
    _lists = frozenset({"vocabulary"})
    _switches = frozenset({"lowercase", "strip_accents"})

    def __init__(
        self, vocabulary: Sequence[str], lowercase: bool = True, strip_accents: bool | None = None
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        for piece in self.vocabulary:
            if not isinstance(piece, str) or not piece or re.search("[\n\ud800-\udfff]", piece):
                raise TokenizerError(
                    "each piece of a WordPiece vocabulary must be a string on one line, not empty"
                )
        self._ids = {piece: i for i, piece in enumerate(self.vocabulary)}
        if len(self._ids) < len(self.vocabulary):
            twice = next(piece for i, piece in enumerate(self.vocabulary) if self._ids[piece] != i)
            raise TokenizerError(f"a WordPiece vocabulary holds {twice!r} twice")
        if missing := [token for token in SPECIAL_TOKENS if token not in self._ids]:
            raise TokenizerError(f"a WordPiece vocabulary needs the special tokens {', '.join(missing)}")
        self.vocab_size = len(self.vocabulary)
        self.special_ids = [self._ids[token] for token in SPECIAL_TOKENS]
        self.pad_id, self.unknown_id, self.cls_id, self.sep_id, self.mask_id = self.special_ids
        self._longest = max(map(len, self.vocabulary))
        self._table = _Characters(self.lowercase, self.strip_accents)
        self._cache: dict[str, list[int]] = {}  # word -> ids

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        min_count: int = 2,
        progress: bool = False,
    ) -> "WordPieceTokenizer":
        r"""Learn pieces: again and again join the pair of neighbours that belongs together most.

        .. math:: \mathrm{score}(a, b) = \frac{\mathrm{count}(ab)}{\mathrm{count}(a)\,\mathrm{count}(b)}

        This is how many times more likely an occurrence of the pair becomes, when pieces are drawn one by
        one: WordPiece makes its text likely, where byte-pair encoding takes the most frequent pair. The
        trainer itself was never published. The score by itself would first join rare characters that are
        always together, so here only pairs that occur often are looked at: half as often as the most
        frequent one, then, when no such pair is left, a quarter as often, and so on down to `min_count`.
        Of equal scores the pair that comes first in code point order wins, so the order of the text does
        not matter.

        The vocabulary begins with the special tokens and all characters of the text, or the most frequent
        ones if there are too many. It stays smaller than asked for when no pair is left.

        Parameters
        ----------
        text : str or iterable of str
            The text, whole or in chunks. Its distinct words are held in memory.
        vocab_size : int
            Number of ids wanted, special tokens included.
        lowercase, strip_accents : bool
            As for the class.
        min_count : int
            Pairs that occur less often are not joined.
        progress : bool
            Show progress bars.

        Raises
        ------
        TokenizerError
            If `vocab_size` leaves no room beside the special tokens, or `min_count` is below 1.
        TypeError
            If a chunk is not a string.

        Notes
        -----
        Source: Schuster and Nakajima, Japanese and Korean Voice Search, 2012; Wu et al. 2016.
        """
        if vocab_size <= len(SPECIAL_TOKENS):
            raise TokenizerError(
                f"vocab_size {vocab_size} is too small: beside {len(SPECIAL_TOKENS)} special tokens there "
                "must be room for characters"
            )
        if min_count < 1:
            raise TokenizerError(f"min_count must be at least 1, got {min_count}")
        words_only = cls(SPECIAL_TOKENS, lowercase, strip_accents)
        words: Counter[str] = Counter()
        with progress_bar(progress, None, "reading", "char") as advance:
            for part in _whole_words(text):
                words.update(words_only.words(part))
                advance(len(part))
        pieces = _learn_pieces(words, vocab_size - len(SPECIAL_TOKENS), min_count, progress)
        return cls([*SPECIAL_TOKENS, *pieces], lowercase, strip_accents)

    @classmethod
    def from_vocab_file(
        cls, path: str | os.PathLike[str], lowercase: bool = True, strip_accents: bool | None = None
    ) -> "WordPieceTokenizer":
        """Read a ``vocab.txt``: UTF-8, a piece on each line.

        Raises
        ------
        TokenizerError
            If the file cannot be read, or is no WordPiece vocabulary.
        """
        name = os.fspath(path)
        try:
            lines = Path(path).read_bytes().decode("utf-8").split("\n")
        except OSError as error:
            raise TokenizerError(f"cannot read the vocabulary {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise TokenizerError(f"the vocabulary {name} is not UTF-8") from None
        lines = [line.removesuffix("\r") for line in lines]
        try:
            return cls(lines[:-1] if lines[-1] == "" else lines, lowercase, strip_accents)
        except TokenizerError as error:
            raise TokenizerError(f"{name}: {error}") from None

    def save_vocabulary(self, path: str | os.PathLike[str]) -> None:
        """Write a ``vocab.txt``, atomically; ``from_vocab_file`` reads it."""
        with atomic_file(path) as file:
            file.write("".join(f"{piece}\n" for piece in self.vocabulary).encode("utf-8"))

    @property
    def tokens(self) -> list[str]:
        """The pieces, with ``##`` where they stand inside a word."""
        return [printable(piece) for piece in self.vocabulary]

    @property
    def character_counts(self) -> NDArray[np.int64]:
        """Characters of each piece, 1 of ``[UNK]``, 0 of the other special tokens.

        Their sum over the ids of a text is below its length: whitespace, and more, has no piece.
        """
        counts = np.array([len(piece.removeprefix("##")) for piece in self.vocabulary])
        counts[self.special_ids] = 0
        counts[self.unknown_id] = 1
        return counts.astype(np.int64)

    def words(self, text: str) -> list[str]:
        """Return the words that are cut into pieces.

        Examples
        --------
        >>> WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]).words("Naïve, 注意!")
        ['naive', ',', '注', '意', '!']
        """
        return text.translate(self._table).split()

    def encode(self, text: str, allow_special: bool = False) -> NDArray[np.int32]:
        """Token ids of a text, 1-D int32, without ``[CLS]`` and ``[SEP]``: see `encode_pair`.

        Parameters
        ----------
        text : str
            Any text.
        allow_special : bool
            Whether a special token written in the text, such as ``[MASK]``, becomes its own id. Without it
            the text is like any other.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        require_text(text)
        ids: list[int] = []
        for place, part in enumerate(_SPECIAL.split(text) if allow_special else [text]):
            if place % 2:  # split at a group: text at even places, special tokens at odd ones
                ids.append(self._ids[part])
            else:
                for word in self.words(part):
                    ids += self._pieces(word)
        return np.array(ids, dtype=np.int32)

    def encode_pair(
        self, a: str, b: str | None = None, max_length: int | None = None, allow_special: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Encode ``[CLS] a [SEP]`` or ``[CLS] a [SEP] b [SEP]``, as BERT reads them.

        Parameters
        ----------
        a, b : str
            One text or two.
        max_length : int, optional
            The most ids in all; what is too much is cut from the end of the longer text, of b where they
            are equally long.
        allow_special : bool
            As for `encode`.

        Returns
        -------
        ids, token_type_ids : arrays of int32, 1-D
            Ids, and the segment of each: 0 up to the first ``[SEP]``, 1 after it.

        Raises
        ------
        ValueError
            If `max_length` has no room for the special tokens.
        """
        segments = [self.encode(text, allow_special).tolist() for text in (a, b) if text is not None]
        room = None if max_length is None else max_length - 1 - len(segments)
        if room is not None and room < 0:
            raise ValueError(f"max_length={max_length} has no room for [CLS] and {len(segments)} [SEP]")
        while room is not None and sum(map(len, segments)) > room:
            max(reversed(segments), key=len).pop()
        segments = [[*segment, self.sep_id] for segment in segments]
        segments[0].insert(0, self.cls_id)
        ids = np.array([i for segment in segments for i in segment], dtype=np.int32)
        return ids, np.repeat(np.arange(len(segments), dtype=np.int32), [len(s) for s in segments])

    def encode_with_spans(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Encode a text, and tell which part of it each token stands for.

        Returns
        -------
        ids : array of int32, (T,)
            As `encode` gives them.
        spans : array of int32, (T, 2)
            Token t stands for ``text[spans[t, 0] : spans[t, 1]]``; ``[UNK]`` for the whole word.

        Examples
        --------
        >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "naiv", "##e"])
        >>> tokenizer.encode_with_spans(" naïve")[1].tolist()
        [[1, 5], [5, 6]]
        """
        require_text(text)
        made = [self._table[ord(character)] for character in text]
        origin = [i for i, replacement in enumerate(made) for _ in replacement]  # of each character made
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for word in re.finditer(r"\S+", "".join(made)):
            start = word.start()
            for piece in self._pieces(word.group()):
                length = len(
                    word.group() if piece == self.unknown_id else self.vocabulary[piece].removeprefix("##")
                )
                ids.append(piece)
                spans.append((origin[start], origin[start + length - 1] + 1))
                start += length
        return np.array(ids, dtype=np.int32), np.array(spans, dtype=np.int32).reshape(-1, 2)

    def encode_chunks(self, chunks: str | Iterable[str]) -> Iterator[NDArray[np.int32]]:
        """As `Tokenizer.encode_chunks`."""
        for part in _whole_words(chunks):
            yield self.encode(part)

    def _pieces(self, word: str) -> list[int]:
        """Ids of a word: the longest piece, then the longest piece of what is left, and so on."""
        known = self._cache.get(word)
        if known is not None:
            return known
        ids: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self._ids.get(prefix + word[start:end])
                if piece is not None:
                    break
            else:
                break
            ids.append(piece)
            start = end
        if start < len(word):
            ids = [self.unknown_id]
        if len(self._cache) >= CACHED_WORDS:
            self._cache.clear()
        self._cache[word] = ids
        return ids

    def _decode(self, ids: np.ndarray) -> str:
        text = " ".join(self.vocabulary[i] for i in ids.tolist())
        return text.replace(" ##", "")

    def to_dict(self) -> dict[str, Any]:
        """Type, vocabulary and what is done to letters."""
        return {
            "type": self.type,
            "vocabulary": list(self.vocabulary),
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
        }


class _Characters(dict[int, str]):
    """What each character becomes, by code point; worked out when it is first met."""

    def __init__(self, lowercase: bool, strip_accents: bool) -> None:
        super().__init__()
        self.lowercase = lowercase
        self.strip_accents = strip_accents

    def __missing__(self, point: int) -> str:
        character = chr(point)
        category = unicodedata.category(character)
        if character in "\t\n\r":  # of category Cc, as what is dropped
            made = " "
        elif category in ("Cc", "Cf", "Co", "Cs") or character == "\ufffd":
            made = ""
        else:
            made = f" {character} " if _CJK.match(character) else character
            if self.strip_accents:  # a base letter, and marks of category Mn
                decomposed = unicodedata.normalize("NFD", made)
                made = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
            if self.lowercase:
                made = "".join(c.lower() for c in made)  # each alone: no sigma knows that it is the last
            made = "".join(f" {c} " if _is_punctuation(c) else c for c in made)
        self[point] = made
        return made


def _is_punctuation(character: str) -> bool:
    """Tell punctuation, to which BERT counts every sign of ASCII, such as ``$`` and ``^``."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _whole_words(chunks: str | Iterable[str]) -> Iterator[str]:
    """Cut a stream where no word goes on: what may be the start of a word is held back."""
    held = ""
    for chunk in chunks_of(chunks):
        held += chunk
        if border := _UP_TO_A_BORDER.match(held):
            yield held[: border.end()]
            held = held[border.end() :]
    if held:
        yield held


def _learn_pieces(words: Counter[str], number: int, min_count: int, progress: bool) -> list[str]:
    """Return `number` pieces: the characters of these words, and what training joins from them."""
    short = [word for word in words if len(word) <= LONGEST_WORD]
    spellings = {word: [word[0], *(f"##{character}" for character in word[1:])] for word in short}
    frequency: Counter[str] = Counter()
    for word, spelling in spellings.items():
        for piece in spelling:
            frequency[piece] += words[word]
    pieces = sorted(sorted(frequency, key=lambda piece: (-frequency[piece], piece))[:number])
    ids = {piece: i for i, piece in enumerate(pieces)}
    known = [word for word in short if all(piece in ids for piece in spellings[word])]
    texts = [[ids[piece] for piece in spellings[word]] for word in known]
    weights = [words[word] for word in known]

    counts = np.zeros(number)  # of each piece
    pairs = _PairCounts()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # pair -> words it occurs in
    for place, (text, weight) in enumerate(zip(texts, weights, strict=True)):
        np.add.at(counts, text, weight)
        for pair in pairwise(text):
            pairs.add(pair, weight)
            places[pair].add(place)
    threshold = max(pairs.counts.max() / 2, min_count)
    with progress_bar(progress, number - len(pieces), "joining", "piece") as advance:
        while len(pieces) < number:
            best = pairs.best(counts, threshold, pieces)
            if best is None and threshold > min_count:
                threshold = max(threshold / 2, min_count)
                continue
            if best is None:
                break
            a, b = best
            joined = len(pieces)
            # no piece comes twice: equal letters between ends of pieces have been joined alike all along
            pieces.append(pieces[a] + pieces[b].removeprefix("##"))
            for place in places.pop(best):
                text, weight = texts[place], weights[place]
                length = len(text)
                for changed, change in merge_word(text, best, joined):
                    pairs.add(changed, change * weight)
                    if change > 0:
                        places[changed].add(place)
                times = (length - len(text)) * weight
                counts[joined] += times
                counts[a] -= times
                counts[b] -= times
            advance(1)
    return pieces


class _PairCounts:
    """How often each pair of neighbours occurs, in arrays, so that all are scored at once."""

    def __init__(self) -> None:
        self.place: dict[tuple[int, int], int] = {}
        self.pairs = np.zeros((2, 64), dtype=np.intp)
        self.counts = np.zeros(64)

    def add(self, pair: tuple[int, int], number: int) -> None:
        """Count a pair `number` times more, or less."""
        place = self.place.setdefault(pair, len(self.place))
        if place == len(self.counts):
            self.pairs = np.concatenate([self.pairs, np.zeros_like(self.pairs)], axis=1)
            self.counts = np.concatenate([self.counts, np.zeros_like(self.counts)])
        self.pairs[:, place] = pair
        self.counts[place] += number

    def best(self, counts: np.ndarray, min_count: float, pieces: list[str]) -> tuple[int, int] | None:
        """Return the pair of the highest score, the first in order of those; None if there is none."""
        a, b = self.pairs[:, : len(self.place)]
        together = self.counts[: len(self.place)]
        often = np.flatnonzero(together >= min_count)
        if not often.size:
            return None
        scores = together[often] / (counts[a[often]] * counts[b[often]])
        equals = often[scores == scores.max()]
        first = min(equals, key=lambda i: (pieces[a[i]], pieces[b[i]]))
        return int(a[first]), int(b[first])
