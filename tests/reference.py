"""The numbers that fixtures and tests agree on without storing them: the same on every machine."""

import numpy as np

DIRECTIONS = 3


def cotangent(shape):
    """A gradient of the output, with no two entries alike."""
    return np.cos(1.7 * np.arange(np.prod(shape)) ** 1.1).reshape(shape)


def direction(size, k):
    """The k-th direction along which a gradient of so many entries is looked at."""
    return np.cos((k + 2.3) * np.arange(size) ** 1.2)
