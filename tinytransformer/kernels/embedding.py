"""The kernel of ``embedding``."""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..formulas import embedding
from ..formulas.layers import checked_ids
from .common import blocks, fusible


@embedding.kernel
class Embedding:
    """y_t = W[ids_t]."""

    @staticmethod
    def forward(ids: Any, W: Any) -> Any:
        """Copy rows of W; save the ids."""
        if not (fusible(W) and W.ndim == 2):
            return NotImplemented
        ids = checked_ids(ids, W.shape[0], "embedding", xp)
        return xp.take(W, ids, axis=0), (ids, W.shape)

    # dL/dW_v = sum over all t with ids_t = v of dL/dy_t
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Add each row of g to the row of dW it came from; rows that were taken twice are added to twice."""
        ids, (V, d) = saved
        g, starts = g.reshape(ids.size, d), ids.reshape(ids.size, 1).astype(xp.intp) * d
        dW = xp.zeros(V * d, g.dtype)
        columns = xp.arange(d)
        for block in blocks(ids.size, d):  # entry by entry: `add.at` is five times slower on whole rows
            xp.add.at(dW, (starts[block] + columns).ravel(), g[block].ravel())
        return None, dW.reshape(V, d)
