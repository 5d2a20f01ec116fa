"""The GPU's kernels of ``gelu``, ``gelu_tanh`` and ``silu``: one pass forward, one back."""

from __future__ import annotations

from typing import Any

from ...autograd import Formula
from ...backend import xp
from ...formulas import gelu, gelu_tanh, silu
from ..common import fusible
from .device import dense, launch_entries, on_gpu


def declare(formula: Formula) -> None:
    """Give an activation its kernel, whose functions in the source bear its name."""

    @on_gpu(formula)
    class Activation:
        """Entry by entry."""

        @staticmethod
        def forward(x: Any) -> Any:
            """Save x."""
            if not fusible(x):
                return NotImplemented
            x = dense(x)
            y = xp.empty(x.shape, x.dtype)
            launch_entries(formula.name, x.size, x, y, xp.int64(x.size))
            return y, x

        @staticmethod
        def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
            """Return dx = g dy/dx."""
            dx = xp.empty(saved.shape, saved.dtype)
            launch_entries(f"{formula.name}_gradient", saved.size, dense(g), saved, dx, xp.int64(saved.size))
            return [dx]


for _formula in (gelu, gelu_tanh, silu):
    declare(_formula)
