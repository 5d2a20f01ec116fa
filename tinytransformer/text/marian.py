"""The tokenizer of Marian: a way to cut each of two languages, and one vocabulary for both."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytransformer.text.tokenizers import Tokenizer, TokenizerError, require_text
from tinytransformer.text.unigram import SPACE, UnigramTokenizer

__all__ = ["MarianTokenizer"]

SPECIAL = ("</s>", "<unk>", "<pad>")


class MarianTokenizer(Tokenizer):
    """Two Unigram tokenizers whose pieces have their ids from one vocabulary.

    Parameters
    ----------
    source, target : UnigramTokenizer
        They cut what is read, and what is written; their own ids are not used.
    vocabulary : sequence of str
        The piece of each id, with ``</s>``, which ends a text, ``<unk>`` and ``<pad>``.

    Attributes
    ----------
    special_ids : dict of str to int
        Ids of these, and of signs such as ``">>fr<<"``, with which some models are told what to write.

    Raises
    ------
    TokenizerError
        If a piece is there twice, or one of the three is missing.

    Notes
    -----
    Source: Junczys-Dowmunt et al., Marian: Fast Neural Machine Translation in C++, 2018.

    Examples
    --------
    >>> def cut(*pieces):
    ...     vocab = [["<unk>", 0.0], *([piece, -1.0] for piece in pieces)]
    ...     model = {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False}
    ...     return UnigramTokenizer({"version": "1.0", "added_tokens": [], "model": model})
    >>> vocabulary = ["</s>", "<unk>", "yes", "no", "oui", "<pad>"]
    >>> tokenizer = MarianTokenizer(cut("yes", "no"), cut("oui"), vocabulary)
    >>> tokenizer.encode("noyes"), tokenizer.encode_target("oui")
    (array([3, 2], dtype=int32), array([4], dtype=int32))
    """

    type = "marian"

    def __init__(self, source: UnigramTokenizer, target: UnigramTokenizer, vocabulary: Sequence[str]) -> None:
        self.source, self.target, self.vocabulary = source, target, list(vocabulary)
        self.vocab_size = len(self.vocabulary)
        if not all(isinstance(piece, str) for piece in self.vocabulary):
            raise TokenizerError("the vocabulary of a Marian tokenizer holds more than pieces")
        self._ids = {piece: i for i, piece in enumerate(self.vocabulary)}
        if len(self._ids) < self.vocab_size or not self._ids.keys() >= set(SPECIAL):
            raise TokenizerError(f"a Marian tokenizer has each piece once, and {', '.join(SPECIAL)}")
        self.special_ids = {
            piece: i
            for piece, i in self._ids.items()
            if piece in SPECIAL or re.fullmatch(">>[^<>]+<<", piece)
        }

    @property
    def tokens(self) -> list[str]:
        """The pieces, with a space where a word begins."""
        return [piece.replace(SPACE, " ") for piece in self.vocabulary]

    @property
    def character_counts(self) -> NDArray[np.int64]:
        """Characters of each piece, with the space before it; none of special tokens."""
        return np.array([0 if piece in self.special_ids else len(piece) for piece in self.vocabulary])

    def encode(self, text: str, allow_special: bool = False) -> NDArray[np.int32]:
        """Token ids of a source, 1-D int32, without the ``</s>`` that ends it for a model.

        Parameters
        ----------
        text : str
            Any text.
        allow_special : bool
            Whether a sign such as ``>>fr<<`` at its beginning becomes its own id.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        require_text(text)
        sign = re.match(">>[^<>]+<<", text) if allow_special else None
        if sign is None or sign[0] not in self._ids:
            return self._encode(self.source, text)
        rest = self._encode(self.source, text[sign.end() :])
        return np.concatenate([np.array([self._ids[sign[0]]], np.int32), rest])

    def encode_target(self, text: str) -> NDArray[np.int32]:
        """Token ids of a target, 1-D int32, without the ``</s>`` that ends it.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        return self._encode(self.target, text)

    def _encode(self, tokenizer: UnigramTokenizer, text: str) -> NDArray[np.int32]:
        unknown = self._ids["<unk>"]
        ids = [
            unknown if piece in self.special_ids else self._ids.get(piece, unknown)
            for piece in tokenizer.pieces(text)
        ]
        return np.array(ids, dtype=np.int32)

    def _decode(self, ids: np.ndarray) -> str:
        return "".join(self.vocabulary[i] for i in ids).replace(SPACE, " ").removeprefix(" ")

    def to_dict(self) -> dict[str, Any]:
        """Type, descriptions of both tokenizers, and vocabulary."""
        parts = {"source": self.source.description, "target": self.target.description}
        return {"type": self.type, **parts, "vocabulary": self.vocabulary}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "MarianTokenizer":
        """Build the tokenizer that `to_dict` gave.

        Raises
        ------
        TokenizerError
            If the fields are not those of this kind of tokenizer.
        """
        kinds = {"source": dict, "target": dict, "vocabulary": list}
        if not all(isinstance(fields.get(name), kind) for name, kind in kinds.items()):
            raise TokenizerError("these are not the fields of a tokenizer of type 'marian'")
        source, target = (UnigramTokenizer(fields[name]) for name in ("source", "target"))
        return cls(source, target, fields["vocabulary"])
