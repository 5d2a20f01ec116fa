"""Primitives that work entry by entry. Inputs are broadcast as in NumPy; the engine undoes that."""

from __future__ import annotations

import math

from ..autograd import primitive, raw
from ..backend import xp
from .special import erf_array

__all__ = [
    "abs",
    "add",
    "astype",
    "clip",
    "cos",
    "divide",
    "erf",
    "exp",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "relu",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "subtract",
    "tanh",
    "where",
]


@primitive
def add(x1, x2):
    """x1 + x2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.add(np.array([1.0, 2.0]), 10.0)
    array([11., 12.])
    """
    return xp.add(x1, x2)


add.vjp(
    lambda g, y, x1, x2: g,
    lambda g, y, x1, x2: g,
)


@primitive
def subtract(x1, x2):
    """x1 - x2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.subtract(np.array([1.0, 2.0]), 10.0)
    array([-9., -8.])
    """
    return xp.subtract(x1, x2)


subtract.vjp(
    lambda g, y, x1, x2: g,
    lambda g, y, x1, x2: -g,
)


@primitive
def multiply(x1, x2):
    """x1 x2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.multiply(np.array([1.0, 2.0]), 10.0)
    array([10., 20.])
    """
    return xp.multiply(x1, x2)


multiply.vjp(
    lambda g, y, x1, x2: g * x2,
    lambda g, y, x1, x2: g * x1,
)


@primitive
def divide(x1, x2):
    """x1 / x2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.divide(np.array([1.0, 2.0]), 10.0)
    array([0.1, 0.2])
    """
    return xp.divide(x1, x2)


divide.vjp(
    lambda g, y, x1, x2: g / x2,
    lambda g, y, x1, x2: -g * y / x2,
)


@primitive
def negative(x):
    """Minus x.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.negative(np.array([1.0, -2.0]))
    array([-1.,  2.])
    """
    return xp.negative(x)


negative.vjp(lambda g, y, x: -g)


@primitive
def sign(x):
    """-1, 0 or 1. Its gradient is 0 everywhere.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.sign(np.array([3.0, 0.0, -2.0]))
    array([ 1.,  0., -1.])
    """
    return xp.sign(x)


sign.vjp(lambda g, y, x: g * 0)


@primitive
def abs(x):
    """Absolute value; its gradient at 0 is 0.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.abs(np.array([1.0, -2.0]))
    array([1., 2.])
    """
    return xp.abs(x)


abs.vjp(lambda g, y, x: g * sign(x))


@primitive
def exp(x):
    """Raise e to the power x.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.exp(np.array([0.0, 1.0])).round(3)
    array([1.   , 2.718])
    """
    return xp.exp(x)


exp.vjp(lambda g, y, x: g * y)


@primitive
def log(x):
    """Natural logarithm.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.log(np.array([1.0, 2.0])).round(3)
    array([0.   , 0.693])
    """
    return xp.log(x)


log.vjp(lambda g, y, x: g / x)


@primitive
def power(x1, x2):
    """x1 to the power x2. The gradient for x2 is 0 where x1 is not positive: its logarithm is not real.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.power(np.array([2.0, 3.0]), 3)
    array([ 8., 27.])
    """
    return x1**x2


power.vjp(
    lambda g, y, x1, x2: g * x2 * x1 ** _lowered(x1, x2),
    lambda g, y, x1, x2: g * y * log(_positive(x1)),
)


def _lowered(x1, x2):
    """x2 - 1, but 0 for 0^0: the derivative of x^0 is 0 at 0 too, where x^-1 is not finite."""
    if isinstance(x2, (int, float)):
        return x2 - 1 if x2 else 0
    return x2 - ((raw(x1) != 0) | (raw(x2) != 0))


def _positive(x1):
    """x1 where it has a real logarithm, and 1 elsewhere."""
    if isinstance(x1, (int, float)):
        return x1 if x1 > 0 else 1
    return where(raw(x1) > 0, x1, 1)


@primitive
def log1p(x):
    """log(1 + x), exact for small x.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.log1p(np.array([0.0, 1e-20]))
    array([0.e+00, 1.e-20])
    """
    return xp.log1p(x)


