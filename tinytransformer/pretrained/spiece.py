"""The ``spiece.model`` of SentencePiece, which T5 and ALBERT were published with, as a ``tokenizer.json``."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["read_spiece"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # kinds of pieces
UNIGRAM = 1  # kind of model
SPACE = "▁"
ENDS = {"t5": ([], ["</s>"]), "albert": (["[CLS]"], ["[SEP]"])}  # what stands around a text


def read_spiece(
    data: bytes, kind: str = "", *, extra_ids: int = 100, lowercase: bool = True, keep_accents: bool = False
) -> dict[str, Any]:
    r"""Describe a Unigram model of SentencePiece as the ``tokenizers`` library does.

    Parameters
    ----------
    data : bytes
        Of the file: a message of Protocol Buffers, of which a few fields are needed.
    kind : {"", "t5", "albert"}
        What its model adds. T5 has signs ``<extra_id_0>``, … for what is cut out of a text after its pieces,
        the last first. ALBERT cleans a text, and takes no comma into the piece of a number.
    extra_ids : int
        How many signs T5 has.
    lowercase, keep_accents : bool
        How ALBERT cleans.

    Raises
    ------
    ValueError
        If the file is damaged, or its model is none that `UnigramTokenizer` can be.

    Examples
    --------
    >>> unknown, a = b"\x0a\x05<unk>\x18\x02", b"\x0a\x01a\x15" + struct.pack("<f", -1.5)
    >>> description = read_spiece(b"\x0a" + bytes([len(unknown)]) + unknown + b"\x0a" + bytes([len(a)]) + a)
    >>> description["model"]["vocab"]
    [['<unk>', 0.0], ['a', -1.5]]
    """
    try:
        fields = list(_fields(data))
        pieces = [_piece(value) for number, value in fields if number == 1]
        # a message that is there more than once is one
        trainer, normalizer = (
            dict(_fields(b"".join(v for n, v in fields if n == wanted))) for wanted in (2, 3)
        )
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError, struct.error):
        raise ValueError("its SentencePiece model is damaged") from None
    kinds = [kind for _, _, kind in pieces]
    if trainer.get(3, UNIGRAM) != UNIGRAM:
        raise ValueError("its SentencePiece model is no Unigram model")
    if kinds.count(UNKNOWN) != 1 or not set(kinds) <= {NORMAL, UNKNOWN, CONTROL, USER_DEFINED}:
        raise ValueError("its SentencePiece model has no unknown piece, or pieces that are bytes or unused")
    if trainer.get(24, 0) or not normalizer.get(4, 1):
        raise ValueError("its SentencePiece model ends its pieces with spaces, or keeps runs of them")
    charsmap = normalizer.get(2) or bytes(4)  # the bytes of a trie, the trie, and the texts it leads to
    twice = len({piece for piece, _, _ in pieces}) < len(pieces)
    if twice or not 0 <= struct.unpack("<I", charsmap[:4].ljust(4, b"\xff"))[0] <= len(charsmap) - 4:
        raise ValueError("its SentencePiece model is damaged")
    special = [i for i, each in enumerate(kinds) if each in (UNKNOWN, CONTROL)]
    vocab: list[list[Any]] = [
        [piece, score - 100 if kind == "albert" and re.search(r"\d,$", piece) else score]
        for piece, score, _ in pieces
    ]
    if kind == "t5":
        special += range(len(vocab), len(vocab) + extra_ids)
        vocab += [[f"<extra_id_{i}>", 0.0] for i in reversed(range(extra_ids))]
    steps = _albert_cleaning(lowercase, keep_accents) if kind == "albert" else []
    if len(charsmap) > 4:
        encoded = base64.b64encode(charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    steps += [_replace({"Regex": " {2,}"}, " "), _replace({"Regex": r"\A "}, "")]
    prefix = bool(normalizer.get(3, 1))
    steps += [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    steps += [_replace({"String": " "}, SPACE), _replace({"Regex": rf"{SPACE}+\z"}, "")]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    decoders = [_replace({"String": SPACE}, " "), {"type": "Fuse"}, *strip]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, vocab[i][0]) for i in special],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": _ends(kind, [piece for piece, _ in vocab]),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "Unigram", "unk_id": kinds.index(UNKNOWN), "vocab": vocab, "byte_fallback": False},
    }


def _albert_cleaning(lowercase: bool, keep_accents: bool) -> list[dict[str, Any]]:
    steps = [_replace({"String": quotes}, '"') for quotes in ("``", "''")]
    steps += [] if keep_accents else [{"type": "NFKD"}, {"type": "StripAccents"}]
    return [*steps, {"type": "Lowercase"}] if lowercase else steps


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _added(i: int, content: str) -> dict[str, Any]:
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **no, "special": True}


def _ends(kind: str, pieces: list[str]) -> dict[str, Any] | None:
    """Describe what the model expects before a text, and after each of one or two."""
    first, last = ENDS.get(kind, ([], []))
    if not last or not set(first + last) <= set(pieces):
        return None
    tokens = {token: {"id": token, "ids": [pieces.index(token)], "tokens": [token]} for token in first + last}

    def part(name: str, segment: int) -> list[dict[str, Any]]:
        marks = [{"SpecialToken": {"id": token, "type_id": segment}} for token in last]
        return [{"Sequence": {"id": name, "type_id": segment}}, *marks]

    single = [*({"SpecialToken": {"id": token, "type_id": 0}} for token in first), *part("A", 0)]
    pair = [*single, *part("B", int(kind == "albert"))]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def _piece(data: bytes) -> tuple[str, float, int]:
    """Return the text, the log-probability and the kind of a piece."""
    fields = dict(_fields(data))
    return fields[1].decode("utf-8"), struct.unpack("<f", fields.get(2, bytes(4)))[0], fields.get(3, NORMAL)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field of a message: an int, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[key & 7]
        if at + size > len(data):
            raise IndexError("a field that goes on after the end")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return an integer, which stands in groups of 7 bits, lowest first, and where it ends."""
    value = shift = 0
    while data[at] > 127:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
