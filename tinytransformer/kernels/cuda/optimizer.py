"""The GPU's step of Adam and AdamW: one pass over parameters, gradient and moments."""

from __future__ import annotations

from typing import Any

from ...backend import xp
from .device import dense, launch_entries


def adam(
    p: Any, g: Any, moments: Any, t: int, lr: float, group: dict[str, Any], l2: float, decay: float
) -> None:
    """Take the t-th step in place; ``l2`` is the decay of `Adam`, ``decay`` that of `AdamW`."""
    beta1, beta2 = group["betas"]
    corrections = 1 - beta1**t, 1 - beta2**t
    numbers = map(float, (lr, beta1, beta2, group["eps"], *corrections, l2, decay))
    launch_entries("adam", p.size, p, dense(g), *moments, xp.int64(p.size), *numbers)
