"""Clipping: no step is longer because one batch was extreme."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy

from ..backend import backend_name, module_of, running, xp
from ..tensor import Tensor
from .flat import flatten

__all__ = ["clip_grad_norm"]


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Any:
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
        The norm :math:`\lVert g \rVert_2` before clipping. On a GPU it is an array without axes, so that the
        host need not wait for it; ``float(norm)`` does.

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
    if backend_name(gradients[0].data) != "numpy":
        return _clip_without_waiting(gradients, max_norm)
    with numpy.errstate(over="ignore", invalid="ignore"):  # an infinite norm is returned, not warned of
        flat = [g.data.reshape(-1) for g in gradients]
        norm = math.sqrt(sum(module_of(g).dot(g, g) for g in flat))
    if math.isfinite(norm) and norm > max_norm:
        for g in gradients:
            g.data *= max_norm / norm
            g.mark_changed()
    return norm


def _clip_without_waiting(gradients: list[Tensor], max_norm: float) -> Any:
    """Clip all as one array: a GPU wants few operations on much."""
    flat = flatten(gradients)
    with running(module_of(flat)):
        norm = xp.sqrt(xp.dot(flat, flat))
        flat *= xp.where((norm > max_norm) & (norm < math.inf), max_norm / norm, 1)
    return norm
