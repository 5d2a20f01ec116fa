"""How a formula gets a kernel for the GPU, and how a kernel written in CUDA is compiled and launched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import numpy

from ...autograd import Formula, Kernel
from ...backend import is_array, module_of, xp
from ...tensor import Tensor

FILES = "blocks softmax attention normalization activations losses embedding optimizer"
ENTRIES_PER_THREAD = 4  # of a row: fewer threads have to be joined, and each keeps several reads in flight
MOST_THREADS = 256
SCALARS: dict[type, Any] = {int: numpy.int32, bool: numpy.bool_, float: numpy.float64}
MOST_BLOCKS = 4096  # of kernels whose threads take entries in turns: enough to fill any GPU


def runs_kernels(module: Any) -> bool:
    """Return True if arrays of this module live where the kernels run."""
    return module is not numpy and hasattr(module, "RawModule")


class HostAndGPU(Kernel):
    """The kernel of a formula on the processor, which yields to another where the arrays live on a GPU."""

    def __init__(self, host: Kernel, forward: Callable, backward: Callable):
        super().__init__(host.formula, host.forward, host.backward)
        self.on_gpu = Kernel(host.formula, forward, backward)

    def apply(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run where the arrays are; what the GPU's kernel declines, the other takes there too."""
        tensors = [a.data for a in args if isinstance(a, Tensor)]  # ids may come from the host
        first = next((a for a in tensors or args if is_array(a)), None)
        if runs_kernels(xp.module if first is None else module_of(first)):
            y = self.on_gpu.apply(args, kwargs)
            if y is not NotImplemented:
                return y
        return super().apply(args, kwargs)


def on_gpu(formula: Formula) -> Callable[[type], type]:
    """Declare the kernel of a formula for the GPU: a class with ``forward`` and ``backward``."""

    def declare(pair: type) -> type:
        assert formula.fused is not None
        formula.fused = HostAndGPU(formula.fused, pair.forward, pair.backward)  # type: ignore[attr-defined]
        return pair

    return declare


def source() -> str:
    """Return the CUDA source of all kernels; ``real`` in it stands for float or double."""
    folder = resources.files(__package__)
    return "\n".join(folder.joinpath(f"{name}.cu").read_text(encoding="utf-8") for name in FILES.split())


@cache
def _compiled(module: Any, kind: str) -> Any:
    return module.RawModule(code=source(), options=(f"-Dreal={kind}", "-std=c++17"))


@cache
def _function(module: Any, kind: str, name: str) -> Any:
    return _compiled(module, kind).get_function(name)


def launch(name: str, blocks: tuple[int, ...], threads: int, *arguments: Any) -> None:
    """Start a kernel; the host goes on at once. Nothing is started for no blocks.

    Parameters
    ----------
    name : str
        Of the function in the source.
    blocks : tuple of int
        Length of each axis of the grid.
    threads : int
        In each block, whole warps.
    arguments : arrays without gaps, int, bool, float and NumPy scalars
        The first is an array, whose dtype is ``real``. An int is passed as C's int, which has 32 bits, and
        a float as C's double.
    """
    if 0 in blocks:
        return
    kind = {"f": "float", "d": "double"}[arguments[0].dtype.char]
    passed = tuple(SCALARS[type(a)](a) if type(a) in SCALARS else a for a in arguments)
    _function(xp.module, kind, name)(blocks, (threads,), passed)


def launch_rows(name: str, rows: int, width: int, *arguments: Any) -> None:
    """Start a kernel with a block for each row, of as many threads as its width is worth."""
    warps = -(-width // (32 * ENTRIES_PER_THREAD))
    launch(name, (rows,), 32 * max(1, min(warps, MOST_THREADS // 32)), *arguments)


def launch_entries(name: str, entries: int, *arguments: Any) -> None:
    """Start a kernel whose threads take all entries in turns."""
    launch(name, (min(-(-entries // MOST_THREADS), MOST_BLOCKS),), MOST_THREADS, *arguments)


def real(value: float, array: Any) -> Any:
    """Return a number in the dtype of an array, as C's ``real`` is passed."""
    return array.dtype.type(value)


def dense(array: Any) -> Any:
    """Return an array without gaps, as kernels index it: itself if it is one."""
    return array if array.flags.c_contiguous else array.copy()
