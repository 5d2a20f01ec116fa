"""The kernel of ``embedding``."""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..formulas import embedding
from ..formulas.layers import checked_ids
from . import common
from .common import fusible


@embedding.kernel
class Embedding:
    """y_t = W[ids_t]."""

    @staticmethod
    def forward(ids: Any, W: Any) -> Any:
        """Copy rows of W; save the ids."""
        if not (fusible(W) and W.ndim == 2 and W.size):
            return NotImplemented
        ids = checked_ids(ids, W.shape[0], "embedding", xp)
        return xp.take(W, ids, axis=0), (ids, W.shape)

    # dL/dW_v = sum over all t with ids_t = v of dL/dy_t
    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Add each row of g to the row of dW it came from; rows that were taken twice are added to twice."""
        ids, (V, d) = saved
        g, ids = g.reshape(ids.size, d), ids.reshape(ids.size).astype(xp.intp)
        dW = xp.zeros((V, d), g.dtype)
        if g.size > common.BLOCK:
            add_groups(dW, ids, g)
        else:  # little to add: entry by entry, for `add.at` is five times slower on whole rows
            xp.add.at(dW.reshape(-1), (ids[:, None] * d + xp.arange(d)).ravel(), g.ravel())
        return None, dW


def add_groups(dW: Any, ids: Any, g: Any) -> None:
    """Write the sum of the rows of each id; ids that occur equally often are summed together.

    A sum of n rows is a product with n ones, and the products for all ids of one count are one call.
    """
    order = xp.argsort(ids, kind="stable")
    found, starts, counts = xp.unique(ids[order], return_index=True, return_counts=True)
    for n in xp.unique(counts):
        same = counts == n  # m ids
        rows = order[starts[same, None] + xp.arange(n)]  # (m, n)
        for block in common.blocks(rows.shape[0], n * g.shape[1]):
            dW[found[same][block]] = xp.ones(n, g.dtype) @ xp.take(g, rows[block], axis=0)  # (m, d)
