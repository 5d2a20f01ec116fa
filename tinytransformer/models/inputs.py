"""What models have in common at both ends: token ids and masks that are given, and matrices to start with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ..autograd import raw
from ..backend import module_of, to_numpy, xp
from ..formulas import Mask
from ..nn import Module

__all__ = ["causal", "draw_normal", "padding", "token_ids"]


def token_ids(model: Any, ids: Any) -> Any:
    """Return the ids (batch, T) that a model was given as an array; another shape is refused."""
    ids = numpy.asarray(ids) if isinstance(ids, (list, tuple)) else raw(ids)
    if ids.ndim != 2:
        name = type(model).__name__
        raise ValueError(f"{name}: input_ids must have shape (batch, T), not {tuple(ids.shape)}")
    return ids


def padding(attention_mask: Any) -> Any:
    """Make a mask of a (batch, T) that is 0 at padding; None stays None."""
    if attention_mask is None:
        return None
    return Mask(xp.asarray((to_numpy(raw(attention_mask)) != 0)[:, None, :]))


def causal(T: int, past: int, attention_mask: Any) -> Mask:
    """Let T tokens attend to themselves, what is before them, ``past`` of it cached, and no padding."""
    mask = Mask.causal(T, past + T)  # (T, past + T), and with padding (batch, T, past + T)
    return mask if attention_mask is None else mask & padding(attention_mask)


def draw_normal(module: Module, rng: numpy.random.Generator, deviation: Callable[[str, Any], float]) -> None:
    """Draw each matrix of a model around 0 with the deviation for its name; biases become 0, gains stay."""
    for name, p in module.named_parameters():
        if name.endswith("bias"):
            p.data[...] = 0
        elif p.ndim == 2:
            p.data[...] = module_of(p.data).asarray(rng.normal(0.0, deviation(name, p), p.shape))
