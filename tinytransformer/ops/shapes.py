"""Primitives that move entries around without changing them."""

from __future__ import annotations

import itertools

import numpy

from ..autograd import primitive, raw
from ..backend import xp

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flip",
    "pad",
    "repeat",
    "reshape",
    "roll",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "transpose",
    "tril",
    "triu",
]


@primitive
def reshape(x, shape):
    """Return the same entries in another shape; one length may be -1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.reshape(np.arange(6.0), (2, -1))
    array([[0., 1., 2.],
           [3., 4., 5.]])
    """
    return xp.reshape(x, shape)


reshape.vjp(lambda g, y, x, shape: reshape(g, x.shape))


@primitive
def transpose(x, axes=None):
    """Permute the axes: axis i of the output is axis ``axes[i]`` of the input; reverse them by default.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.transpose(np.zeros((2, 3, 5)), (2, 0, 1)).shape
    (5, 2, 3)
    """
    return xp.transpose(x, axes)


def _inverse(axes):
    if axes is None:
        return None
    axes = [a % len(axes) for a in axes]
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


transpose.vjp(lambda g, y, x, axes=None: transpose(g, _inverse(axes)))


@primitive
def swapaxes(x, axis1, axis2):
    """Exchange two axes.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.swapaxes(np.zeros((2, 3, 5)), -1, -2).shape
    (2, 5, 3)
    """
    return xp.swapaxes(x, axis1, axis2)


swapaxes.vjp(lambda g, y, x, axis1, axis2: swapaxes(g, axis1, axis2))


@primitive
def expand_dims(x, axis):
    """Insert axes of length 1 at these places of the output.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.expand_dims(np.zeros((2, 3)), 1).shape
    (2, 1, 3)
    """
    return xp.expand_dims(x, axis)


expand_dims.vjp(lambda g, y, x, axis: reshape(g, x.shape))


@primitive
def squeeze(x, axis=None):
    """Drop axes of length 1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.squeeze(np.zeros((2, 1, 3)), 1).shape
    (2, 3)
    """
    return xp.squeeze(x, axis)


squeeze.vjp(lambda g, y, x, axis=None: reshape(g, x.shape))


@primitive
def broadcast_to(x, shape):
    """Repeat along new axes and axes of length 1; the engine sums the gradient over them.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.broadcast_to(np.array([1.0, 2.0]), (3, 2))
    array([[1., 2.],
           [1., 2.],
           [1., 2.]])
    """
    return xp.broadcast_to(x, shape)


broadcast_to.vjp(lambda g, y, x, shape: g)


@primitive
def _concatenate(*arrays, axis=0):
    return xp.concatenate(arrays, axis=axis)


def _concatenate_rule(g, y, *arrays, axis=0):
    before = (slice(None),) * (axis % y.ndim)
    parts, start = [], 0
    for a in arrays:
        stop = start + a.shape[axis]
        parts.append(g[(*before, slice(start, stop))])
        start = stop
    return parts


_concatenate.vjp_all(_concatenate_rule)


def concatenate(arrays, axis=0):
    """Join arrays along an axis that they have; ``axis=None`` joins all their entries in order.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.concatenate([tt.ones((2, 3)), tt.zeros((2, 1))], axis=1).shape
    (2, 4)
    """
    if axis is None:
        return _concatenate(*[reshape(a, -1) for a in arrays])
    return _concatenate(*arrays, axis=axis)


@primitive
def _stack(*arrays, axis=0):
    return xp.stack(arrays, axis=axis)


def _stack_rule(g, y, *arrays, axis=0):
    before = (slice(None),) * (axis % y.ndim)
    return [g[(*before, i)] for i in range(len(arrays))]


_stack.vjp_all(_stack_rule)


def stack(arrays, axis=0):
    """Join arrays of one shape along a new axis.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.stack([tt.ones((2, 3)), tt.zeros((2, 3))], axis=-1).shape
    (2, 3, 2)
    """
    return _stack(*arrays, axis=axis)


