"""Real checkpoints in and out: the files of Hugging Face's ``transformers``, read by their keys."""

from .embedding import sentence_embeddings
from .folder import PretrainedError
from .loading import load_pretrained, save_pretrained
from .tokenizer import load_pretrained_tokenizer

__all__ = [
    "PretrainedError",
    "load_pretrained",
    "load_pretrained_tokenizer",
    "save_pretrained",
    "sentence_embeddings",
]
