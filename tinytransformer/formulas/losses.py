"""What training makes small."""

from __future__ import annotations

from typing import Any

from ..autograd import formula, raw
from ..backend import module_of
from ..ops import mean, take_along_axis
from .activations import log_softmax
from .layers import checked_ids

__all__ = ["cross_entropy"]


@formula("document 2.1", r"-\frac1N \sum_n \log p_n(y_n)")
def cross_entropy(
    logits: Any,
    targets: Any,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    r"""Mean negative logarithm of the probability given to the right class, in nats.

    .. math:: -\frac1N \sum_n \log p_n(y_n), \quad p_n = \mathrm{softmax}(z_n)

    With label smoothing :math:`\varepsilon` it is

    .. math::
        -\frac1N \sum_n \left[(1 - \varepsilon) \log p_n(y_n)
        + \frac{\varepsilon}{V} \sum_v \log p_n(v)\right].

    Its exponential is the perplexity; uniform predictions give log V.

    Parameters
    ----------
    logits : Tensor or array, shape (..., V)
        Scores z before the softmax.
    targets : integer array, shape (...)
        The right class y in [0, V), or ``ignore_index`` where none counts.
    ignore_index : int
        Targets with this value are left out of sum and mean.
    label_smoothing : float
        :math:`\varepsilon`, the part of the target spread over all classes.
    reduction : {"mean", "sum", "none"}
        Mean over the N targets that count (0 where none does), their sum, or one loss for each target.

    Returns
    -------
    Tensor or array
        A single number, or with "none" the shape of the targets.

    Raises
    ------
    IndexError
        If a target is neither in [0, V) nor ``ignore_index``.
    ValueError
        If the targets have another shape than the logits without their last axis.

    Notes
    -----
    Source: the chain rule of probability in document section 2.1; label smoothing: Szegedy et al. 2016.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    >>> float(tt.cross_entropy(logits, [1, -100]))  # log 4
    1.3862943611198906
    """
    y = checked_targets(logits, targets, ignore_index, reduction)
    counted = y != ignore_index
    log_p = log_softmax(logits, axis=-1)  # (..., V)
    right = take_along_axis(log_p, (y * counted)[..., None], axis=-1)[..., 0]  # (...)
    if label_smoothing:
        right = (1 - label_smoothing) * right + label_smoothing * mean(log_p, axis=-1)
    losses = -right * counted
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / counted.sum().clip(1).astype(logits.dtype)


def checked_targets(logits: Any, targets: Any, ignore_index: int, reduction: str) -> Any:
    """Return the targets as an array where the logits live, once shape and values are known to be right."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction {reduction!r} is none of 'mean', 'sum', 'none'")
    y = checked_ids(targets, logits.shape[-1], "cross_entropy", module_of(raw(logits)), ignore_index)
    if y.shape != tuple(logits.shape[:-1]):
        raise ValueError(
            f"cross_entropy: targets of shape {y.shape} for logits of shape {tuple(logits.shape)}; "
            "targets have the shape of the logits without their last axis"
        )
    return y
