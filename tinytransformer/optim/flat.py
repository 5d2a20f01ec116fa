"""Gradients side by side in one array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..backend import module_of
from ..tensor import Tensor

__all__ = ["flatten_gradients"]


def flatten_gradients(parameters: Iterable[Tensor]) -> Any:
    """Lay all gradients side by side in one new array; each ``grad`` becomes a view of its part.

    What is then done to the array, such as scaling it or adding up those of several processes, is done to
    every gradient, in one operation.

    Parameters
    ----------
    parameters : iterable of Parameter
        On one backend. Those without gradient are passed over.

    Returns
    -------
    array, 1-D

    Raises
    ------
    ValueError
        If there is no gradient, or their dtypes differ.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> w = tt.nn.Parameter([1.0, 1.0])
    >>> (w * [3.0, 4.0]).sum().backward()
    >>> flat = flatten_gradients([w])
    >>> flat *= 2
    >>> w.grad.tolist()
    [6.0, 8.0]
    """
    return flatten([p.grad for p in parameters if p.grad is not None])


def flatten(gradients: list[Tensor]) -> Any:
    """Do it for the gradients themselves."""
    dtypes = sorted({str(g.dtype) for g in gradients})
    if len(dtypes) != 1:
        raise ValueError(
            f"flatten_gradients: one dtype is needed, not {' and '.join(dtypes) or 'no gradient'}"
        )
    flat = module_of(gradients[0].data).concatenate([g.data.reshape(-1) for g in gradients])
    start = 0
    for g in gradients:
        g.data = flat[start : start + g.size].reshape(g.shape)
        g.mark_changed()
        start += g.size
    return flat
