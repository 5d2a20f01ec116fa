"""Language models, one file each."""

from .gpt import GPT, GPTConfig
from .ngram import NGram

__all__ = ["GPT", "GPTConfig", "NGram"]
