"""Softmax and the activations between two linear layers."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import formula, raw
from ..backend import module_of
from ..ops import erf, exp, logsumexp, max, sigmoid, sum, tanh, where
from .masks import fitted

__all__ = ["gelu", "gelu_tanh", "log_softmax", "masked_softmax", "silu", "softmax"]


@formula("document 4.1", r"\mathrm{softmax}(x)_i = e^{x_i} / \sum_j e^{x_j}")
def softmax(x: Any, axis: int = -1) -> Any:
    r"""Turn scores into probabilities along an axis.

    .. math:: \mathrm{softmax}(x)_i = e^{x_i} / \sum_j e^{x_j}

    The largest score is subtracted first: it cancels, and no exponential overflows.

    Parameters
    ----------
    x : Tensor or array, any shape, floating
        Scores.
    axis : int
        The axis along which the result sums to 1.

    Returns
    -------
    Tensor or array
        Probabilities, of the shape and dtype of x.

    Notes
    -----
    Source: document section 4.1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.softmax(np.log([1.0, 2.0, 5.0])).round(3)
    array([0.125, 0.25 , 0.625])
    """
    e = exp(x - max(x, axis, keepdims=True))
    return e / sum(e, axis, keepdims=True)


@formula("document 4.1", r"\log\mathrm{softmax}(x)_i = x_i - \log\sum_j e^{x_j}")
def log_softmax(x: Any, axis: int = -1) -> Any:
    r"""Logarithm of `softmax`, without ever taking the logarithm of a rounded 0.

    .. math:: \log\mathrm{softmax}(x)_i = x_i - \log\sum_j e^{x_j}

    Parameters
    ----------
    x : Tensor or array, any shape, floating
        Scores.
    axis : int
        The axis along which the probabilities sum to 1.

    Returns
    -------
    Tensor or array
        Natural logarithms of probabilities, of the shape and dtype of x.

    Notes
    -----
    Source: document section 4.1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    return x - logsumexp(x, axis, keepdims=True)


@formula("document 3.2", r"\mathrm{softmax}_M(x)_i = M_i e^{x_i} / \sum_j M_j e^{x_j}")
def masked_softmax(x: Any, mask: Any) -> Any:
    r"""Softmax along the last axis over the entries that the mask allows; the others get exactly 0.

    .. math:: \mathrm{softmax}_M(x)_i = M_i e^{x_i} / \sum_j M_j e^{x_j}

    A row that allows nothing becomes zeros.

    Parameters
    ----------
    x : Tensor or array, shape (..., T_q, T_k), floating
        Scores.
    mask : Mask
        True where a query may attend to a key.

    Returns
    -------
    Tensor or array
        Weights, of the shape and dtype of x.

    Raises
    ------
    TypeError
        If the mask is not a `Mask`.
    ValueError
        If its shape does not fit the scores.

    Notes
    -----
    Source: document section 3.2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.masked_softmax(np.zeros((2, 2)), tt.Mask.causal(2))
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    M = fitted(mask, x.shape, module_of(raw(x)))
    x = where(M, x, -math.inf)
    largest = max(x, -1, keepdims=True)
    e = exp(x - where(raw(largest) > -math.inf, largest, 0))
    total = sum(e, -1, keepdims=True)
    return e / where(raw(total) > 0, total, 1)


@formula("Hendrycks & Gimpel 2016", r"\mathrm{GELU}(x) = \tfrac12 x (1 + \mathrm{erf}(x / \sqrt2))")
def gelu(x: Any) -> Any:
    r"""Gaussian error linear unit: x times the probability that a standard normal number is below x.

    .. math:: \mathrm{GELU}(x) = \tfrac12 x (1 + \mathrm{erf}(x / \sqrt2))

    BERT uses this form.

    Parameters
    ----------
    x : Tensor or array, any shape, floating

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x.

    Notes
    -----
    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


@formula(
    "Hendrycks & Gimpel 2016",
    r"\mathrm{GELU}(x) \approx \tfrac12 x (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))",
)
def gelu_tanh(x: Any) -> Any:
    r"""Approximate `gelu` with a hyperbolic tangent, at most 5e-4 off.

    .. math:: \mathrm{GELU}(x) \approx \tfrac12 x (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))

    GPT-2 uses this form.

    Parameters
    ----------
    x : Tensor or array, any shape, floating

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x.

    Notes
    -----
    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.gelu_tanh(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1588,  0.    ,  0.8412])
    """
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@formula("Elfwing et al. 2017", r"\mathrm{SiLU}(x) = x\,\sigma(x) = \frac{x}{1 + e^{-x}}")
def silu(x: Any) -> Any:
    r"""Sigmoid-weighted linear unit, also called Swish: x times its own sigmoid.

    .. math:: \mathrm{SiLU}(x) = x\,\sigma(x) = \frac{x}{1 + e^{-x}}

    Llama uses it in its gated feed-forward.

    Parameters
    ----------
    x : Tensor or array, any shape, floating

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x.

    Notes
    -----
    Source: Elfwing, Uchibe and Doya, Sigmoid-Weighted Linear Units, 2017.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.silu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.2689,  0.    ,  0.7311])
    """
    return x * sigmoid(x)
