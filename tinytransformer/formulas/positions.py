"""Where a token stands."""

from __future__ import annotations

from typing import Any

from ..autograd import formula
from ..backend import xp
from ..ops import concatenate, cos, sin

__all__ = ["sinusoidal_positions"]


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
