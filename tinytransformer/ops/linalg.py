"""Products of matrices."""

from __future__ import annotations

from string import ascii_letters

from ..autograd import primitive, raw
from ..backend import xp
from .shapes import expand_dims, reshape

__all__ = ["einsum", "matmul"]


@primitive
def _matmul(x1, x2):
    return xp.matmul(x1, x2)


_matmul.vjp(
    lambda g, y, x1, x2: g @ x2.mT,
    lambda g, y, x1, x2: x1.mT @ g,
)


def matmul(x1, x2):
    """Product of matrices over the last two axes, broadcast over the others.

    A 1-D operand is a row on the left and a column on the right, as in NumPy.

    Parameters
    ----------
    x1 : array_like or Tensor, shape (..., n, k) or (k,)
    x2 : array_like or Tensor, shape (..., k, m) or (k,)

    Raises
    ------
    ValueError
        If the inner lengths differ or an operand is a single number.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.matmul(tt.ones((5, 2, 3)), tt.ones((3, 7))).shape
    (5, 2, 7)
    """
    if not hasattr(x1, "ndim"):
        x1 = xp.asarray(x1)
    if not hasattr(x2, "ndim"):
        x2 = xp.asarray(x2)
    shape1, shape2 = x1.shape, x2.shape
    row, column = len(shape1) == 1, len(shape2) == 1
    if shape1 and shape2 and shape1[-1] != shape2[-1 if column else -2]:
        raise ValueError(
            f"matmul on {shape1} and {shape2}: the inner lengths {shape1[-1]} and "
            f"{shape2[-1 if column else -2]} differ; transpose one operand with .mT, or check which axis "
            "holds the features"
        )
    if not (row or column):
        return _matmul(x1, x2)
    y = _matmul(expand_dims(x1, 0) if row else x1, expand_dims(x2, 1) if column else x2)
    shape = y.shape[:-2] + (() if row else y.shape[-2:-1]) + (() if column else y.shape[-1:])
    return reshape(y, shape)


@primitive
def einsum(subscripts, *operands):
    """Sum of products as Einstein wrote it: ``einsum("ij,jk->ik", a, b)`` is ``a @ b``.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 5))).shape
    (2, 5)
    """
    return xp.einsum(subscripts, *operands, optimize=True)


def _einsum_rule(g, y, subscripts, *operands):
    inputs, output = _explicit(subscripts, [x.ndim for x in operands])
    gradients = [None]
    for i, x in enumerate(operands):
        # the product of all other factors, summed over the letters that this operand does not have
        letters = [output, *inputs[:i], *inputs[i + 1 :]]
        factors = [g, *operands[:i], *operands[i + 1 :]]
        pairs = zip(letters, factors, strict=True)
        lengths = {c: n for s, f in pairs for c, n in zip(s, f.shape, strict=True)}
        free = (c for c in ascii_letters if c not in "".join(inputs))
        target = ""
        for c, n in zip(inputs[i], x.shape, strict=True):
            if c in target or lengths.get(c) != n:
                # a diagonal was taken, or c was summed over or repeated alone: one factor 1 for each entry
                new = next(free)
                letters.append(c + new)
                factors.append(xp.eye(n, dtype=raw(x).dtype))
                c = new
            target += c
        gradients.append(einsum(",".join(letters) + "->" + target, *factors))
    return gradients


def _explicit(subscripts, ndims):
    """Write out the ellipses and the output of an einsum with letters that are still free."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts]
    widest = 0
    for i, (s, ndim) in enumerate(zip(inputs, ndims, strict=True)):
        if "..." in s:
            width = ndim - len(s.replace("...", ""))
            widest = max(widest, width)
            inputs[i] = s.replace("...", "".join(reversed(free[:width])))
    shared = "".join(reversed(free[:widest]))
    if not arrow:
        letters = left.replace(",", "")
        once = sorted(c for c in letters if letters.count(c) == 1)
        output = "..." + "".join(once)
    return inputs, output.replace("...", shared)


einsum.vjp_all(_einsum_rule)
