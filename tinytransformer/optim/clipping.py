"""Clipping: no step is longer because one batch was extreme."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy

from ..backend import module_of
from ..tensor import Tensor

__all__ = ["clip_grad_norm"]


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    r"""Scale all gradients together, in place, so that their joint norm is at most ``max_norm``.

    .. math:: g \leftarrow g \cdot \min\left(1, \frac{c}{\lVert g \rVert_2}\right)

    If the norm is NaN or infinite the gradients stay as they are: look at what is returned before the step.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without gradient are passed over.
    max_norm : float
        c; ``math.inf`` only measures.

    Returns
    -------
    float
        The norm :math:`\lVert g \rVert_2` before clipping.

    Raises
    ------
    ValueError
        If ``max_norm`` is not above 0.

    Notes
    -----
    Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> w = tt.nn.Parameter([1.0, 1.0])
    >>> (w * [3.0, 4.0]).sum().backward()
    >>> clip_grad_norm([w], max_norm=1.0), w.grad.numpy().round(3).tolist()
    (5.0, [0.6000000238418579, 0.800000011920929])
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be above 0, not {max_norm}")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    with numpy.errstate(over="ignore", invalid="ignore"):  # an infinite norm is returned, not warned of
        flat = [g.data.reshape(-1) for g in gradients]
        norm = math.sqrt(sum(module_of(g).dot(g, g) for g in flat))
    if math.isfinite(norm) and norm > max_norm:
        for g in gradients:
            g.data *= max_norm / norm
            g.mark_changed()
    return norm
