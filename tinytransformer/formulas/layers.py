"""The equations of the simple layers: linear, feed-forward with and without gate, embedding, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import formula, raw
from ..backend import module_of, to_numpy
from ..ops import relu, take
from .activations import silu

__all__ = ["dropout", "embedding", "feed_forward", "gated_feed_forward", "linear"]


@formula("document 4.2", r"xW + b")
def linear(x: Any, W: Any, b: Any = None) -> Any:
    r"""Affine map of the last axis.

    .. math:: xW + b

    Parameters
    ----------
    x : Tensor or array, shape (..., in_features)
    W : Tensor or array, shape (in_features, out_features)
        As in the equation, and so the transpose of PyTorch's ``Linear.weight``.
    b : Tensor or array, shape (out_features,), optional

    Returns
    -------
    Tensor or array, shape (..., out_features)

    Raises
    ------
    ValueError
        If the last axis of x is not as long as the first of W.

    Notes
    -----
    Source: the projections of document section 4.2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.linear(np.array([1.0, 2.0]), np.array([[1.0, 0.0, 3.0], [0.0, 1.0, 3.0]]), np.ones(3))
    array([ 2.,  3., 10.])
    """
    y = x @ W
    return y if b is None else y + b


@formula("document 3.1", r"\mathrm{FFN}(x) = \varphi(xW_1 + b_1)W_2 + b_2")
def feed_forward(
    x: Any, W_1: Any, b_1: Any, W_2: Any, b_2: Any, activation: Callable[[Any], Any] = relu
) -> Any:
    r"""Two linear maps with an activation between them, applied to each position alone.

    .. math:: \mathrm{FFN}(x) = \varphi(xW_1 + b_1)W_2 + b_2

    Parameters
    ----------
    x : Tensor or array, shape (..., d_model)
    W_1 : Tensor or array, shape (d_model, d_ff)
    b_1 : Tensor or array, shape (d_ff,), or None
    W_2 : Tensor or array, shape (d_ff, d_model)
    b_2 : Tensor or array, shape (d_model,), or None
    activation : callable
        :math:`\varphi`; `relu` in the original Transformer, `gelu` in BERT, `gelu_tanh` in GPT-2.

    Returns
    -------
    Tensor or array, shape (..., d_model)

    Notes
    -----
    Source: document section 3.1; Vaswani et al., 2017, equation 2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> W_1, W_2 = np.array([[1.0, -1.0]]), np.array([[1.0], [1.0]])
    >>> tt.feed_forward(np.array([[-3.0], [2.0]]), W_1, None, W_2, None)  # this one is |x|
    array([[3.],
           [2.]])
    """
    return linear(activation(linear(x, W_1, b_1)), W_2, b_2)


@formula("Shazeer 2020", r"\mathrm{FFN}(x) = (\varphi(xW + b) \odot (xV + c))W_2 + b_2")
def gated_feed_forward(
    x: Any,
    W: Any,
    V: Any,
    W_2: Any,
    b: Any = None,
    c: Any = None,
    b_2: Any = None,
    activation: Callable[[Any], Any] = silu,
) -> Any:
    r"""Feed-forward with a gate: one linear map, activated, scales the features of another.

    .. math:: \mathrm{FFN}(x) = (\varphi(xW + b) \odot (xV + c))W_2 + b_2

    With `silu` it is SwiGLU, the feed-forward of Llama; with `gelu_tanh` it is GEGLU, that of T5 v1.1.

    Parameters
    ----------
    x : Tensor or array, shape (..., d_model)
    W, V : Tensor or array, shape (d_model, d_ff)
    W_2 : Tensor or array, shape (d_ff, d_model)
    b, c : Tensor or array, shape (d_ff,), optional
    b_2 : Tensor or array, shape (d_model,), optional
    activation : callable
        :math:`\varphi`, of the gate.

    Returns
    -------
    Tensor or array, shape (..., d_model)

    Notes
    -----
    Source: Shazeer, GLU Variants Improve Transformer, 2020, equation 6.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> W, V, W_2 = np.array([[1.0]]), np.array([[10.0]]), np.array([[0.1]])
    >>> tt.gated_feed_forward(np.array([[-3.0], [2.0]]), W, V, W_2, activation=tt.relu)
    array([[0.],
           [4.]])
    """
    return linear(activation(linear(x, W, b)) * linear(x, V, c), W_2, b_2)


@formula("document 5.1", r"y_t = W_{\mathrm{ids}_t}")
def embedding(ids: Any, W: Any) -> Any:
    r"""Row ``ids`` of a table: the vector of each token.

    .. math:: y_t = W_{\mathrm{ids}_t}

    Parameters
    ----------
    ids : integer array, any shape
        Token ids in [0, V).
    W : Tensor or array, shape (V, d)
        One row for each token.

    Returns
    -------
    Tensor or array, shape (..., d)

    Raises
    ------
    TypeError
        If the ids are not integers.
    IndexError
        If an id is outside [0, V).

    Notes
    -----
    Source: ``nn.Embedding`` in document section 5.1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.embedding([2, 0], np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    array([[5., 6.],
           [1., 2.]])
    """
    return take(W, checked_ids(ids, W.shape[0], "embedding", module_of(raw(W))), axis=0)


def checked_ids(ids: Any, size: int, name: str, module: Any, ignored: int | None = None) -> Any:
    """Return ids as an array of this module, once they are known to be in [0, size).

    Ids that come from the host are checked there; a GPU would wrap a bad one silently, and looking at ids
    that live there already would stop it at every step.
    """
    ids = raw(ids)
    on_host = to_numpy(ids) if not hasattr(ids, "get") else None
    if (on_host if on_host is not None else ids).dtype.kind not in "iu":
        raise TypeError(f"{name}: ids must be integers, not {getattr(ids, 'dtype', type(ids).__name__)}")
    if on_host is not None and on_host.size:
        bad = (on_host < 0) | (on_host >= size)
        if ignored is not None:
            bad &= on_host != ignored
        if bad.any():
            first = int(on_host[bad].flat[0])
            raise IndexError(f"{name}: id {first} is outside [0, {size}): was another vocabulary used?")
    return module.asarray(ids if on_host is None else on_host)


@formula("Srivastava et al. 2014", r"x \odot m / (1 - p),\; m \sim \mathrm{Bernoulli}(1 - p)")
def dropout(x: Any, keep: Any, p: float) -> Any:
    r"""Set entries to 0 and scale the others so that the expectation stays.

    .. math:: x \odot m / (1 - p),\; m \sim \mathrm{Bernoulli}(1 - p)

    Parameters
    ----------
    x : Tensor or array, any shape
    keep : bool array, the shape of x
        m: True where an entry stays, drawn with probability 1 - p.
    p : float
        Probability of dropping an entry, in [0, 1).

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x.

    Notes
    -----
    Source: Srivastava et al., Dropout, 2014, with the scaling moved to training.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> tt.dropout(np.array([3.0, 6.0, 9.0]), np.array([True, False, True]), p=0.25)
    array([ 4.,  0., 12.])
    """
    return x * keep / (1 - p)
