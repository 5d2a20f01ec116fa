"""Fused fast paths, each for one formula: same values, same gradients, one node in the graph.

A kernel takes the formula's place unless ``with tt.formulas():`` says otherwise, and leaves to it what it
was not written for, such as mixed dtypes. What it computes is written above it as an equation; what makes
it fast is one of three things: large matrix products, work in place, and blocks that fit the cache.
"""

from . import (
    activations,
    attention,
    dropout,
    embedding,
    linear,
    losses,
    normalization,
    positions,
    self_attention,
    softmax,
)
from .memory import keep_freed_memory

from . import cuda  # isort: skip - after the kernels that it stands beside

__all__ = [
    "activations",
    "attention",
    "cuda",
    "dropout",
    "embedding",
    "keep_freed_memory",
    "linear",
    "losses",
    "normalization",
    "positions",
    "self_attention",
    "softmax",
]

keep_freed_memory()
