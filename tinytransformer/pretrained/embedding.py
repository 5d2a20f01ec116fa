"""Vectors of sentences: texts that mean much the same have nearly the same direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from ..autograd import no_grad
from ..text import WordPieceTokenizer, pad
from ..text.tokenizers import progress_bar

__all__ = ["sentence_embeddings"]


def sentence_embeddings(
    model: Any,
    tokenizer: WordPieceTokenizer,
    texts: Sequence[str],
    batch_size: int = 32,
    progress: bool = False,
) -> NDArray[Any]:
    r"""Embed each text as the mean of what an encoder makes of its tokens, scaled to length 1.

    .. math:: e = \frac{m}{\lVert m \rVert}, \qquad m = \frac{1}{T} \sum_{t=1}^{T} h_t

    Parameters
    ----------
    model : BERT
        Trained for it, as MiniLM is; in evaluation mode.
    tokenizer : WordPieceTokenizer
        That of the model.
    texts : sequence of str
        Cut off where the positions of the model end.
    batch_size : int
        How many run at once.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray, shape (texts, d_model)
        The product of two rows is the cosine of the angle between them.

    Raises
    ------
    TypeError
        If ``texts`` is a single string.

    Notes
    -----
    Source: Reimers and Gurevych, Sentence-BERT, 2019, section 3.

    Examples
    --------
    >>> from tinytransformer.models import BERT, BERTConfig
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog"])
    >>> model = BERT(BERTConfig(vocab_size=7, d_model=12, num_layers=1, num_heads=3, d_ff=24)).eval()
    >>> vectors = sentence_embeddings(model, tokenizer, ["cat", "dog cat", "dog"])
    >>> vectors.shape, (vectors @ vectors.T).diagonal().round(4)
    ((3, 12), array([1., 1., 1.], dtype=float32))
    """
    if isinstance(texts, str):
        raise TypeError("sentence_embeddings: texts is a list of strings; write [text] for a single one")
    longest = model.config.max_positions
    rows = [tokenizer.encode_pair(text, max_length=longest)[0] for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # texts of a batch are about equally long
    dtype = model.token_embedding.weight.dtype
    vectors = numpy.zeros((len(rows), model.config.d_model), dtype)
    with no_grad(), progress_bar(progress, len(rows), "embedding", "text") as advance:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = pad([rows[i] for i in chosen], tokenizer.pad_id)  # (batch, T)
            hidden = model(ids, mask).hidden.numpy()  # (batch, T, d_model)
            mean = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            vectors[chosen] = mean / numpy.linalg.norm(mean, axis=1, keepdims=True)
            advance(len(chosen))
    return vectors
