"""Loss scaling, which keeps small gradients above what float16 can tell from 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..tensor import Tensor

__all__ = ["LossScale"]


@dataclasses.dataclass
class LossScale:
    """A factor on the loss, and so on every gradient, that follows what float16 can hold.

    It doubles after a number of good steps. When a gradient has overflowed the step is left out and the
    factor halved. It is a power of 2: nothing is rounded when it is divided out again.

    Parameters
    ----------
    value : float
        The factor; 1 with ``patience`` 0 never changes.
    patience : int
        Good steps before it doubles.
    good : int
        Good steps since it changed.

    Notes
    -----
    Source: Micikevicius et al., Mixed Precision Training, 2018, section 3.2.

    Examples
    --------
    >>> scale = LossScale(1024.0, patience=2)
    >>> scale.update(overflowed=True), scale.value
    (True, 512.0)
    >>> scale.update(overflowed=False), scale.update(overflowed=False), scale.value
    (False, False, 1024.0)
    """

    value: float = 65536.0
    patience: int = 1000
    good: int = 0

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """Return the scale that a precision needs: one for float16, none for the others."""
        return cls() if precision == "float16" else cls(1.0, patience=0)

    def divide_out(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients by the factor."""
        if self.value != 1:
            for p in parameters:
                if p.grad is not None:
                    p.grad.data *= 1 / self.value
                    p.grad.mark_changed()

    def update(self, overflowed: bool) -> bool:
        """Adapt the factor; return True if the step is left out, as a smaller factor may do better."""
        if overflowed and not self.patience:
            return False
        if overflowed:
            self.good = 0
            self.value /= 2
            return self.value >= 1
        self.good += 1
        if self.good == self.patience:
            self.good = 0
            self.value *= 2
        return False
