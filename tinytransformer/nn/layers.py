"""Layers with one formula each: linear, embedding, norms, dropout, feed-forward with and without gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from ..autograd import raw
from ..backend import backend_name, move, xp
from ..formulas import (
    dropout,
    embedding,
    feed_forward,
    gated_feed_forward,
    layer_norm,
    linear,
    rms_norm,
    silu,
)
from ..ops import relu
from .module import Module, Parameter

__all__ = ["Dropout", "Embedding", "FeedForward", "GatedFeedForward", "LayerNorm", "Linear", "RMSNorm"]

Random = numpy.random.Generator | int | None  # a generator, a seed, or None for an unseeded generator


def drawn(array: numpy.ndarray, dtype: Any) -> Parameter:
    """Make random numbers, drawn on the host, a Parameter on the default backend."""
    return Parameter(xp.asarray(array.astype(dtype)))


class Linear(Module):
    r"""Affine map of the last axis.

    .. math:: y = xW + b

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether there is a b.
    rng : numpy.random.Generator or int, optional
        Draws the initial values: uniform within :math:`\pm 1/\sqrt{\text{in\_features}}`.
    dtype : dtype

    Attributes
    ----------
    weight : Parameter, shape (in_features, out_features)
        W, the transpose of PyTorch's.
    bias : Parameter, shape (out_features,), or None
        b.

    Notes
    -----
    Source: the projections of document section 4.2.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.nn.Linear(3, 5)(tt.ones((2, 3))).shape
    (2, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Random = None,
        dtype: Any = numpy.float32,
    ):
        rng = numpy.random.default_rng(rng)
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = drawn(rng.uniform(-bound, bound, (in_features, out_features)), dtype)
        self.bias = drawn(rng.uniform(-bound, bound, out_features), dtype) if bias else None

    def forward(self, x: Any) -> Any:
        """Map (..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return its sizes."""
        return ", ".join(map(str, self.weight.shape)) + ("" if self.bias is not None else ", bias=False")


class Embedding(Module):
    r"""A table with one row for each token id.

    .. math:: y_t = W_{\mathrm{ids}_t}

    Parameters
    ----------
    num_embeddings : int
        V, the number of ids.
    embedding_dim : int
        d, the length of a row.
    rng : numpy.random.Generator or int, optional
        Draws the initial values: normal with mean 0 and standard deviation 1.
    dtype : dtype

    Attributes
    ----------
    weight : Parameter, shape (num_embeddings, embedding_dim)

    Notes
    -----
    Source: ``nn.Embedding`` in document section 5.1.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.nn.Embedding(65, 7)([[1, 2, 3], [64, 0, 1]]).shape
    (2, 3, 7)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, rng: Random = None, dtype: Any = numpy.float32
    ):
        rng = numpy.random.default_rng(rng)
        self.weight = drawn(rng.standard_normal((num_embeddings, embedding_dim)), dtype)

    def forward(self, ids: Any) -> Any:
        """Look up integer ids of any shape (...): the result is (..., embedding_dim)."""
        return embedding(ids, self.weight)

    def extra_repr(self) -> str:
        """Return its sizes."""
        return ", ".join(map(str, self.weight.shape))


class LayerNorm(Module):
    r"""Give the features of each position mean 0 and variance 1, then scale and shift them.

    .. math:: \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Parameters
    ----------
    normalized_shape : int
        d, the length of the last axis.
    eps : float
        Added to the variance.
    dtype : dtype

    Attributes
    ----------
    weight, bias : Parameter, shape (normalized_shape,)
        Gain :math:`\gamma`, at first 1, and bias :math:`\beta`, at first 0.

    Raises
    ------
    TypeError
        If ``normalized_shape`` is not an integer.

    Notes
    -----
    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.nn.LayerNorm(4)(tt.tensor([[1.0, 1.0, 3.0, 3.0]])).numpy().round(3)
    array([[-1., -1.,  1.,  1.]], dtype=float32)
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-5, *, dtype: Any = numpy.float32):
        if not isinstance(normalized_shape, (int, numpy.integer)):
            raise TypeError(
                f"LayerNorm: normalized_shape must be the length of the last axis, not {normalized_shape!r}"
            )
        self.weight = Parameter(xp.ones(normalized_shape, dtype))
        self.bias = Parameter(xp.zeros(normalized_shape, dtype))
        self.eps = eps

    def forward(self, x: Any) -> Any:
        """Normalise the last axis of (..., d)."""
        return layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return its size and eps."""
        return f"{self.weight.size}, eps={self.eps}"


class RMSNorm(Module):
    r"""Divide the features of each position by their root mean square, then scale them.

    .. math:: \gamma \odot \frac{x}{\sqrt{\frac1d \sum_i x_i^2 + \epsilon}}

    Parameters
    ----------
    normalized_shape : int
        d, the length of the last axis.
    eps : float
        Added to the mean square.
    dtype : dtype

    Attributes
    ----------
    weight : Parameter, shape (normalized_shape,)
        Gain :math:`\gamma`, at first 1.

    Notes
    -----
    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.nn.RMSNorm(4)(tt.tensor([[3.0, -4.0, 0.0, 0.0]])).numpy().round(3)
    array([[ 1.2, -1.6,  0. ,  0. ]], dtype=float32)
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6, *, dtype: Any = numpy.float32):
        self.weight = Parameter(xp.ones(normalized_shape, dtype))
        self.eps = eps

    def forward(self, x: Any) -> Any:
        """Normalise the last axis of (..., d)."""
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return its size and eps."""
        return f"{self.weight.size}, eps={self.eps}"


class Dropout(Module):
    r"""In training, set each entry to 0 with probability p and scale the others; otherwise do nothing.

    .. math:: x \odot m / (1 - p),\; m \sim \mathrm{Bernoulli}(1 - p)

    Parameters
    ----------
    p : float
        Probability of dropping an entry, in [0, 1).
    rng : numpy.random.Generator or int, optional
        Draws a new m at each call, on the host: a seed gives the same masks on every backend.

    Raises
    ------
    ValueError
        If p is outside [0, 1).

    Notes
    -----
    Source: Srivastava et al., Dropout, 2014, with the scaling moved to training.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> dropout = tt.nn.Dropout(0.5, rng=1)
    >>> dropout(tt.ones((8,))).tolist()
    [0.0, 2.0, 2.0, 2.0, 0.0, 0.0, 2.0, 2.0]
    >>> dropout.eval()(tt.ones((3,))).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5, *, rng: Random = None):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), not {p}")
        self.p = p
        self.rng = numpy.random.default_rng(rng)

    def forward(self, x: Any) -> Any:
        """Drop entries of a Tensor or array of any shape."""
        if not self.training or self.p == 0:
            return x
        keep = self.rng.random(x.shape, dtype=numpy.float32) >= self.p
        return dropout(x, move(keep, backend_name(raw(x))), self.p)

    def extra_repr(self) -> str:
        """Return p."""
        return str(self.p)


