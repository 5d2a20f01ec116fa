"""Attention, alone, masked, and in several heads."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import formula
from ..ops import broadcast_to, expand_dims, reshape
from .activations import masked_softmax, softmax
from .layers import linear
from .masks import Mask

__all__ = [
    "attention",
    "attention_weights",
    "general_attention",
    "general_attention_weights",
    "masked_attention",
    "merge_heads",
    "multi_head_attention",
    "repeat_heads",
    "self_attention",
    "split_heads",
]


@formula("document 4.1", r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)")
def attention_weights(Q: Any, K: Any, mask: Mask | None = None) -> Any:
    r"""How much each query takes from each key: the softmax in `attention`, for looking at.

    .. math:: \mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)

    Parameters
    ----------
    Q : Tensor or array, shape (..., T_q, d_k)
    K : Tensor or array, shape (..., T_k, d_k)
    mask : Mask, optional
        True where a query may attend to a key; all may by default.

    Returns
    -------
    Tensor or array, shape (..., T_q, T_k)
        Rows sum to 1, or to 0 where the mask allows nothing.

    Notes
    -----
    Source: document section 4.1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> Q, K = np.array([[2.0, 0.0]]), np.array([[1.0, 5.0], [1.0, 7.0]])
    >>> tt.attention_weights(Q, K)
    array([[0.5, 0.5]])
    """
    d_k = Q.shape[-1]
    scores = Q @ K.mT / math.sqrt(d_k)  # (..., T_q, T_k)
    return softmax(scores, axis=-1) if mask is None else masked_softmax(scores, mask)


@formula(
    "document 4.1", r"\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V"
)
def attention(Q: Any, K: Any, V: Any, mask: Mask | None = None) -> Any:
    r"""Scaled dot-product attention: for each query a mean of the values, weighted by how its key fits.

    .. math:: \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V

    Parameters
    ----------
    Q : Tensor or array, shape (..., T_q, d_k)
        Queries.
    K : Tensor or array, shape (..., T_k, d_k)
        Keys.
    V : Tensor or array, shape (..., T_k, d_v)
        Values.
    mask : Mask, optional
        True where a query may attend to a key; all may by default.

    Returns
    -------
    Tensor or array, shape (..., T_q, d_v)
        A query with nothing to attend to gives zeros.

    Raises
    ------
    TypeError, ValueError
        If the mask is not a `Mask` or does not fit (..., T_q, T_k).

    Notes
    -----
    Source: document section 4.1; Vaswani et al., Attention Is All You Need, 2017, equation 1.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> Q = K = np.eye(2)
    >>> tt.attention(Q, K, np.array([[1.0], [3.0]])).round(2)
    array([[1.66],
           [2.34]])
    """
    weights = attention_weights(Q, K, mask)  # softmax(Q K^T / sqrt(d_k)): (..., T_q, T_k)
    return weights @ V


@formula("Raffel et al. 2020; Ainslie et al. 2023", r"\mathrm{softmax}\left(c\,QK^T + B\right)")
def general_attention_weights(
    Q: Any, K: Any, mask: Mask | None = None, bias: Any = None, scale: float | None = None
) -> Any:
    r"""How much each query takes from each key: the softmax in `general_attention`.

    .. math:: \mathrm{softmax}\left(c\,QK^T + B\right)

    Parameters
    ----------
    Q : Tensor or array, shape (..., T_q, d_k)
    K : Tensor or array, shape (..., T_k, d_k)
    mask, bias, scale
        As for `general_attention`.

    Returns
    -------
    Tensor or array, shape (..., T_q, T_k)
        Rows sum to 1, or to 0 where the mask allows nothing.

    Notes
    -----
    Source: that of `general_attention`.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> Q, K = np.array([[2.0, 0.0]]), np.array([[1.0, 5.0], [1.0, 7.0]])
    >>> tt.general_attention_weights(Q, K, bias=np.log([[1.0, 3.0]]))
    array([[0.25, 0.75]])
    """
    c = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale
    scores = Q @ repeat_heads(K, Q).mT * c  # (..., T_q, T_k)
    if bias is not None:
        scores = scores + bias
    return softmax(scores, axis=-1) if mask is None else masked_softmax(scores, mask)


@formula("Raffel et al. 2020; Ainslie et al. 2023", r"\mathrm{softmax}\left(c\,QK^T + B\right)V")
def general_attention(
    Q: Any, K: Any, V: Any, mask: Mask | None = None, bias: Any = None, scale: float | None = None
) -> Any:
    r"""Attention as later models have it: with a bias, a scale of its own, and keys shared by heads.

    .. math:: \mathrm{softmax}\left(c\,QK^T + B\right)V

    K and V may have fewer heads than Q. Each then serves a group of query heads that lie side by side
    (grouped-query attention), and only these few need to be kept for generation. Without all that it is
    `attention`.

    Parameters
    ----------
    Q : Tensor or array, shape (..., heads, T_q, d_k)
        Queries.
    K : Tensor or array, shape (..., heads or groups, T_k, d_k)
        Keys.
    V : Tensor or array, shape (..., heads or groups, T_k, d_v)
        Values.
    mask : Mask, optional
        True where a query may attend to a key; all may by default.
    bias : Tensor or array, shape (..., T_q, T_k), optional
        B, added to the scores: for example T5's, (1, heads, T_q, T_k), which depends on the distance.
    scale : float, optional
        c, :math:`1/\sqrt{d_k}` by default.

    Returns
    -------
    Tensor or array, shape (..., heads, T_q, d_v)
        A query with nothing to attend to gives zeros.

    Raises
    ------
    TypeError, ValueError
        If the mask is not a `Mask` or does not fit (..., T_q, T_k), or the heads do not divide into groups.

    Notes
    -----
    Source: the bias: Raffel et al., Exploring the Limits of Transfer Learning, 2020, section 2.1; the groups:
    Ainslie et al., GQA, 2023.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.general_attention(tt.ones((2, 6, 5, 3)), tt.ones((2, 2, 7, 3)), tt.ones((2, 2, 7, 4))).shape
    (2, 6, 5, 4)
    """
    weights = general_attention_weights(Q, K, mask, bias, scale)  # softmax(c Q K^T + B): (..., T_q, T_k)
    return weights @ repeat_heads(V, Q)


@formula("document 3.2", r"\mathrm{softmax}_M\left(\frac{QK^T}{\sqrt{d_k}}\right)V,\; M_{ij} = [j \le i]")
def masked_attention(Q: Any, K: Any, V: Any) -> Any:
    r"""Attention in which no position sees a later one: the masked attention of a decoder.

    .. math:: \mathrm{softmax}_M\left(\frac{QK^T}{\sqrt{d_k}}\right)V,\; M_{ij} = [j \le i]

    Parameters
    ----------
    Q, K, V : Tensor or array, shape (..., T, d)

    Returns
    -------
    Tensor or array, shape (..., T, d)

    Notes
    -----
    Source: document section 3.2.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> V = np.array([[1.0], [3.0]])
    >>> tt.masked_attention(np.zeros((2, 5)), np.zeros((2, 5)), V)
    array([[1.],
           [2.]])
    """
    return attention(Q, K, V, Mask.causal(Q.shape[-2], K.shape[-2]))


def split_heads(x: Any, heads: int) -> Any:
    """Cut the features into heads: (batch, T, h d) becomes (batch, h, T, d).

    Raises
    ------
    ValueError
        If the features do not divide by the number of heads.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.split_heads(tt.ones((2, 5, 12)), 3).shape
    (2, 3, 5, 4)
    """
    batch, T, features = x.shape
    if features % heads:
        raise ValueError(f"split_heads: {features} features do not divide into {heads} heads")
    return x.reshape(batch, T, heads, features // heads).swapaxes(1, 2)


def merge_heads(x: Any) -> Any:
    """Undo `split_heads`, the Concat of document section 4.2: (batch, h, T, d) becomes (batch, T, h d).

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.merge_heads(tt.ones((2, 3, 5, 4))).shape
    (2, 5, 12)
    """
    batch, heads, T, d = x.shape
    return x.swapaxes(1, 2).reshape(batch, T, heads * d)


def repeat_heads(x: Any, Q: Any) -> Any:
    """Repeat each head of keys or values for the heads of Q that share it: (..., heads of Q, T, d).

    What has as many heads as Q already, or a single one for all, is returned as it is.

    Raises
    ------
    ValueError
        If the heads of Q do not divide into as many groups.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.repeat_heads(tt.ones((2, 3, 5, 7)), tt.ones((2, 6, 5, 7))).shape
    (2, 6, 5, 7)
    """
    if Q.ndim < 3 or x.ndim < 3 or not 1 < x.shape[-3] < Q.shape[-3]:
        return x
    *batch, groups, T, d = x.shape
    heads = Q.shape[-3]
    if heads % groups:
        raise ValueError(f"attention: {heads} heads of queries do not divide into {groups} groups")
    x = broadcast_to(expand_dims(x, -3), (*batch, groups, heads // groups, T, d))
    return reshape(x, (*batch, heads, T, d))


@formula(
    "document 4.2",
    r"\mathrm{MultiHead}(Q, K, V) = \mathrm{Concat}(\mathrm{head}_1, \dots, \mathrm{head}_h)W^O",
)
def multi_head_attention(
    Q: Any,
    K: Any,
    V: Any,
    W_Q: Any,
    W_K: Any,
    W_V: Any,
    W_O: Any,
    b_Q: Any = None,
    b_K: Any = None,
    b_V: Any = None,
    b_O: Any = None,
    *,
    heads: int,
    mask: Mask | None = None,
) -> Any:
    r"""Attention in several subspaces at once, joined and mixed by an output matrix.

    .. math::
        \mathrm{MultiHead}(Q, K, V) &= \mathrm{Concat}(\mathrm{head}_1, \dots, \mathrm{head}_h)W^O \\
        \mathrm{head}_i &= \mathrm{Attention}(QW_i^Q, KW_i^K, VW_i^V)

    The h matrices :math:`W_i` stand side by side in one W; biases are optional.

    Parameters
    ----------
    Q : Tensor or array, shape (batch, T_q, d_model)
    K, V : Tensor or array, shape (batch, T_k, d_model)
    W_Q, W_K : Tensor or array, shape (d_model, h d_k)
    W_V : Tensor or array, shape (d_model, h d_v)
    W_O : Tensor or array, shape (h d_v, d_model)
    b_Q, b_K, b_V, b_O : Tensor or array, optional
        Biases, of the length of the second axis of their matrix.
    heads : int
        h.
    mask : Mask, optional
        True where a query may attend to a key; all may by default.

    Returns
    -------
    Tensor or array, shape (batch, T_q, d_model)

    Raises
    ------
    ValueError
        If the columns of a matrix do not divide by the number of heads.

    Notes
    -----
    Source: document section 4.2; Vaswani et al., 2017, section 3.2.2.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x, W = tt.ones((2, 5, 6)), tt.ones((6, 6))
    >>> tt.multi_head_attention(x, x, x, W, W, W, W, heads=3).shape
    (2, 5, 6)
    """
    q = split_heads(linear(Q, W_Q, b_Q), heads)  # (batch, h, T_q, d_k)
    k = split_heads(linear(K, W_K, b_K), heads)  # (batch, h, T_k, d_k)
    v = split_heads(linear(V, W_V, b_V), heads)  # (batch, h, T_k, d_v)
    return linear(merge_heads(attention(q, k, v, mask)), W_O, b_O)  # (batch, T_q, d_model)


@formula("document 4.2", r"\mathrm{MultiHead}(x, x, x)")
def self_attention(
    x: Any,
    W_Q: Any,
    W_K: Any,
    W_V: Any,
    W_O: Any,
    b_Q: Any = None,
    b_K: Any = None,
    b_V: Any = None,
    b_O: Any = None,
    *,
    heads: int,
    mask: Mask | None = None,
) -> Any:
    r"""Multi-head attention of a sequence to itself: queries, keys and values all come from x.

    .. math:: \mathrm{MultiHead}(x, x, x)

    Parameters
    ----------
    x : Tensor or array, shape (batch, T, d_model)
    W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O, heads, mask
        As for `multi_head_attention`.

    Returns
    -------
    Tensor or array, shape (batch, T, d_model)

    Notes
    -----
    Source: document section 4.2; Vaswani et al., 2017, section 3.2.3.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x, W = tt.ones((2, 5, 6)), tt.ones((6, 6))
    >>> tt.self_attention(x, W, W, W, W, heads=3, mask=tt.Mask.causal(5)).shape
    (2, 5, 6)
    """
    return multi_head_attention(x, x, x, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O, heads=heads, mask=mask)
