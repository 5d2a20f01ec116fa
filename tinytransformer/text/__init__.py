"""Text in, batches of token ids out: corpora, tokenizers, token files, splits and batches."""

from tinytransformer.text.batches import Batches, TokenFile, split, windows
from tinytransformer.text.corpora import (
    TextError,
    fingerprint,
    iterate_text,
    read_text,
    stdlib_docstrings,
    stdlib_documentation,
)
from tinytransformer.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    TokenizerError,
    load_tokenizer,
    tokenizer_from_dict,
)

__all__ = [
    "BPETokenizer",
    "Batches",
    "ByteTokenizer",
    "CharacterTokenizer",
    "TextError",
    "TokenFile",
    "Tokenizer",
    "TokenizerError",
    "fingerprint",
    "iterate_text",
    "load_tokenizer",
    "read_text",
    "split",
    "stdlib_docstrings",
    "stdlib_documentation",
    "tokenizer_from_dict",
    "windows",
]
