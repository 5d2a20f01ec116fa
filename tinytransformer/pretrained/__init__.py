"""Real checkpoints in and out: the files of Hugging Face's ``transformers``, read by their keys."""

from .embedding import sentence_embeddings
from .folder import PretrainedError
from .loading import load_pretrained, save_pretrained
from .retrieval import nearest, retrieval_scores, summaries_and_bodies, word_overlap
from .template import load_chat_template
from .tokenizer import load_pretrained_tokenizer
from .tokenizer_files import save_pretrained_tokenizer

__all__ = [
    "PretrainedError",
    "load_chat_template",
    "load_pretrained",
    "load_pretrained_tokenizer",
    "nearest",
    "retrieval_scores",
    "save_pretrained",
    "save_pretrained_tokenizer",
    "sentence_embeddings",
    "summaries_and_bodies",
    "word_overlap",
]
