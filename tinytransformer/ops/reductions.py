"""Primitives that reduce over axes, or accumulate along one."""

from __future__ import annotations

import math

from ..autograd import primitive, raw
from ..backend import xp
from .elementwise import exp, where
from .shapes import broadcast_to, expand_dims, flip, reshape, transpose

__all__ = ["cumsum", "logsumexp", "max", "mean", "min", "prod", "std", "sum", "var"]


def _kept(g, axis, keepdims):
    """Put back the axes that were reduced away, with length 1, so that g broadcasts against the input."""
    return g if axis is None or keepdims else expand_dims(g, axis)


def _count(x, axis):
    """How many entries were reduced to one."""
    if axis is None:
        return x.size
    return math.prod(x.shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))


@primitive
def sum(x, axis=None, keepdims=False):
    """Sum over axes.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.sum(np.arange(6.0).reshape(2, 3), axis=1)
    array([ 3., 12.])
    """
    return xp.sum(x, axis=axis, keepdims=keepdims)


sum.vjp(lambda g, y, x, axis=None, keepdims=False: broadcast_to(_kept(g, axis, keepdims), x.shape))


@primitive
def mean(x, axis=None, keepdims=False):
    """Arithmetic mean over axes.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.mean(np.arange(6.0).reshape(2, 3), axis=1)
    array([1., 4.])
    """
    return xp.mean(x, axis=axis, keepdims=keepdims)


mean.vjp(
    lambda g, y, x, axis=None, keepdims=False: broadcast_to(
        _kept(g / _count(x, axis), axis, keepdims), x.shape
    )
)


@primitive
def max(x, axis=None, keepdims=False):
    """Largest entry over axes; equal ones share the gradient.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.max(np.array([[3.0, 1.0], [2.0, 5.0]]), axis=1)
    array([3., 5.])
    """
    return xp.max(x, axis=axis, keepdims=keepdims)


@primitive
def min(x, axis=None, keepdims=False):
    """Smallest entry over axes; equal ones share the gradient.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.min(np.array([[3.0, 1.0], [2.0, 5.0]]), axis=1)
    array([1., 2.])
    """
    return xp.min(x, axis=axis, keepdims=keepdims)


def _shared_extremum(g, y, x, axis=None, keepdims=False):
    best = raw(x) == raw(_kept(y, axis, keepdims))
    return _kept(g, axis, keepdims) * (best / best.sum(axis=axis, keepdims=True))


max.vjp(_shared_extremum)
min.vjp(_shared_extremum)


@primitive
def var(x, axis=None, ddof=0, keepdims=False):
    """Variance over axes: the sum of (x - mean)^2 divided by n - ddof.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.var(np.array([1.0, 2.0, 3.0]), ddof=1)
    np.float64(1.0)
    """
    return xp.var(x, axis=axis, ddof=ddof, keepdims=keepdims)


var.vjp(
    lambda g, y, x, axis=None, ddof=0, keepdims=False: (
        _kept(2 * g / (_count(x, axis) - ddof), axis, keepdims) * (x - mean(x, axis, keepdims=True))
    )
)


@primitive
def std(x, axis=None, ddof=0, keepdims=False):
    """Take the standard deviation over axes, the square root of `var`; its gradient at 0 is not finite.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.std(np.array([1.0, 2.0, 3.0]), ddof=1)
    np.float64(1.0)
    """
    return xp.std(x, axis=axis, ddof=ddof, keepdims=keepdims)


std.vjp(
    lambda g, y, x, axis=None, ddof=0, keepdims=False: (
        _kept(g / y / (_count(x, axis) - ddof), axis, keepdims) * (x - mean(x, axis, keepdims=True))
    )
)


@primitive
def logsumexp(x, axis=None, keepdims=False):
    """Take the logarithm of the sum of e^x over axes, without overflow: the largest entry is taken out first.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.logsumexp(np.array([[1000.0, 1000.0]]), axis=1).round(3)
    array([1000.693])
    """
    m = xp.max(x, axis=axis, keepdims=True)
    m = xp.where(xp.isfinite(m), m, 0)
    total = xp.sum(xp.exp(x - m), axis=axis, keepdims=True)
    y = xp.log(xp.maximum(total, xp.finfo(total.dtype).smallest_subnormal)) + m
    y = xp.where(total > 0, y, -xp.inf)  # nothing but -inf: the sum is 0
    return y if keepdims else xp.reshape(y, xp.sum(x, axis=axis).shape)


logsumexp.vjp(
    lambda g, y, x, axis=None, keepdims=False: (
        _kept(g, axis, keepdims) * exp(x - _kept(_finite(y), axis, keepdims))
    )
)


def _finite(y):
    """Put 0 for -inf, so that -inf - y is still -inf."""
    return where(xp.isfinite(raw(y)), y, 0)


@primitive
def cumsum(x, axis=None):
    """Cumulative sum along an axis; over all entries in order by default.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.cumsum(np.array([1.0, 2.0, 3.0]))
    array([1., 3., 6.])
    """
    return xp.cumsum(x, axis=axis)


cumsum.vjp(lambda g, y, x, axis=None: reshape(flip(cumsum(flip(g, axis), axis), axis), x.shape))


@primitive
def prod(x, axis=None, keepdims=False):
    """Product over axes.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.prod(np.array([[2.0, 3.0], [4.0, 5.0]]), axis=1)
    array([ 6., 20.])
    """
    return xp.prod(x, axis=axis, keepdims=keepdims)


def _prod_rule(g, y, x, axis=None, keepdims=False):
    if (raw(x) != 0).all():
        return _kept(g * y, axis, keepdims) / x
    return _kept(g, axis, keepdims) * _product_of_others(x, axis)


def _product_of_others(x, axis):
    """For each entry, the product of the others: n products of n factors, right also where one is 0."""
    over = tuple(range(x.ndim)) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    over = tuple(a % x.ndim for a in over)
    kept = tuple(a for a in range(x.ndim) if a not in over)
    front = transpose(x, kept + over)  # (*kept, *over)
    n = math.prod(x.shape[a] for a in over)
    rows = reshape(front, (*front.shape[: len(kept)], 1, n))  # (*kept, 1, n)
    own = xp.eye(n, dtype=bool)  # row i leaves factor i out
    others = prod(where(own, 1, rows), axis=-1)  # (*kept, n)
    back = tuple(int(i) for i in sorted(range(x.ndim), key=(kept + over).__getitem__))
    return transpose(reshape(others, front.shape), back)


prod.vjp(_prod_rule)
