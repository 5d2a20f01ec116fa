"""Language models from scratch in NumPy: each formula reads as its equation, and trains at full speed.

``import tinytransformer as tt`` loads the core: Tensors with NumPy's names, gradients of any order, and
the formulas of the Transformer. ``tt.nn``, ``tt.models``, ``tt.text`` and the rest load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .tensor import Tensor, arange, eye, full, ones, tensor, zeros  # isort: skip - must come first
from .autograd import Formula, Primitive, formula, formulas, grad, no_grad, primitive
from .backend import BackendError, available_backends, use_backend
from .formulas import *  # noqa: F403
from .gradcheck import GradientError, gradcheck
from .ops import *  # noqa: F403

__version__ = "0.1.0"

_LAZY = ("generation", "models", "nn", "optim", "plotting", "text", "training")

if TYPE_CHECKING:
    from . import generation, models, nn, optim, plotting, text, training


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'tinytransformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
