"""The tokenizer that was published with a model, from the same folder or file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..text import (
    BPETokenizer,
    ByteTokenizer,
    GPT2Tokenizer,
    MarianTokenizer,
    Tokenizer,
    TokenizerError,
    UnigramTokenizer,
    WordPieceTokenizer,
)
from ..text.gpt2 import SIGNS
from .folder import PretrainedError, find, line, read_json
from .gguf import read_header
from .spiece import ENDS, read_spiece
from .tokenizer_files import KIND

__all__ = ["load_pretrained_tokenizer"]

CONTROL = 3  # the type of a special token in GGUF
SINGLE_DIGITS = {"gpt-2": False, "default": False, "smollm": True}  # by how GGUF calls what cuts a text


def load_pretrained_tokenizer(path_or_name: str | os.PathLike[str]) -> Tokenizer:
    """Read the tokenizer of a model: byte-level BPE as GPT-2's, WordPiece as BERT's, Unigram as T5's.

    Parameters
    ----------
    path_or_name : path or str
        As for `load_pretrained`. In a folder, ``tokenizer.json``, ``spiece.model``, ``source.spm``
        and its like of Marian, ``vocab.txt``, or ``vocab.json`` and ``merges.txt`` is read.

    Raises
    ------
    PretrainedError
        If there is none, it is damaged, or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "atten", "##tion"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     WordPieceTokenizer(pieces).save_vocabulary(Path(folder, "vocab.txt"))
    ...     load_pretrained_tokenizer(folder).encode("Attention")
    array([5, 6], dtype=int32)
    """
    path = find(path_or_name)
    try:
        if path.suffix == ".gguf":
            return _of_gguf(path)
        settings = path / "tokenizer_config.json"
        about = read_json(settings) if settings.is_file() else {}
        if (path / "tokenizer.json").is_file():
            fields = read_json(path / "tokenizer.json")
            return _of_ours(fields) if KIND in about else _of_json(fields)
        if (path / "spiece.model").is_file():
            return _of_spiece(path, about)
        if (path / "source.spm").is_file():
            source, target = (_of_spm(path / name) for name in ("source.spm", "target.spm"))
            return MarianTokenizer(source, target, _in_order(read_json(path / "vocab.json")))
        if (path / "vocab.txt").is_file():
            lowercase = about.get("do_lower_case", True)
            return WordPieceTokenizer.from_vocab_file(path / "vocab.txt", lowercase is not False)
        if (path / "vocab.json").is_file():
            return _of_vocabulary_and_merges(path)
    except (TokenizerError, _UnknownError) as error:
        raise PretrainedError(f"the tokenizer of {str(path)!r} cannot be used: {line(error)}") from None
    names = "tokenizer.json, spiece.model, source.spm, vocab.txt or vocab.json"
    raise PretrainedError(f"{str(path)!r} holds no {names}")


class _UnknownError(Exception):
    """A setting that no tokenizer here has, or that is damaged."""


def _of_gguf(path: Path) -> Tokenizer:
    try:
        settings = read_header(path).settings
    except (OSError, ValueError) as error:
        raise _UnknownError(line(error)) from None
    kind, cuts = settings.get("tokenizer.ggml.model"), settings.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cuts not in SINGLE_DIGITS:
        raise _UnknownError(f"it is of the kind {kind!r}, cut as {cuts!r}")
    tokens, types, merges = (
        settings.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges")
    )
    if not (isinstance(tokens, list) and isinstance(types, list) and isinstance(merges, list)):
        raise _UnknownError("it lacks tokens, their types or merges")
    special = [token for token, type_ in zip(tokens, types, strict=False) if type_ == CONTROL]
    return GPT2Tokenizer(tokens, merges, special, SINGLE_DIGITS[cuts])


def _of_spiece(path: Path, about: dict[str, Any]) -> Tokenizer:
    """Read ``spiece.model``, with what the kind of model that it is for does beside it."""
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    kind = config.get("model_type") or str(about.get("tokenizer_class")).lower().partition("tokenizer")[0]
    extra_ids = about.get("extra_ids", 100)
    if type(extra_ids) is not int or not 0 <= extra_ids < 10_000:
        raise _UnknownError(f"extra_ids is {extra_ids!r}")
    return _of_spm(
        path / "spiece.model",
        kind=next((known for known in ENDS if known == kind), ""),
        extra_ids=extra_ids,
        lowercase=about.get("do_lower_case") is not False,
        keep_accents=about.get("keep_accents") is True,
    )


def _of_spm(path: Path, **settings: Any) -> UnigramTokenizer:
    """Read a model of SentencePiece."""
    try:
        description = read_spiece(path.read_bytes(), **settings)
    except (OSError, ValueError) as error:
        raise _UnknownError(f"{path.name}: {line(error)}") from None
    return UnigramTokenizer(description)


def _of_vocabulary_and_merges(path: Path) -> Tokenizer:
    """Read ``vocab.json`` and ``merges.txt``, as GPT-2 was published; its one special token is well known."""
    try:
        lines = (path / "merges.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _UnknownError(f"merges.txt: {line(error)}") from None
    merges = [text for text in lines if text and not text.startswith("#version")]
    vocabulary = _in_order(read_json(path / "vocab.json"))
    return GPT2Tokenizer(vocabulary, merges, [t for t in ("<|endoftext|>",) if t in vocabulary])


def _of_ours(fields: dict[str, Any]) -> Tokenizer:
    """Read what `save_pretrained_tokenizer` made of a `BPETokenizer` or `ByteTokenizer`, and nothing else."""
    try:
        ids = {token: i for i, token in enumerate(SIGNS)}
        merges = []
        for left, right in fields["model"]["merges"]:
            merges.append((ids[left], ids[right]))
            ids[left + right] = len(ids)
        made = BPETokenizer(merges, [token["content"] for token in fields["added_tokens"]])
    except (KeyError, TypeError, ValueError):
        raise _UnknownError("its merges are damaged") from None
    return made if made.vocab_size > len(SIGNS) else ByteTokenizer()


def _of_json(fields: dict[str, Any]) -> Tokenizer:
    """Make the tokenizer that a ``tokenizer.json`` of the ``tokenizers`` library describes."""
    model = fields.get("model")
    if isinstance(model, dict) and model.get("type") == "Unigram":
        return UnigramTokenizer(fields)
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise _UnknownError("it has no model with a vocabulary of tokens and their ids")
    added = fields.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise _UnknownError("its added_tokens are not a list of tokens")
    special = [token.get("content") for token in added]
    vocabulary = _in_order(model["vocab"] | {token.get("content"): token.get("id") for token in added})
    if model.get("type") == "WordPiece":
        cleaned = fields.get("normalizer") or {}
        expected = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        if not isinstance(cleaned, dict) or any(cleaned.get(key) != value for key, value in expected.items()):
            raise _UnknownError("its normalizer is not that of BERT")
        return WordPieceTokenizer(
            vocabulary, cleaned.get("lowercase") is not False, cleaned.get("strip_accents")
        )
    if model.get("type") not in ("BPE", None) or not isinstance(model.get("merges"), list):
        raise _UnknownError(
            f"its model is of the type {model.get('type')!r}, and BPE, WordPiece and Unigram are read"
        )
    unusual = [key for key in ("unk_token", "dropout", "byte_fallback", "ignore_merges") if model.get(key)]
    if unusual or fields.get("normalizer"):
        raise _UnknownError(f"it has {', '.join(unusual or ['a normalizer'])}, which GPT-2's has not")
    merges = [" ".join(map(str, merge)) if isinstance(merge, list) else merge for merge in model["merges"]]
    return GPT2Tokenizer(vocabulary, merges, special, _single_digits(fields.get("pre_tokenizer")))


def _single_digits(cuts: Any) -> bool:
    """Tell whether a text is cut at digits first, and then as GPT-2 does; refuse other cuts."""
    steps = cuts.get("pretokenizers") if isinstance(cuts, dict) and cuts.get("type") == "Sequence" else [cuts]
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False} as cut] if cut.get("use_regex", True):
            return False
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False} as cut,
        ] if cut.get("use_regex", True):
            return True
    raise _UnknownError("its pre_tokenizer does not cut a text as GPT-2's or SmolLM's")


def _in_order(ids: dict[Any, Any]) -> list[Any]:
    """Return the tokens in the order of their ids, which must count from 0 on."""
    order = {i: token for token, i in ids.items() if type(i) is int}
    if sorted(order) != list(range(len(ids))):
        raise _UnknownError(f"the ids of its {len(ids)} tokens are not 0 to {len(ids) - 1}")
    return [order[i] for i in range(len(ids))]
