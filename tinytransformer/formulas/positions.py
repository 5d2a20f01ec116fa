"""Where a token stands."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import formula, raw
from ..backend import module_of, xp
from ..ops import concatenate, cos, sin

__all__ = ["relative_position_bucket", "rotary_positions", "sinusoidal_positions"]


@formula(
    "document 3.1",
    r"\mathrm{PE}_{p,2i} = \sin(p / 10000^{2i/d}),\; \mathrm{PE}_{p,2i+1} = \cos(p / 10000^{2i/d})",
)
def sinusoidal_positions(positions: Any, d: int, dtype: Any = "float32") -> Any:
    r"""Sines and cosines of the position, in wavelengths from 2 pi to 10000 times 2 pi.

    .. math::
        \mathrm{PE}_{p,2i} = \sin(p / 10000^{2i/d}),\quad \mathrm{PE}_{p,2i+1} = \cos(p / 10000^{2i/d})

    Parameters
    ----------
    positions : int or integer array, shape (...)
        The positions p; an integer T stands for 0, 1, …, T - 1.
    d : int
        Number of features, even.
    dtype : dtype
        Of the result; angles are computed in float64.

    Returns
    -------
    array, shape (..., d)

    Raises
    ------
    ValueError
        If d is odd.

    Notes
    -----
    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.5.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.sinusoidal_positions(2, 4, "float64").round(4)
    array([[0.    , 1.    , 0.    , 1.    ],
           [0.8415, 0.5403, 0.01  , 1.    ]])
    """
    if d % 2:
        raise ValueError(f"sinusoidal_positions: the number of features must be even, not {d}")
    p = xp.arange(positions) if isinstance(positions, int) else xp.asarray(positions)
    two_i = xp.arange(0, d, 2, dtype="float64")
    angles = p[..., None] / 10000 ** (two_i / d)  # (..., d/2)
    pairs = concatenate([sin(angles)[..., None], cos(angles)[..., None]], axis=-1)  # (..., d/2, 2)
    return pairs.reshape(*p.shape, d).astype(dtype)


@formula(
    "Su et al. 2021",
    r"\begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix} \mapsto \begin{pmatrix} \cos\phi & -\sin\phi \\ "
    r"\sin\phi & \cos\phi \end{pmatrix} \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix},\; "
    r"\phi = p\,\theta^{-2i/d}",
)
def rotary_positions(x: Any, positions: Any, theta: float = 10000.0) -> Any:
    r"""Rotate pairs of features by angles that grow with the position (RoPE).

    .. math::
        \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix} \mapsto
        \begin{pmatrix} \cos\phi & -\sin\phi \\ \sin\phi & \cos\phi \end{pmatrix}
        \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix},
        \quad \phi = p\,\theta^{-2i/d}, \quad 0 \le i < d/2

    A query rotated by its position and a key rotated by its own have a product that depends on the
    distance of the two alone.

    Parameters
    ----------
    x : Tensor or array, shape (..., T, d)
        Queries or keys, of which d is even: usually (batch, heads, T, d_k).
    positions : integer array, shape (T,) or (batch, T)
        The position p of each token; with a batch, x has an axis for heads between batch and T.
    theta : float
        Base of the wavelengths, from 2 pi almost to theta times 2 pi.

    Returns
    -------
    Tensor or array
        Of the shape and dtype of x; the angles are computed in float64.

    Raises
    ------
    ValueError
        If d is odd.

    Notes
    -----
    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, equation 15. A
    pair is a feature of the first half and the same of the second, as in the checkpoints of Llama that
    ``transformers`` reads; the paper pairs neighbours, which is another order of the columns of W_Q and W_K.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> tt.rotary_positions(x, np.array([0, 1])).round(4)
    array([[1.    , 0.    ],
           [0.5403, 0.8415]])
    """
    cosine, sine = rotation(x, positions, theta)  # (..., T, d/2)
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def rotation(x: Any, positions: Any, theta: float) -> tuple[Any, Any]:
    """Return cosine and sine of the angles by which `rotary_positions` rotates x, as arrays of its kind."""
    d, xp = x.shape[-1], module_of(raw(x))
    if d % 2:
        raise ValueError(f"rotary_positions: the number of features must be even, not {d}")
    p = xp.asarray(raw(positions))
    angles = p[..., None] * theta ** (-xp.arange(0, d, 2, dtype="float64") / d)  # (..., T, d/2)
    if p.ndim > 1:
        angles = angles[..., None, :, :]  # the same for all heads
    return xp.cos(angles).astype(x.dtype), xp.sin(angles).astype(x.dtype)


@formula(
    "Raffel et al. 2020",
    r"b(n) = \begin{cases} n & n < E \\ \min\left(E + \left\lfloor \dfrac{\ln(n/E)}{\ln(D/E)}\,(N - E) "
    r"\right\rfloor, N - 1\right) & n \ge E \end{cases} \qquad E = N/2",
)
def relative_position_bucket(
    distance: Any, bidirectional: bool = True, buckets: int = 32, max_distance: int = 128
) -> Any:
    r"""Which of a few buckets a distance falls into: one for each near one, fewer and fewer for far ones.

    .. math::
        b(n) = \begin{cases} n & n < E \\
        \min\left(E + \left\lfloor \dfrac{\ln(n/E)}{\ln(D/E)}\,(N - E) \right\rfloor, N - 1\right) & n \ge E
        \end{cases} \qquad E = N/2

    In a decoder, n is how far the key stands before the query, 0 for a key after it. With ``bidirectional``,
    n is the distance either way, N is half the number of buckets, and keys after the query get N + b(n).

    Parameters
    ----------
    distance : integer array, any shape
        Position of the key minus position of the query.
    bidirectional : bool
        Tell keys before the query from keys after it, as in an encoder.
    buckets : int
        How many there are in all.
    max_distance : int
        D: from here on, all distances share the last bucket.

    Returns
    -------
    integer array, of the shape of ``distance``
        Buckets in [0, ``buckets``).

    Raises
    ------
    ValueError
        If there are too few buckets for a logarithmic part, or D does not lie beyond the exact part.

    Notes
    -----
    Source: Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    2020, section 2.1; the formula is that of its published code.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.relative_position_bucket([-200, -20, -2, -1, 0, 1, 2, 20, 200])
    array([15, 10,  2,  1,  0, 17, 18, 26, 31])
    >>> tt.relative_position_bucket([-200, -20, -2, -1, 0, 1], bidirectional=False)
    array([31, 17,  2,  1,  0,  0])
    """
    r = xp.asarray(raw(distance))
    if bidirectional:
        N, first, n = buckets // 2, buckets // 2 * (r > 0), xp.abs(r)
    else:
        N, first, n = buckets, 0, xp.maximum(-r, 0)
    E = N // 2
    if not 0 < E < max_distance:
        raise ValueError(
            f"relative_position_bucket: {buckets} buckets do not cover distances up to {max_distance}: "
            "take at least 4 buckets, and a larger max_distance"
        )
    share = xp.log(xp.maximum(n, E) / E) / math.log(max_distance / E)  # from 0 at E to 1 at max_distance
    far = xp.minimum(E + (share * (N - E)).astype(int), N - 1)
    return first + xp.where(n < E, n, far)