log1p.vjp(lambda g, y, x: g / (1 + x))


@primitive
def sqrt(x):
    """Square root; its gradient at 0 is infinite.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.sqrt(np.array([4.0, 9.0]))
    array([2., 3.])
    """
    return xp.sqrt(x)


sqrt.vjp(lambda g, y, x: g / (2 * y))


@primitive
def tanh(x):
    """Hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.tanh(np.array([0.0, 1.0])).round(3)
    array([0.   , 0.762])
    """
    return xp.tanh(x)


tanh.vjp(lambda g, y, x: g * (1 - y * y))


@primitive
def sin(x):
    """Sine of x in radians.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.sin(np.array([0.0, np.pi / 2]))
    array([0., 1.])
    """
    return xp.sin(x)


@primitive
def cos(x):
    """Cosine of x in radians.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.cos(np.array([0.0, np.pi]))
    array([ 1., -1.])
    """
    return xp.cos(x)


sin.vjp(lambda g, y, x: g * cos(x))
cos.vjp(lambda g, y, x: -g * sin(x))


@primitive
def sigmoid(x):
    """1 / (1 + e^-x), without overflow: for negative x, numerator and denominator are multiplied by e^x.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-xp.abs(x)))


sigmoid.vjp(lambda g, y, x: g * y * (1 - y))


@primitive
def relu(x):
    """max(x, 0); its gradient at 0 is 0.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.relu(np.array([-2.0, 3.0]))
    array([0., 3.])
    """
    return xp.maximum(x, 0)


relu.vjp(lambda g, y, x: g * (raw(x) > 0))


@primitive
def maximum(x1, x2):
    """Take the larger of x1 and x2; where they are equal, each gets half of the gradient.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.maximum(np.array([-2.0, 3.0]), 1.0)
    array([1., 3.])
    """
    return xp.maximum(x1, x2)


maximum.vjp(
    lambda g, y, x1, x2: _share(g, raw(x1) > raw(x2), raw(x1) == raw(x2)),
    lambda g, y, x1, x2: _share(g, raw(x1) < raw(x2), raw(x1) == raw(x2)),
)


@primitive
def minimum(x1, x2):
    """Take the smaller of x1 and x2; where they are equal, each gets half of the gradient.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.minimum(np.array([-2.0, 3.0]), 1.0)
    array([-2.,  1.])
    """
    return xp.minimum(x1, x2)


minimum.vjp(
    lambda g, y, x1, x2: _share(g, raw(x1) < raw(x2), raw(x1) == raw(x2)),
    lambda g, y, x1, x2: _share(g, raw(x1) > raw(x2), raw(x1) == raw(x2)),
)


def _share(g, wins, ties):
    return g * wins + 0.5 * g * ties


@primitive
def clip(x, min=None, max=None):
    """Limit x to [min, max]; the gradient is 0 outside.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.clip(np.array([-2.0, 0.5, 3.0]), 0.0, 1.0)
    array([0. , 0.5, 1. ])
    """
    return xp.clip(x, min, max)


clip.vjp(lambda g, y, x, min=None, max=None: g * (raw(y) == raw(x)))


@primitive
def where(condition, x, y):
    """Take x where the condition holds, y elsewhere.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.where(np.array([True, False]), np.array([1.0, 2.0]), -1.0)
    array([ 1., -1.])
    """
    return xp.where(condition, x, y)


where.vjp(
    None,
    lambda g, out, condition, x, y: where(condition, g, 0),
    lambda g, out, condition, x, y: where(condition, 0, g),
)


@primitive
def astype(x, dtype):
    """Convert to a dtype; the engine converts the gradient back.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.astype(np.array([1.5, 2.5]), "float32").dtype
    dtype('float32')
    """
    return x.astype(dtype)


astype.vjp(lambda g, y, x, dtype: g)


@primitive
def erf(x):
    """Error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.erf(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.8427])
    """
    return erf_array(x)


erf.vjp(lambda g, y, x: g * (2 / math.sqrt(math.pi)) * exp(-x * x))
