"""Where arrays live: NumPy, or CuPy on a GPU.

Every array operation of the library is written ``xp.name(...)``. ``xp`` stands for the array module of
the operation in progress: the engine reads it off the arrays it was given, so one line serves both
backends. Outside an operation ``xp`` is the default backend, where new arrays are born.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy

__all__ = ["BackendError", "available_backends", "backend_name", "move", "to_numpy", "use_backend", "xp"]


class BackendError(RuntimeError):
    """A backend that is unknown, not installed, or has no device."""


class _ArrayModule:
    """The array module of the operation in progress in this thread, as ``module``, and the names in it.

    A name is looked up once and kept, as long as all threads are on the default backend.
    """

    default: Any = numpy
    elsewhere = 0  # how often threads are running on another backend

    def __getattr__(self, name: str) -> Any:
        module = getattr(_here, "module", None) or self.default
        found = module if name == "module" else getattr(module, name)
        with _lock:
            if not self.elsewhere and module is self.default:  # which may have changed meanwhile
                self.__dict__[name] = found
        return found

    def change(self, default: Any, elsewhere: int) -> None:
        """Forget the names that were kept: they are others now in some thread."""
        with _lock:
            _ArrayModule.default = default or self.default
            _ArrayModule.elsewhere += elsewhere
            self.__dict__.clear()


_here, _lock, xp = threading.local(), threading.Lock(), _ArrayModule()

_modules: dict[str, Any] = {"numpy": numpy}  # backends that were asked for, by name
_names: dict[type, str] = {numpy.ndarray: "numpy"}  # array type -> backend
_module_of: dict[type, Any] = {numpy.ndarray: numpy}  # array type -> array module


def register_backend(name: str, module: Any) -> None:
    """Make an array module known: it needs ``ndarray``, ``asarray`` and ``asnumpy`` as CuPy has them."""
    _modules[name] = module
    _names[module.ndarray] = name
    _module_of[module.ndarray] = module


def _load(name: str) -> Any:
    if name in _modules:
        return _modules[name]
    if name != "cupy":
        raise BackendError(f"backend {name!r} is unknown: choose one of {sorted({*_modules, 'cupy'})}")
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(
            "backend 'cupy' is not installed: pip install 'tinytransformer[cuda12]' (or [cuda13])"
        ) from error
    if not cupy.cuda.is_available():  # without a driver CuPy imports, but creates no array
        raise BackendError("backend 'cupy' has no device: CuPy is installed, but no CUDA GPU was found")
    register_backend("cupy", cupy)
    return cupy


def available_backends() -> list[str]:
    """Names of the backends that work on this machine, NumPy first.

    Examples
    --------
    >>> "numpy" in available_backends()
    True
    """
    with suppress(BackendError):
        _load("cupy")
    return list(_modules)


class use_backend:  # noqa: N801 - called like a function, as in NumPy's errstate
    """Choose the backend on which new arrays are born, for good or inside a ``with`` block.

    Arrays that exist keep their backend: an operation runs where its arrays are. The environment
    variable ``TINYTRANSFORMER_BACKEND`` sets the default at import.

    Parameters
    ----------
    name : str
        ``"numpy"`` or ``"cupy"``.

    Raises
    ------
    BackendError
        If the backend is unknown, not installed, or has no device.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> with tt.use_backend("numpy"):
    ...     tt.zeros((2, 3)).backend
    'numpy'
    """

    def __init__(self, name: str):
        self.previous = xp.default
        xp.change(_load(name), 0)

    def __enter__(self) -> use_backend:
        return self

    def __exit__(self, *_: object) -> None:
        xp.change(self.previous, 0)


def backend_name(array: Any) -> str:
    """Name of the backend an array lives on.

    Examples
    --------
    >>> import numpy as np
    >>> backend_name(np.zeros(3))
    'numpy'
    """
    return _names.get(type(array), "numpy")


def module_of(array: Any) -> Any:
    """Return the array module (NumPy or CuPy) that an array belongs to."""
    return _module_of.get(type(array), numpy)


def is_array(value: Any) -> bool:
    """Return True for an array of any known backend."""
    return type(value) in _names or isinstance(value, numpy.ndarray)


def to_numpy(array: Any) -> numpy.ndarray:
    """Bring an array to the host; a NumPy array is returned as it is.

    Examples
    --------
    >>> import numpy as np
    >>> to_numpy(np.arange(3))
    array([0, 1, 2])
    """
    module = module_of(array)
    return numpy.asarray(array) if module is numpy else module.asnumpy(array)


def move(array: Any, name: str) -> Any:
    """Bring an array to the backend of the given name, without a copy when it is there already.

    Raises
    ------
    BackendError
        If the backend is unknown, not installed, or has no device.

    Examples
    --------
    >>> import numpy as np
    >>> move(np.arange(3), "numpy")
    array([0, 1, 2])
    """
    module = _load(name)
    if backend_name(array) == name:
        return array
    host = to_numpy(array)
    return host if module is numpy else module.asarray(host)


@contextmanager
def running(module: Any) -> Iterator[None]:
    """Run a block with ``xp`` standing for one array module, in this thread only."""
    if module is xp.module:
        yield
        return
    previous = getattr(_here, "module", None)
    _here.module = module
    xp.change(None, 1)
    try:
        yield
    finally:
        _here.module = previous
        xp.change(None, -1)


if "TINYTRANSFORMER_BACKEND" in os.environ:
    use_backend(os.environ["TINYTRANSFORMER_BACKEND"])
