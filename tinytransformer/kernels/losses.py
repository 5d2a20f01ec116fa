"""The kernel of ``cross_entropy``."""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..formulas import cross_entropy
from ..formulas.losses import checked_targets
from .common import blocks, fusible, scratch
from .softmax import log_sums, sums
from .threads import each


@cross_entropy.kernel
class CrossEntropy:
    """l_n = log sum_v e^(z_nv) - (1 - eps) z_ny - eps / V sum_v z_nv for each target y_n that counts."""

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
        y = checked_targets(logits, targets, ignore_index, reduction).reshape(-1)
        V, eps = logits.shape[-1], label_smoothing
        z = logits.reshape(y.size, V)
        counted = y != ignore_index
        y = xp.where(counted, y, 0)
        log_total = xp.empty((y.size, 1), z.dtype)

        def part(block: Any) -> None:
            log_total[block] = log_sums(z[block], scratch("exponentials", z[block].shape, z.dtype))

        each(part, blocks(y.size, V))
        expected = (1 - eps) * xp.take_along_axis(z, y[:, None], axis=1)
        if eps:
            expected += eps / V * sums(z)
        losses = xp.where(counted, (log_total - expected)[:, 0], 0)
        weights = counted.astype(z.dtype)
        if reduction == "mean":
            weights /= weights.sum().clip(1)
        saved = z, y, log_total, weights[:, None], eps, logits.shape
        if reduction == "none":
            return losses.reshape(logits.shape[:-1]), saved
        return (losses * weights).sum(), saved

    # d log_total / dz_v = p_v, so with the weight w of each row (1/N for the mean, 0 if it does not count):
    #   dL/dz_v = g w (p_v - (1 - eps) [v = y] - eps / V)
    @staticmethod
    def backward(g: Any, out: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dz = g w (p - target), with p = e^(z - log_total) computed in the array of dz."""
        z, y, log_total, weights, eps, shape = saved
        weights = weights * g.reshape(g.size, 1)  # (n, 1)
        dz = xp.empty(z.shape, z.dtype)

        def part(block: Any) -> None:
            d = xp.subtract(z[block], log_total[block], out=dz[block])
            xp.exp(d, out=d)
            if eps:
                d -= eps / z.shape[1]
            d *= weights[block]

        each(part, blocks(*z.shape))
        dz[xp.arange(y.size), y] -= (1 - eps) * weights[:, 0]
        return [dz.reshape(shape)]
