"""Which of its kernels OpenBLAS runs: NumPy's copy does not know every processor with AVX-512."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import numpy

__all__ = ["choose_blas_kernels", "openblas"]

# what OpenBLAS's kernels of this name need, as Linux spells it
SKYLAKEX = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def openblas() -> Any:
    """Return NumPy's own OpenBLAS, as it is loaded; None where it has another BLAS.

    Examples
    --------
    >>> library = openblas()
    >>> name = None if library is None else library.gotoblas_corename()  # such as b"SkylakeX"
    """
    if not sys.platform.startswith("linux"):
        return None
    beside = Path(numpy.__file__).parents[1] / "numpy.libs"
    for path in beside.glob("libscipy_openblas*"):
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
        if all(hasattr(library, f"gotoblas_{name}") for name in ("corename", "dynamic_quit", "dynamic_init")):
            library.gotoblas_corename.restype = ctypes.c_char_p
            return library
    return None


def processor_flags() -> set[str]:
    """Return what Linux says the processor can do; nothing on another system."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = file.read(8192).splitlines()  # the first core's: the file has a paragraph for each
    except OSError:
        return set()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def choose_blas_kernels() -> bool:
    """Let OpenBLAS use AVX-512 where the processor has it and OpenBLAS did not see it.

    The copy inside NumPy has kernels for few processors; on a Zen 4 or 5 it takes those of Haswell, with
    half as wide vectors. On a Zen 5 products of matrices then take twice as long: 118 instead of 220 GFLOP/s
    on one thread, in float32.

    It holds for the whole process and is done when the package is imported. Whoever sets the environment
    variable ``OPENBLAS_CORETYPE``, to ``Haswell`` for example, keeps what OpenBLAS makes of that.

    Returns
    -------
    bool
        True if the kernels were changed.

    Examples
    --------
    >>> from tinytransformer.kernels.blas import choose_blas_kernels
    >>> choose_blas_kernels()  # it was done at import, if there was need
    False
    """
    if "OPENBLAS_CORETYPE" in os.environ or not processor_flags() >= SKYLAKEX:
        return False
    library = openblas()
    if library is None or library.gotoblas_corename() not in (b"Haswell", b"Zen"):
        return False
    # OpenBLAS looks at this variable, which is its documented switch, when it chooses
    os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
    try:
        library.gotoblas_dynamic_quit()
        library.gotoblas_dynamic_init()
    finally:
        del os.environ["OPENBLAS_CORETYPE"]
    return True