def split(x, indices_or_sections, axis=0):
    """Cut an array along an axis into equal sections, or at the given indices.

    Raises
    ------
    ValueError
        If the length cannot be divided by the number of sections.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> [part.shape for part in tt.split(tt.ones((2, 7)), [3, 4], axis=1)]
    [(2, 3), (2, 1), (2, 3)]
    """
    length = x.shape[axis]
    if isinstance(indices_or_sections, int):
        if length % indices_or_sections:
            raise ValueError(
                f"split on {tuple(x.shape)}: length {length} of axis {axis} does not divide into "
                f"{indices_or_sections} equal sections; give the indices to cut at instead"
            )
        cuts = [length // indices_or_sections * i for i in range(1, indices_or_sections)]
    else:
        cuts = list(indices_or_sections)
    before = (slice(None),) * (axis % x.ndim)
    bounds = [0, *cuts, length]
    return [x[(*before, slice(a, b))] for a, b in itertools.pairwise(bounds)]


@primitive
def pad(x, pad_width, mode="constant", constant_values=0):
    """Add constant entries before and after each axis: the arguments stand as in ``numpy.pad``.

    The mode "constant" alone is there; another raises ValueError.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.pad(np.array([1.0, 2.0]), (1, 2))
    array([0., 1., 2., 0., 0.])
    """
    if mode != "constant":
        raise ValueError(f"mode {mode!r} is not there; write 'constant', or concatenate parts of x to it")
    return xp.pad(x, pad_width, mode, constant_values=constant_values)


def _pad_rule(g, y, x, pad_width, mode="constant", constant_values=0):
    starts = numpy.broadcast_to(pad_width, (x.ndim, 2))[:, 0]  # from any form that NumPy allows
    return g[tuple(slice(start, start + n) for start, n in zip(starts, x.shape, strict=True))]


pad.vjp(_pad_rule)


@primitive
def flip(x, axis=None):
    """Reverse the order of entries along axes.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.flip(np.array([1.0, 2.0, 3.0]))
    array([3., 2., 1.])
    """
    return xp.flip(x, axis)


flip.vjp(lambda g, y, x, axis=None: flip(g, axis))


@primitive
def roll(x, shift, axis=None):
    """Move entries along axes; those that leave at the end return at the start.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.roll(np.array([1.0, 2.0, 3.0]), 1)
    array([3., 1., 2.])
    """
    return xp.roll(x, shift, axis)


def _back(shift):
    return tuple(-s for s in shift) if isinstance(shift, tuple) else -shift


roll.vjp(lambda g, y, x, shift, axis=None: roll(g, _back(shift), axis))


@primitive
def repeat(x, repeats, axis=None):
    """Repeat each entry: all the same number of times, or each its own.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.repeat(np.array([1.0, 2.0]), [1, 3])
    array([1., 2., 2., 2.])
    """
    return xp.repeat(x, repeats, axis)


def _repeat_rule(g, y, x, repeats, axis=None):
    from .indexing import scatter_add

    shape = x.shape
    if axis is None:
        x, axis = reshape(x, x.size), 0
    source = xp.repeat(xp.arange(x.shape[axis]), raw(repeats))  # which entry each repetition came from
    index = (slice(None),) * (axis % x.ndim) + (source,)
    return reshape(scatter_add(xp.zeros_like(raw(x)), index, g), shape)


repeat.vjp(_repeat_rule)


@primitive
def tile(x, reps):
    """Repeat the whole array ``reps`` times along each axis.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.tile(np.array([1.0, 2.0]), (2, 2))
    array([[1., 2., 1., 2.],
           [1., 2., 1., 2.]])
    """
    return xp.tile(x, reps)


def _tile_rule(g, y, x, reps):
    reps = (reps,) if isinstance(reps, int) else tuple(reps)
    ndim = max(len(reps), x.ndim)
    reps = (1,) * (ndim - len(reps)) + reps
    shape = (1,) * (ndim - x.ndim) + tuple(x.shape)
    blocks = reshape(g, tuple(n for pair in zip(reps, shape, strict=True) for n in pair))
    return blocks.sum(axis=tuple(range(0, 2 * ndim, 2)))


tile.vjp(_tile_rule)


@primitive
def tril(x, k=0):
    """Keep what is on and below diagonal k of each matrix, zero elsewhere.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.tril(np.ones((3, 3)))
    array([[1., 0., 0.],
           [1., 1., 0.],
           [1., 1., 1.]])
    """
    return xp.tril(x, k)


tril.vjp(lambda g, y, x, k=0: tril(g, k))


@primitive
def triu(x, k=0):
    """Keep what is on and above diagonal k of each matrix, zero elsewhere.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.triu(np.ones((3, 3)), 1)
    array([[0., 1., 1.],
           [0., 0., 1.],
           [0., 0., 0.]])
    """
    return xp.triu(x, k)


triu.vjp(lambda g, y, x, k=0: triu(g, k))