class FeedForward(Module):
    r"""Two linear maps with an activation between them, applied to each position alone.

    .. math:: \mathrm{FFN}(x) = \varphi(xW_1 + b_1)W_2 + b_2

    Parameters
    ----------
    d_model : int
        Features of input and output.
    dim_feedforward : int
        Features in the middle.
    activation : callable
        :math:`\varphi`: `relu`, `gelu`, `gelu_tanh` or any function of a Tensor.
    bias : bool
        Whether there are :math:`b_1` and :math:`b_2`.
    rng : numpy.random.Generator or int, optional
        Draws the initial values, as in `Linear`.
    dtype : dtype

    Attributes
    ----------
    linear1, linear2 : Linear

    Notes
    -----
    Source: document section 3.1; Vaswani et al., Attention Is All You Need, 2017, equation 2.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.nn.FeedForward(6, 24, activation=tt.gelu)(tt.ones((2, 5, 6))).shape
    (2, 5, 6)
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int,
        activation: Callable[[Any], Any] = relu,
        bias: bool = True,
        *,
        rng: Random = None,
        dtype: Any = numpy.float32,
    ):
        rng = numpy.random.default_rng(rng)
        self.linear1 = Linear(d_model, dim_feedforward, bias, rng=rng, dtype=dtype)
        self.linear2 = Linear(dim_feedforward, d_model, bias, rng=rng, dtype=dtype)
        self.activation = activation

    def forward(self, x: Any) -> Any:
        """Map (..., d_model) to (..., d_model)."""
        first, second = self.linear1, self.linear2
        return feed_forward(x, first.weight, first.bias, second.weight, second.bias, self.activation)


class GatedFeedForward(Module):
    r"""Feed-forward with a gate: one linear map, activated, scales the features of another.

    .. math:: \mathrm{FFN}(x) = (\varphi(xW + b) \odot (xV + c))W_2 + b_2

    Parameters
    ----------
    d_model : int
        Features of input and output.
    dim_feedforward : int
        Features in the middle.
    activation : callable
        :math:`\varphi`: `silu` for SwiGLU, as in Llama, `gelu_tanh` for GEGLU, as in T5 v1.1.
    bias : bool
        Whether there are b, c and :math:`b_2`.
    rng : numpy.random.Generator or int, optional
        Draws the initial values, as in `Linear`.
    dtype : dtype

    Attributes
    ----------
    gate, up, down : Linear
        W and b, V and c, :math:`W_2` and :math:`b_2`.

    Notes
    -----
    Source: Shazeer, GLU Variants Improve Transformer, 2020; the names are those of Llama.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.nn.GatedFeedForward(6, 16)(tt.ones((2, 5, 6))).shape
    (2, 5, 6)
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int,
        activation: Callable[[Any], Any] = silu,
        bias: bool = False,
        *,
        rng: Random = None,
        dtype: Any = numpy.float32,
    ):
        rng = numpy.random.default_rng(rng)
        self.gate = Linear(d_model, dim_feedforward, bias, rng=rng, dtype=dtype)
        self.up = Linear(d_model, dim_feedforward, bias, rng=rng, dtype=dtype)
        self.down = Linear(dim_feedforward, d_model, bias, rng=rng, dtype=dtype)
        self.activation = activation

    def forward(self, x: Any) -> Any:
        """Map (..., d_model) to (..., d_model)."""
        maps = (self.gate, self.up, self.down)
        weights, biases = [m.weight for m in maps], [m.bias for m in maps]
        return gated_feed_forward(x, *weights, *biases, self.activation)
