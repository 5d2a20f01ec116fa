"""Optimizers, learning-rate schedules and gradient clipping, with PyTorch's names."""

from .clipping import clip_grad_norm
from .flat import flatten_gradients
from .optimizers import SGD, Adam, AdamW, Optimizer, decay_groups, layerwise_groups
from .schedules import Constant, Noam, WarmupCosine, WarmupLinear

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Noam",
    "Optimizer",
    "WarmupCosine",
    "WarmupLinear",
    "clip_grad_norm",
    "decay_groups",
    "flatten_gradients",
    "layerwise_groups",
]
