"""What models have in common whose weights others publish: they are read from files, and written to them."""

from __future__ import annotations

import os
from typing import Any

import numpy

from ..nn import Module

__all__ = ["PretrainedModel"]


class PretrainedModel(Module):
    """A Module that the files of Hugging Face's ``transformers`` have a place for."""

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        dtype: Any = None,
        rng: numpy.random.Generator | None = None,
    ) -> Any:
        """Read a model from a folder, a GGUF file, or the Hugging Face Hub: `pretrained.load_pretrained`.

        ``BERT.from_pretrained`` returns whatever head the file has; each head's own method, only that one.
        The model is in evaluation mode.
        """
        from ..pretrained import load_pretrained

        return load_pretrained(path_or_name, cls, dtype, rng)

    def save_pretrained(
        self, folder: str | os.PathLike[str], tokenizer: Any = None, max_shard_size: int | str = "5GB"
    ) -> None:
        """Write a folder that ``transformers`` reads, with the tokenizer: `pretrained.save_pretrained`."""
        from ..pretrained import save_pretrained

        save_pretrained(self, folder, tokenizer, max_shard_size)
