"""Masks: which query may attend to which key."""

from __future__ import annotations

from typing import Any

import numpy

from ..backend import to_numpy, xp
from ..tensor import Tensor

__all__ = ["Mask"]


class Mask:
    """Which query may attend to which key: True means *may attend* (document section 3.2).

    Parameters
    ----------
    allowed : array_like of bool
        Shape (T_q, T_k) for all sequences, (batch, T_q, T_k) for each, or (batch, heads, T_q, T_k).
        An axis of length 1 stands for any length.

    Raises
    ------
    TypeError
        If the entries are not bool: floats of 0 and -inf, or 0/1 integers, would be read by guess.
    ValueError
        If there are not 2, 3 or 4 axes.

    Examples
    --------
    >>> from tinytransformer import Mask
    >>> Mask.causal(3)
    Mask of shape (3, 3), ■ may attend, · may not:
    ■ · ·
    ■ ■ ·
    ■ ■ ■
    >>> (Mask.causal(3) & Mask.padding([2, 3])).shape
    (2, 3, 3)
    """

    __slots__ = ("array", "is_causal")

    def __init__(self, allowed: Any):
        array = allowed.data if isinstance(allowed, Tensor) else xp.asarray(allowed)
        if array.dtype != bool:
            raise TypeError(
                f"Mask: entries must be bool with True = may attend, not {array.dtype}; "
                "write Mask(scores_to_add == 0) or Mask(zeros_and_ones != 0)"
            )
        if array.ndim not in (2, 3, 4):
            raise ValueError(
                f"Mask: shape {array.shape} is none of (T_q, T_k), (batch, T_q, T_k), "
                "(batch, heads, T_q, T_k); write mask[:, None, :] to give keys a query axis"
            )
        self.array = array
        self.is_causal = False  # True promises that nothing above the diagonal is allowed

    @classmethod
    def causal(cls, queries: int, keys: int | None = None) -> Mask:
        """Each position may attend to itself and what came before.

        Parameters
        ----------
        queries, keys : int
            T_q and T_k; with more keys than queries the last query sits at the last key, as it does when
            the keys of earlier positions come from a cache.

        Raises
        ------
        ValueError
            If there are fewer keys than queries.
        """
        keys = queries if keys is None else keys
        if keys < queries:
            raise ValueError(f"Mask.causal: {queries} queries need at least as many keys, not {keys}")
        mask = cls(xp.tril(xp.ones((queries, keys), dtype=bool), keys - queries))
        mask.is_causal = True
        return mask

    @classmethod
    def padding(cls, lengths: Any, length: int | None = None) -> Mask:
        """Let every query attend to the first ``lengths[b]`` keys of sequence b.

        Parameters
        ----------
        lengths : sequence of int, shape (batch,)
            Tokens of each sequence, before the padding at its end.
        length : int, optional
            T_k; the longest sequence by default.
        """
        counts = numpy.asarray(to_numpy(lengths))
        length = int(counts.max()) if length is None else length
        return cls(xp.asarray(numpy.arange(length) < counts[:, None])[:, None, :])

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, as in the constructor."""
        return self.array.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        return numpy.array(to_numpy(self.array), dtype=dtype, copy=copy)

    def __and__(self, other: Mask) -> Mask:
        if not isinstance(other, Mask):
            raise TypeError(f"Mask & {type(other).__name__}: wrap the other operand in Mask(...)")
        ndim = max(len(self.shape), len(other.shape))
        both = Mask(_with_axes(self.array, ndim) & _with_axes(other.array, ndim))
        both.is_causal = any(m.is_causal and m.shape[-2:] == both.shape[-2:] for m in (self, other))
        return both

    def __repr__(self) -> str:
        array = to_numpy(self.array)
        grid = array.reshape(-1, *array.shape[-2:])[0][:20, :40]
        rows = "\n".join(" ".join("■" if allowed else "·" for allowed in row) for row in grid)
        return f"Mask of shape {self.shape}, ■ may attend, · may not:\n{rows}"


def _with_axes(array: Any, ndim: int) -> Any:
    """Insert the axes a mask leaves out: heads after batch, batch in front."""
    if array.ndim == 3 and ndim == 4:
        return array[:, None]
    return array[(None,) * (ndim - array.ndim)]


def fitted(mask: Any, shape: tuple[int, ...], module: Any = xp) -> Any:
    """Return the array of a mask with the axes of scores (..., T_q, T_k), as an array of this module."""
    if not isinstance(mask, Mask):
        raise TypeError(
            f"a mask must be a tinytransformer.Mask, not {type(mask).__name__}: "
            "write Mask(allowed) with True = may attend"
        )
    array = module.asarray(mask.array)
    if array.ndim < len(shape):
        array = _with_axes(array, len(shape))
    if array.ndim != len(shape) or any(m not in (1, n) for m, n in zip(array.shape, shape, strict=True)):
        raise ValueError(
            f"mask of shape {mask.shape} does not fit scores of shape {tuple(shape)}: "
            "its axes are (T_q, T_k), (batch, T_q, T_k) or (batch, heads, T_q, T_k)"
        )
    return array
