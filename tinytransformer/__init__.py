"""Language models from scratch in NumPy: each formula reads as its equation, and trains at full speed.

``import tinytransformer as tt`` loads the core: Tensors with NumPy's names, gradients of any order, and
the formulas of the Transformer. ``tt.nn``, ``tt.models``, ``tt.text`` and the rest load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The Tensor comes first; functions that share the name of a module come after it.
# "x as x" tells type checkers that x is public.
# isort: off
from .tensor import Tensor as Tensor, tensor as tensor
from .tensor import arange as arange, eye as eye, full as full, ones as ones, zeros as zeros
from .ops import *  # noqa: F403
from .formulas import *  # noqa: F403
from . import kernels as kernels
from .autograd import Formula as Formula, Primitive as Primitive, formula as formula, primitive as primitive
from .autograd import formulas as formulas, grad as grad, no_grad as no_grad
from .backend import BackendError as BackendError, available_backends as available_backends
from .backend import use_backend as use_backend
from .gradcheck import GradientError as GradientError, gradcheck as gradcheck
# isort: on

__version__ = "0.1.0"

_LAZY = ("generation", "models", "nn", "optim", "plotting", "pretrained", "tasks", "text", "training")

if TYPE_CHECKING:
    from . import generation as generation
    from . import models as models
    from . import nn as nn
    from . import optim as optim
    from . import plotting as plotting
    from . import pretrained as pretrained
    from . import tasks as tasks
    from . import text as text
    from . import training as training
    from .nn import checkpoint as checkpoint


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name == "checkpoint":
        return importlib.import_module(".nn", __name__).checkpoint
    raise AttributeError(f"module 'tinytransformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, "checkpoint"])
