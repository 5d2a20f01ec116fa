"""Models whose values come from a file: made without drawing any, and never far larger than it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

__all__ = ["blank"]


class _Zeros(numpy.random.Generator):
    """Gives zeros as initial values, as many as it may; real ones would take seconds, and be overwritten."""

    def __init__(self, bit_generator: Any, entries: float):
        super().__init__(bit_generator)
        self.left = entries

    def _zeros(self, shape: Any) -> numpy.ndarray:
        self.left -= math.prod(shape) if isinstance(shape, tuple) else shape
        if self.left < 0:
            raise ValueError("its configuration means a larger model than its file has numbers for")
        return numpy.zeros(shape, numpy.float32)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self._zeros(size)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._zeros(size)

    def standard_normal(self, size: Any = None, dtype: Any = numpy.float64, out: Any = None) -> Any:
        return self._zeros(size)


def blank(make: Callable[[numpy.random.Generator], Any], entries: int, rng: numpy.random.Generator) -> Any:
    """Make a model without drawing initial values, and stop before memory is asked for that no file fills.

    Parameters
    ----------
    make : callable
        Makes the model, given a generator.
    entries : int
        Numbers that there are for its parameters. A model of a little more than as many may be made: compare
        what it has with what the file has.
    rng : numpy.random.Generator
        What the model has afterwards, for its dropout.

    Raises
    ------
    ValueError
        If the model would have far more parameters.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> config = GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3)
    >>> model = blank(lambda rng: GPT(config, rng), 4000, numpy.random.default_rng(0))
    >>> float(abs(model.token_embedding.weight).max())
    0.0
    >>> blank(lambda rng: GPT(config, rng), 40, numpy.random.default_rng(0))
    Traceback (most recent call last):
    ValueError: its configuration means a larger model than its file has numbers for
    """
    # a layer draws when it is made, and its model once more
    model = make(_Zeros(rng.bit_generator, 2 * entries))
    for module in model.modules():
        if isinstance(getattr(module, "rng", None), _Zeros):
            module.rng = rng
    return model
