"""Primitives that pick entries by index, and the one that puts them back."""

from __future__ import annotations

from ..autograd import primitive, raw
from ..backend import module_of, xp

__all__ = ["getitem", "scatter_add", "sort", "take", "take_along_axis", "topk"]


def plain_index(index):
    """Replace the Tensors in an index by their arrays."""
    return tuple(raw(i) for i in index) if isinstance(index, tuple) else raw(index)


@primitive
def getitem(x, index):
    """``x[index]``, for every kind of index NumPy knows: slices, integers, masks, arrays, None, Ellipsis.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.getitem(np.array([[1.0, 2.0], [3.0, 4.0]]), (slice(None), 1))
    array([2., 4.])
    """
    return x[plain_index(index)]


@primitive
def scatter_add(x, index, updates):
    """Return a copy of x with ``updates`` added at ``x[index]``; an index given twice is added to twice.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.scatter_add(np.zeros(3), np.array([0, 2, 2]), np.array([1.0, 5.0, 5.0]))
    array([ 1.,  0., 10.])
    """
    out = x.astype(xp.result_type(x, updates))  # a copy
    index = plain_index(index)
    if _is_basic(index):
        out[index] += updates
    else:
        xp.add.at(out, index, updates)
    return out


def _is_basic(index):
    """Slices and single integers name no entry twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or isinstance(i, (int, slice)) for i in parts)


getitem.vjp(lambda g, y, x, index: scatter_add(xp.zeros_like(raw(x)), index, g))

scatter_add.vjp(
    lambda g, y, x, index, updates: g,
    None,
    lambda g, y, x, index, updates: getitem(g, index),
)


@primitive
def take(x, indices, axis=None):
    """Take the entries or slices at integer indices along an axis; of all entries in order by default.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.take(np.array([[1.0, 2.0], [3.0, 4.0]]), [1, 1, 0], axis=0)
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """
    return xp.take(x, raw(indices), axis)


def _take_rule(g, y, x, indices, axis=None):
    if axis is None:
        return scatter_add(xp.zeros(x.size, g.dtype), indices, g).reshape(x.shape)
    index = (slice(None),) * (axis % x.ndim) + (raw(indices),)
    return scatter_add(xp.zeros_like(raw(x)), index, g)


take.vjp(_take_rule)


@primitive
def take_along_axis(x, indices, axis=-1):
    """Take, in every slice along an axis, the entries at the indices given for that slice.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.take_along_axis(np.array([[3.0, 1.0], [2.0, 5.0]]), np.array([[1], [0]]), axis=1)
    array([[1.],
           [2.]])
    """
    return xp.take_along_axis(x, raw(indices), axis)


def _take_along_axis_rule(g, y, x, indices, axis=-1):
    indices = raw(indices)
    if axis is None:
        return scatter_add(xp.zeros(x.size, g.dtype), indices, g).reshape(x.shape)
    index = []  # the index of every axis, of which only one is not simply 0, 1, 2, ...
    for a, n in enumerate(x.shape):
        shape = [1] * x.ndim
        shape[a] = n
        index.append(xp.arange(n).reshape(shape))
    index[axis] = indices
    return scatter_add(xp.zeros_like(raw(x)), tuple(index), g)


take_along_axis.vjp(_take_along_axis_rule)


def sort(x, axis=-1):
    """Return the entries in ascending order along an axis.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.sort(tt.tensor([3.0, 1.0, 2.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    return take_along_axis(x, module_of(raw(x)).argsort(raw(x), axis=axis), axis)


def topk(x, k, axis=-1):
    """Return the k largest entries along an axis, largest first, and their indices.

    Raises
    ------
    ValueError
        If k is not between 1 and the length of the axis.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> values, indices = tt.topk(tt.tensor([3.0, 1.0, 2.0]), 2)
    >>> values.tolist(), indices.tolist()
    ([3.0, 2.0], [0, 2])
    """
    if not 1 <= k <= x.shape[axis]:
        raise ValueError(f"topk on {tuple(x.shape)}: k={k} is not between 1 and {x.shape[axis]}")
    array = raw(x)
    module = module_of(array)
    order = module.flip(module.argsort(array, axis=axis), axis)
    index = (slice(None),) * (axis % x.ndim) + (slice(0, k),)
    return take_along_axis(x, order[index], axis), order[index]
