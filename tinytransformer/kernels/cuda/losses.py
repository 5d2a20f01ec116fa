"""The GPU's kernel of ``cross_entropy``."""

from __future__ import annotations

from typing import Any

from ...backend import xp
from ...formulas import cross_entropy
from ...formulas.losses import checked_targets
from ..common import fusible
from .device import dense, launch_rows, on_gpu, real


@on_gpu(cross_entropy)
class CrossEntropy:
    """One block for each target: two passes over its logits forward, one back."""

    @staticmethod
    def forward(
        logits: Any,
        targets: Any,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Any:
        """Compute the losses; save one number for each row, and no array of the size of the logits."""
        if not fusible(logits):
            return NotImplemented
        y = checked_targets(logits, targets, ignore_index, reduction).reshape(-1).astype(xp.int64)
        z, V = dense(logits), logits.shape[-1]
        log_total, losses = (xp.empty(y.size, z.dtype) for _ in range(2))
        eps = real(label_smoothing, z)
        launch_rows("cross_entropy", y.size, V, z, y, log_total, losses, V, xp.int64(ignore_index), eps)
        weights = (y != ignore_index).astype(z.dtype)
        if reduction == "mean":
            weights /= weights.sum().clip(1)
        saved = z, y, log_total, weights, eps
        if reduction == "none":
            return losses.reshape(logits.shape[:-1]), saved
        return (losses * weights).sum(), saved

    @staticmethod
    def backward(g: Any, out: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dz = g w (p - target)."""
        z, y, log_total, weights, eps = saved
        weights = weights * g.reshape(-1)
        dz = xp.empty(z.shape, z.dtype)
        V = z.shape[-1]
        launch_rows("cross_entropy_gradient", y.size, V, z, y, log_total, weights, dz, V, eps)
        return [dz]
