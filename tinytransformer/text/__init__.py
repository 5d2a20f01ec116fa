"""Text in, batches of token ids out: corpora, tokenizers, token files, splits and batches."""

from tinytransformer.text.batches import Batches, TokenFile, split, windows
from tinytransformer.text.corpora import (
    TextError,
    fingerprint,
    iterate_text,
    read_text,
    stdlib_docstrings,
    stdlib_documentation,
    stdlib_modules,
    stdlib_topics,
)
from tinytransformer.text.gpt2 import GPT2Tokenizer
from tinytransformer.text.marian import MarianTokenizer
from tinytransformer.text.objectives import (
    SentencePair,
    corrupt_spans,
    mask_tokens,
    next_token,
    pad,
    sentence_pairs,
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
from tinytransformer.text.unigram import UnigramTokenizer
from tinytransformer.text.wordpiece import WordPieceTokenizer

__all__ = [
    "BPETokenizer",
    "Batches",
    "ByteTokenizer",
    "CharacterTokenizer",
    "GPT2Tokenizer",
    "MarianTokenizer",
    "SentencePair",
    "TextError",
    "TokenFile",
    "Tokenizer",
    "TokenizerError",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "corrupt_spans",
    "fingerprint",
    "iterate_text",
    "load_tokenizer",
    "mask_tokens",
    "next_token",
    "pad",
    "read_text",
    "sentence_pairs",
    "split",
    "stdlib_docstrings",
    "stdlib_documentation",
    "stdlib_modules",
    "stdlib_topics",
    "tokenizer_from_dict",
    "windows",
]
