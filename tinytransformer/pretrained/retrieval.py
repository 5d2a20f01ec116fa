"""Finding a text by its meaning, and how well that works beside comparing words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

__all__ = ["RetrievalScores", "nearest", "retrieval_scores", "summaries_and_bodies", "word_overlap"]

BODY_CHARACTERS = 400  # what of a body is read: embedding more takes longer and tells little more


class RetrievalScores(NamedTuple):
    """How often the right text comes first, and the mean of one over its place."""

    first: float
    mean_reciprocal_rank: float


def nearest(vectors: Any, query: Any, k: int) -> list[tuple[int, float]]:
    """Return the places of the k vectors with the largest product with the query, and these products.

    Parameters
    ----------
    vectors : array, shape (n, d)
        Of length 1 each, as those of `sentence_embeddings`: the products are cosines.
    query : array, shape (d,)
    k : int

    Examples
    --------
    >>> import numpy as np
    >>> nearest(np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]), np.array([1.0, 0.0]), k=2)
    [(1, 1.0), (2, 0.6)]
    """
    products = vectors @ query  # (n,)
    return [(int(i), float(products[i])) for i in numpy.argsort(-products, kind="stable")[:k]]


def retrieval_scores(similarity: Any) -> RetrievalScores:
    """Score a search: row i says how near each text is to query i, for which text i is the right one.

    Of texts that are equally near, the right one counts as the last: a constant finds nothing.

    Parameters
    ----------
    similarity : array, shape (n, n)

    Examples
    --------
    >>> import numpy as np
    >>> retrieval_scores(np.array([[0.9, 0.1], [0.8, 0.2]]))
    RetrievalScores(first=0.5, mean_reciprocal_rank=0.75)
    """
    similarity = numpy.asarray(similarity)
    ranks = (similarity >= similarity.diagonal()[:, None]).sum(axis=1)  # (n,) from 1 on
    return RetrievalScores(float((ranks == 1).mean()), float((1 / ranks).mean()))


def word_overlap(queries: Sequence[str], texts: Sequence[str]) -> NDArray[numpy.float64]:
    r"""Return which part of the words of each query and each text they share: the baseline of a search.

    .. math:: |A \cap B| / |A \cup B|

    Examples
    --------
    >>> word_overlap(["Open a file"], ["a file is opened", "cats"])
    array([[0.4, 0. ]])
    """
    a, b = ([set(re.findall(r"\w+", text.lower())) for text in those] for those in (queries, texts))
    return numpy.array([[len(x & y) / max(len(x | y), 1) for y in b] for x in a])


def summaries_and_bodies(docstrings: Iterable[str], number: int) -> tuple[list[str], list[str]]:
    r"""Return first lines of docstrings, and what follows each: what a search should find by it.

    Parameters
    ----------
    docstrings : iterable of str
        For example those of `stdlib_docstrings`. Too short ones are left out, and repeated first lines.
    number : int
        How many to return at most, from all over them.

    Examples
    --------
    >>> docstring = "Open a file and read it.\n\n" + "All of its text is returned. " * 9
    >>> summaries_and_bodies([docstring, docstring, "Too short."], number=5)[0]
    ['Open a file and read it.']
    """
    pairs: dict[str, str] = {}  # a summary once
    for docstring in docstrings:
        summary, _, body = docstring.partition("\n\n")
        body = " ".join(body.split())
        if 20 <= len(summary) <= 100 and "\n" not in summary and len(body) >= 100 and summary not in body:
            pairs.setdefault(summary, body[:BODY_CHARACTERS])
    chosen = numpy.linspace(0, len(pairs) - 1, min(number, len(pairs))).round().astype(int)
    summaries = [list(pairs)[i] for i in chosen]
    return summaries, [pairs[summary] for summary in summaries]
