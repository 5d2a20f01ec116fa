"""Schedules: the learning rate as a function of the step, which counts from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Constant", "Noam", "WarmupCosine", "WarmupLinear"]


@dataclass(frozen=True)
class Constant:
    """The same learning rate at every step.

    Parameters
    ----------
    peak : float
        The learning rate.

    Examples
    --------
    >>> Constant(0.1)(7)
    0.1
    """

    peak: float

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.peak


@dataclass(frozen=True)
class _Warmup:
    peak: float
    warmup: int
    total: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= self.total:
            raise ValueError(
                f"{type(self).__name__}: warmup={self.warmup} steps must lie between 0 and total={self.total}"
            )

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if step >= self.total:
            return self.floor
        done = (step - self.warmup) / (self.total - self.warmup)  # from 0 to 1
        return self.floor + (self.peak - self.floor) * self.left(done)

    def left(self, done: float) -> float:
        """Return how much of the way from the floor to the peak is left, from 1 to 0."""
        raise AttributeError(f"{type(self).__name__} defines no left()")


class WarmupCosine(_Warmup):
    r"""Rise linearly over ``warmup`` steps, then fall along half a cosine.

    .. math::
        \eta_s = \begin{cases}
        \eta_{\max} (s + 1) / w & s < w \\
        \eta_{\min} + \tfrac12 (\eta_{\max} - \eta_{\min}) (1 + \cos \pi \frac{s - w}{T - w}) & w \le s < T \\
        \eta_{\min} & s \ge T \end{cases}

    Parameters
    ----------
    peak : float
        :math:`\eta_{\max}`, reached by the last step of the warm-up.
    warmup : int
        w, steps; the first already moves.
    total : int
        T, steps after which the floor is reached.
    floor : float
        :math:`\eta_{\min}`.

    Raises
    ------
    ValueError
        If not 0 <= warmup <= total.

    Notes
    -----
    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5.

    Examples
    --------
    >>> rate = WarmupCosine(peak=1.0, warmup=2, total=6)
    >>> [round(rate(step), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def left(self, done: float) -> float:
        """Return (1 + cos(pi done)) / 2."""
        return 0.5 * (1 + math.cos(math.pi * done))


class WarmupLinear(_Warmup):
    r"""Rise linearly over ``warmup`` steps, then fall linearly.

    .. math::
        \eta_s = \begin{cases}
        \eta_{\max} (s + 1) / w & s < w \\
        \eta_{\min} + (\eta_{\max} - \eta_{\min}) (1 - \frac{s - w}{T - w}) & w \le s < T \\
        \eta_{\min} & s \ge T \end{cases}

    Parameters
    ----------
    peak, warmup, total, floor
        As for `WarmupCosine`.

    Raises
    ------
    ValueError
        If not 0 <= warmup <= total.

    Notes
    -----
    Source: Devlin et al., BERT, 2019, appendix A.2.

    Examples
    --------
    >>> rate = WarmupLinear(peak=1.0, warmup=2, total=6)
    >>> [rate(step) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def left(self, done: float) -> float:
        """Return 1 - done."""
        return 1 - done


@dataclass(frozen=True)
class Noam:
    r"""Rise linearly over ``warmup`` steps, then fall with the inverse square root of the step.

    .. math:: \eta_s = f\, d^{-1/2} \min(n^{-1/2},\, n\, w^{-3/2}), \qquad n = s + 1

    The peak, at n = w, is :math:`f / \sqrt{d w}`.

    Parameters
    ----------
    d_model : int
        d.
    warmup : int
        w, steps, at least 1.
    factor : float
        f.

    Raises
    ------
    ValueError
        If warmup is below 1.

    Notes
    -----
    Source: Vaswani et al., Attention Is All You Need, 2017, equation 3.

    Examples
    --------
    >>> rate = Noam(d_model=512, warmup=4000)
    >>> f"{rate(3999):.2e}"
    '6.99e-04'
    """

    d_model: int
    warmup: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.warmup < 1:
            raise ValueError(f"Noam: warmup must be at least 1 step, not {self.warmup}")

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        n = step + 1
        return self.factor * self.d_model**-0.5 * min(n**-0.5, n * self.warmup**-1.5)
