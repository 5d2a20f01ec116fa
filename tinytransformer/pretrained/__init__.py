"""Real checkpoints in and out: the files of Hugging Face's ``transformers``, read by their keys."""

from .folder import PretrainedError
from .loading import load_pretrained, save_pretrained

__all__ = ["PretrainedError", "load_pretrained", "save_pretrained"]
