"""Tokenizers of ours as files that ``tokenizers`` and ``transformers`` read."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from ..text import (
    BPETokenizer,
    ByteTokenizer,
    GPT2Tokenizer,
    Tokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)
from ..text.gpt2 import SIGNS
from ..text.tokenizers import _HAN as HAN
from ..text.tokenizers import _LONGEST as LONGEST
from ..text.tokenizers import atomic_file
from .folder import PretrainedError

__all__ = ["save_pretrained_tokenizer"]

KIND = "tinytransformer"  # in tokenizer_config.json, for the kinds that only this library has
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
WHOLE = {**BYTE_LEVEL, "use_regex": False}  # signs for bytes, and no cuts
DIGITS = {"type": "Digits", "individual_digits": True}


def save_pretrained_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike[str]) -> None:
    """Write a tokenizer into the folder of a model: ``tokenizer.json`` and what else its kind has.

    ``tokenizers`` and ``transformers`` make of it a tokenizer with equal ids, `load_pretrained_tokenizer`
    the same as it was. A special token that is written in a text is always one there; `encode` here asks
    for ``allow_special=True``.

    Parameters
    ----------
    tokenizer : Tokenizer
        A `WordPieceTokenizer`, which gets a ``vocab.txt`` too, a `GPT2Tokenizer`, `UnigramTokenizer`,
        `BPETokenizer` or `ByteTokenizer`.
    folder : path
        Made if missing.

    Raises
    ------
    PretrainedError
        If no such file can hold it.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "atten", "##tion"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pretrained_tokenizer(tokenizer, folder)
    ...     sorted(os.listdir(folder))
    ['tokenizer.json', 'tokenizer_config.json', 'vocab.txt']
    """
    files = tokenizer_files(tokenizer)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_file(Path(folder, name)) as file:
            file.write(content)


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the content of each file of a tokenizer; arguments and errors as above."""
    if isinstance(tokenizer, WordPieceTokenizer):
        description, settings = _wordpiece(tokenizer)
    elif isinstance(tokenizer, GPT2Tokenizer):
        cuts = {"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}
        vocabulary, merges = tokenizer.vocabulary, [merge.split(" ") for merge in tokenizer.merges]
        description = _byte_level(vocabulary, merges, cuts if tokenizer.single_digits else BYTE_LEVEL)
        description["added_tokens"] = _added(tokenizer.special_ids)
        settings = {}
    elif isinstance(tokenizer, ByteTokenizer):
        description, settings = _byte_level(SIGNS, [], WHOLE), {KIND: tokenizer.type}
    elif isinstance(tokenizer, UnigramTokenizer):
        description, settings = tokenizer.description, {}
    elif isinstance(tokenizer, BPETokenizer):
        description, settings = _bpe(tokenizer), {KIND: tokenizer.type}
    else:
        raise PretrainedError(
            f"no file of Hugging Face has a place for a {type(tokenizer).__name__}: "
            "it takes WordPieceTokenizer, GPT2Tokenizer, UnigramTokenizer, BPETokenizer and ByteTokenizer"
        )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": int(1e30), **settings}
    files = {"tokenizer.json": _json(description), "tokenizer_config.json": _json(settings, indent=2)}
    if isinstance(tokenizer, WordPieceTokenizer):
        files["vocab.txt"] = "".join(f"{piece}\n" for piece in tokenizer.vocabulary).encode("utf-8")
    return files


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")


def _added(ids: dict[str, int]) -> list[dict[str, Any]]:
    """Describe special tokens: they stand for themselves, wherever they are written."""
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": i, "content": token, **no, "special": True} for token, i in ids.items()]


def _described(model: dict[str, Any], **steps: Any) -> dict[str, Any]:
    """Fill up a description with the steps that do nothing."""
    none = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", **dict.fromkeys(none), "added_tokens": [], **steps, "model": model}


def _wordpiece(tokenizer: WordPieceTokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    ids = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    special = {tokenizer.vocabulary[i]: i for i in tokenizer.special_ids}
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    last = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
    how = {"lowercase": tokenizer.lowercase, "strip_accents": tokenizer.strip_accents}
    cleaned = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, **how}
    description = _described(
        {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
        added_tokens=_added(special),
        normalizer=cleaned,
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor={
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, second, last],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": tokenizer.lowercase}
    settings |= {"strip_accents": tokenizer.strip_accents, "tokenize_chinese_chars": True}
    settings |= {f"{token[1:-1].lower()}_token": token for token in special}
    return description, settings


def _byte_level(vocabulary: list[str], merges: list[list[str]], cuts: dict[str, Any]) -> dict[str, Any]:
    no = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    no |= dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    ids = {token: i for i, token in enumerate(vocabulary)}
    return _described(
        {"type": "BPE", **no, "vocab": ids, "merges": merges}, pre_tokenizer=cuts, decoder=BYTE_LEVEL
    )


def _bpe(tokenizer: BPETokenizer) -> dict[str, Any]:
    spelt = list(SIGNS)  # id -> a sign for each byte
    merges = []
    for left, right in tokenizer.merges:
        merges.append([spelt[left], spelt[right]])
        spelt.append(spelt[left] + spelt[right])
    if len(set(spelt)) < len(spelt):
        raise PretrainedError(
            "no file of Hugging Face has a place for this BPETokenizer: two of its merges make the same token"
        )
    special = {token: len(spelt) + i for i, token in enumerate(tokenizer.special_tokens)}
    cuts = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _cuts()}, "behavior": "Isolated", "invert": False},
            WHOLE,
        ],
    }
    description = _byte_level(spelt, merges, cuts)
    description["added_tokens"] = _added(special)
    return description


def _cuts() -> str:
    """Spell out where a `BPETokenizer` cuts: each library has its own letters and spaces."""
    every = "".join(map(chr, range(sys.maxunicode + 1)))

    def ranges(pattern: str) -> str:
        runs = re.finditer(f"(?:{pattern})+", every)
        return "".join(rf"\x{{{run.start():X}}}-\x{{{run.end() - 1:X}}}" for run in runs)

    letter, digit, white, word = map(ranges, (rf"[^\W\d_{HAN}]", r"\d", r"\s", r"\w"))
    return "|".join(
        (
            f" ?[{letter}]{{1,{LONGEST}}}",
            f" ?[{ranges(f'[{HAN}]')}]{{1,{LONGEST}}}",
            f" ?[{digit}]{{1,3}}",
            f" ?(?:[^{white}{word}]|_){{1,{LONGEST}}}",
            f"[{white}]{{1,{LONGEST}}}(?![^{white}])",
            f"[{white}]{{1,{LONGEST}}}",
        )
    )
