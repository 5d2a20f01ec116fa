"""In which precision the products of linear layers are computed."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ..autograd import Kernel
from ..backend import xp
from ..formulas import linear, self_attention
from .common import fusible

__all__ = ["PRECISIONS", "product_precision"]

PRECISIONS = ("float32", "tf32", "float16")


class LinearInHalf:
    """y = x W + b with the product in float16; what is before and after it is float32."""

    @staticmethod
    def forward(x: Any, W: Any, b: Any = None) -> Any:
        """Save x as rows and W, both in float16."""
        fits = (
            fusible(x, W)
            and x.dtype == numpy.float32
            and x.ndim
            and W.ndim == 2
            and x.shape[-1] == W.shape[0]
        )
        if not fits or not (b is None or (fusible(W, b) and b.shape == W.shape[1:])):
            return NotImplemented
        rows, W = half(x.reshape(math.prod(x.shape[:-1]), W.shape[0])), half(W)
        y = (rows @ W).astype(x.dtype)
        if b is not None:
            y += b
        return y.reshape(*x.shape[:-1], W.shape[1]), (rows, W, x.shape)

    @staticmethod
    def backward(g: Any, y: Any, saved: Any, needs: list[bool]) -> Any:
        """Return dx = g W^T, dW = x^T g, db = sum of the rows of g; small g need a `LossScale`."""
        rows, W, shape = saved
        g = g.reshape(rows.shape[0], W.shape[1])
        g_half = half(g)
        dx = (g_half @ W.T).astype(g.dtype).reshape(shape) if needs[0] else None
        dW = (rows.T @ g_half).astype(g.dtype) if needs[1] else None
        return dx, dW, g.sum(axis=0) if needs[2:] == [True] else None


def half(x: Any) -> Any:
    """Round to float16; what is too large becomes infinite, and is looked for after the step."""
    with numpy.errstate(over="ignore"):
        return x.astype(xp.float16)


class product_precision:  # noqa: N801 - used as a with-block, like use_backend
    """Compute the products of linear layers in another precision inside a ``with`` block.

    Parameters
    ----------
    name : {"float32", "tf32", "float16"}
        ``"tf32"`` lets a GPU of compute capability 8.0 or more round the factors of every float32 product to
        10 bits after the point; NumPy has no such thing and computes in float32. ``"float16"`` rounds factors
        and results of linear layers to float16, and other products are in TF32; on a processor it is slow.

    Raises
    ------
    ValueError
        If the name is none of these.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> with product_precision("float16"):
    ...     float(tt.linear(np.float32([[1.0]]), np.float32([[1 / 3]]))[0, 0])
    0.333251953125
    """

    rounding = False  # whether a GPU may round, in the block that runs

    def __init__(self, name: str):
        if name not in PRECISIONS:
            raise ValueError(f"precision {name!r} is none of {', '.join(PRECISIONS)}")
        self.name = name
        self.before: list[Any] = []  # of each block that was entered, innermost last

    def __enter__(self) -> None:
        self.before.append((linear.fused, self_attention.fused, product_precision.rounding))
        outside = linear.fused.outside if isinstance(linear.fused, _KernelInHalf) else None
        if self.name == "float16" and outside is None:
            linear.fused, self_attention.fused = _KernelInHalf(linear.fused, self_attention.fused), None
        elif self.name != "float16" and outside is not None:
            linear.fused, self_attention.fused = outside
        _let_gpu_round(self.name != "float32")

    def __exit__(self, *_: object) -> None:
        linear.fused, self_attention.fused, rounding = self.before.pop()
        _let_gpu_round(rounding)


class _KernelInHalf(Kernel):
    """The kernel of ``linear`` inside a block, and those of linear and self-attention outside of it.

    Self-attention's has its own products: without it its formula runs, which uses those of linear.
    """

    def __init__(self, *outside: Kernel | None):
        super().__init__(linear, LinearInHalf.forward, LinearInHalf.backward)
        self.outside = outside


def _let_gpu_round(allowed: bool) -> None:
    product_precision.rounding = allowed
    if getattr(xp.module, "__name__", "") == "cupy":
        products = xp.module._core._routines_linalg  # CuPy's only switch that acts after its import
        kind = products.COMPUTE_TYPE_TF32 if allowed else products.COMPUTE_TYPE_DEFAULT
        products.set_compute_type(numpy.float32, kind)
