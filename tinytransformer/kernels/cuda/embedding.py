"""The GPU's kernel of ``embedding``."""

from __future__ import annotations

from typing import Any

from ...backend import xp
from ...formulas import embedding
from ..common import fusible
from ..embedding import Embedding as OnHost
from .device import dense, launch_rows, on_gpu


@on_gpu(embedding)
class Embedding:
    """Forward as on the host; the gradient is summed row by row of the table, in an order that stays."""

    @staticmethod
    def forward(ids: Any, W: Any) -> Any:
        """Copy rows of W; save the ids."""
        if not (fusible(W) and W.ndim == 2 and W.size):
            return NotImplemented
        return OnHost.forward(ids, W)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Sort the ids, so that the rows of g that belong to one row of W lie side by side."""
        ids, (V, d) = saved
        ids = ids.reshape(-1)
        order = xp.argsort(ids)
        starts = xp.searchsorted(ids[order], xp.arange(V + 1, dtype=ids.dtype))
        dW = xp.empty((V, d), g.dtype)
        order, starts = (dense(array.astype(xp.int64)) for array in (order, starts))
        launch_rows("embedding_gradient", V, d, dense(g), order, starts, dW, d)
        return None, dW
