"""Normalisation of features."""

from __future__ import annotations

from typing import Any

from ..autograd import formula
from ..ops import mean, sqrt, var

__all__ = ["layer_norm", "rms_norm"]


@formula("Ba et al. 2016", r"\gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta")
def layer_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
    r"""Give the features of each position mean 0 and variance 1, then scale and shift them.

    .. math:: \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Mean and variance are taken over the last axis; the variance is divided by d, not by d - 1.

    Parameters
    ----------
    x : Tensor or array, shape (..., d)
    gamma, beta : Tensor or array, shape (d,)
        Gain and bias.
    eps : float
        Added to the variance, so that a constant row gives beta.

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x.

    Notes
    -----
    Source: Ba, Kiros and Hinton, Layer Normalization, 2016; part of the Transformer of document section 3.1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.layer_norm(np.array([[1.0, 2.0, 3.0]]), np.ones(3), np.zeros(3)).round(3)
    array([[-1.225,  0.   ,  1.225]])
    """
    mu = mean(x, axis=-1, keepdims=True)
    sigma2 = var(x, axis=-1, keepdims=True)
    return gamma * (x - mu) / sqrt(sigma2 + eps) + beta


@formula("Zhang & Sennrich 2019", r"\gamma \odot \frac{x}{\sqrt{\frac1d \sum_i x_i^2 + \epsilon}}")
def rms_norm(x: Any, gamma: Any, eps: float = 1e-6) -> Any:
    r"""Divide the features of each position by their root mean square, then scale them.

    .. math:: \gamma \odot \frac{x}{\sqrt{\frac1d \sum_i x_i^2 + \epsilon}}

    Unlike `layer_norm` it subtracts no mean and adds no bias. T5 and Llama use it.

    Parameters
    ----------
    x : Tensor or array, shape (..., d)
    gamma : Tensor or array, shape (d,)
        Gain.
    eps : float
        Added to the mean square, so that a row of zeros stays zero.

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x.

    Notes
    -----
    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, equation 4.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.rms_norm(np.array([[3.0, -4.0, 0.0, 0.0]]), np.ones(4)).round(3)
    array([[ 1.2, -1.6,  0. ,  0. ]])
    """
    return gamma * x / sqrt(mean(x * x, axis=-1, keepdims=True) + eps)
