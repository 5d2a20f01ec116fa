"""The tokenizer of T5: pieces with probabilities, and of all ways to cut a text the most likely one."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytransformer.text.tokenizers import Tokenizer, TokenizerError, require_text

__all__ = ["UnigramTokenizer"]

SPACE = "▁"  # begins the pieces that begin a word


class UnigramTokenizer(Tokenizer):
    r"""Pieces :math:`x_i` of a text, cut so that the product of their probabilities is greatest.

    .. math:: \arg\max_{x_1 \dots x_n} \prod_i p(x_i)

    How it cleans a text and cuts it is left to the ``tokenizers`` library
    (``pip install "tinytransformer[pretrained]"``). Ids do not tell everything about a text: runs of spaces
    become one.

    Parameters
    ----------
    description : dict
        What ``tokenizer.json`` holds.

    Attributes
    ----------
    special_ids : dict of str to int
        Ids of the special tokens, such as ``"</s>"`` and ``"<extra_id_0>"``.

    Raises
    ------
    TokenizerError
        If it describes no Unigram tokenizer, or the library is not installed.

    Notes
    -----
    Source: Kudo, Subword Regularization, 2018, section 3.2; Kudo and Richardson, SentencePiece, 2018.

    Examples
    --------
    >>> pieces = [["<unk>", 0.0], ["▁a", -1.5], ["t", -2.0], ["▁at", -3.0]]
    >>> steps = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}}
    >>> model = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}
    >>> tokenizer = UnigramTokenizer({"version": "1.0", "added_tokens": [], **steps, "model": model})
    >>> tokenizer.encode("at a")  # " at" costs 3, " a" and "t" cost 3.5 together
    array([3, 1], dtype=int32)
    """

    type = "unigram"
    _lists = frozenset()

    def __init__(self, description: dict[str, Any]) -> None:
        try:
            import tokenizers
        except ImportError:
            raise TokenizerError(
                'a Unigram tokenizer needs the tokenizers library: pip install "tinytransformer[pretrained]"'
            ) from None
        self.description = description
        model = description.get("model")
        if not isinstance(model, dict) or model.get("type") != "Unigram":
            raise TokenizerError("this describes no Unigram tokenizer")
        try:
            self._library = tokenizers.Tokenizer.from_str(json.dumps(description))
            self._of_text = tokenizers.Tokenizer.from_str(json.dumps(_without_special(description)))
        except Exception as error:  # the library raises no narrower one
            raise TokenizerError(f"the description of a Unigram tokenizer is damaged: {error}") from None
        for library in (self._library, self._of_text):
            library.no_truncation()
            library.no_padding()
        self.vocab_size = self._library.get_vocab_size()
        added = self._library.get_added_tokens_decoder()
        self.special_ids = {token.content: i for i, token in added.items() if token.special}
        if any(self._library.id_to_token(i) is None for i in range(self.vocab_size)):
            raise TokenizerError(
                f"the ids of its {self.vocab_size} tokens are not 0 to {self.vocab_size - 1}"
            )

    @property
    def tokens(self) -> list[str]:
        """The pieces, with a space where a word begins."""
        return [str(self._library.id_to_token(i)).replace(SPACE, " ") for i in range(self.vocab_size)]

    @property
    def character_counts(self) -> NDArray[np.int64]:
        """Characters of each piece, with the space before it; none of special tokens."""
        special = set(self.special_ids.values())
        return np.array([0 if i in special else len(token) for i, token in enumerate(self.tokens)])

    def encode(self, text: str, allow_special: bool = False) -> NDArray[np.int32]:
        """Token ids of a text, 1-D int32, without the ``</s>`` that ends it for T5.

        Parameters
        ----------
        text : str
            Any text.
        allow_special : bool
            Whether a special token written in the text, such as ``<extra_id_0>``, becomes its own id.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        return np.array(self._encode(text, allow_special).ids, dtype=np.int32)

    def pieces(self, text: str) -> list[str]:
        """Cut a text into pieces, with ``▁`` where a word begins; what none spells is one, as it stands.

        Raises
        ------
        TypeError
            If `text` is not a string.
        """
        return list(self._encode(text, allow_special=False).tokens)

    def _encode(self, text: str, allow_special: bool) -> Any:
        require_text(text)
        library = self._library if allow_special else self._of_text
        whole = text.encode("utf-8", "replace").decode("utf-8")  # a half of a surrogate pair is no character
        return library.encode(whole, add_special_tokens=False)

    def _decode(self, ids: np.ndarray) -> str:
        return self._library.decode(ids.tolist(), skip_special_tokens=False)

    def to_dict(self) -> dict[str, Any]:
        """Type and description."""
        return {"type": self.type, "description": self.description}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "UnigramTokenizer":
        """Build the tokenizer that `to_dict` gave.

        Raises
        ------
        TokenizerError
            If the fields are not those of this kind of tokenizer.
        """
        if not isinstance(fields, dict) or not isinstance(fields.get("description"), dict):
            raise TokenizerError("these are not the fields of a tokenizer of type 'unigram'")
        return cls(fields["description"])


def _without_special(description: dict[str, Any]) -> dict[str, Any]:
    """Describe the same pieces and ids, but with special tokens spelt as no text is: with a space in them."""
    special = {token["content"] for token in description["added_tokens"] if token["special"]}
    model = description["model"]
    vocab = [[f" {piece} " if piece in special else piece, score] for piece, score in model["vocab"]]
    others: dict[str, Any] = {"added_tokens": [], "post_processor": None}
    return {**description, **others, "model": {**model, "vocab": vocab}}
