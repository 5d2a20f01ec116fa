"""Tensor: an array that remembers how it was made."""

from __future__ import annotations

import itertools
from functools import partialmethod
from operator import attrgetter
from typing import Any

import numpy as np

from .backend import backend_name, is_array, module_of, move, to_numpy, xp

__all__ = ["Tensor", "arange", "eye", "full", "ones", "tensor", "zeros"]


class Tensor:
    """An array with NumPy's names, and a place in the graph of operations that made it.

    Parameters
    ----------
    data : array_like or Tensor
        The numbers. An array keeps its dtype and is not copied; Python floats become float32.
    dtype : dtype, optional
        Convert to this dtype.
    requires_grad : bool
        Track operations, so that `backward` fills ``grad``. Floating dtypes only.

    Attributes
    ----------
    data : array
        The NumPy or CuPy array.
    grad : Tensor or None
        The gradient that `backward` has accumulated; None until then. Leaves only.
    node : Node or None
        The operation that made this Tensor; None for a leaf.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x = tt.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([[2., 4.],
            [6., 8.]], shape=(2, 2), dtype=float32)
    """

    __slots__ = ("__weakref__", "changed", "data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # array * tensor asks the Tensor, rather than looping over its items
    clock = itertools.count(1)  # ticks at every operation that is recorded and every change in place
    last_change = 0  # when any Tensor was changed in place

    data: Any
    grad: Tensor | None
    node: Any

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False):
        if isinstance(data, Tensor):
            data = data.data
        if not is_array(data):
            if isinstance(data, (list, tuple)):
                data = _unwrap(data)
            host = np.asarray(data)
            if dtype is None and host.dtype == np.float64 and not _holds_float64(data):
                dtype = np.float32  # the default for numbers that came without a dtype
            if host.dtype.kind not in "biuf":
                raise TypeError(f"Tensor: cannot be made of {type(data).__name__} holding {host.dtype}")
            data = xp.asarray(host, dtype=dtype)
        elif dtype is not None:
            data = data.astype(dtype, copy=False)
        self.data = data
        self.grad = None
        self.node = None
        self.changed = 0
        self.requires_grad = False
        if requires_grad:
            self.requires_grad_()

    @staticmethod
    def _of(array: Any) -> Tensor:
        """Wrap an array without looking at it: the engine's fast way."""
        self = object.__new__(Tensor)
        self.data = array
        self.grad = None
        self.node = None
        self.changed = 0
        self.requires_grad = False
        return self

    # --- what it is ---

    shape = property(attrgetter("data.shape"), doc="Length of each axis.")
    ndim = property(attrgetter("data.ndim"), doc="Number of axes.")
    size = property(attrgetter("data.size"), doc="Number of entries.")
    dtype = property(attrgetter("data.dtype"), doc="Type of the entries.")

    @property
    def backend(self) -> str:
        """Name of the backend the array lives on."""
        return backend_name(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        numbers = np.array2string(to_numpy(self.data), prefix="Tensor(", separator=", ", threshold=60)
        facts = f"shape={self.shape}, dtype={self.dtype}"
        if self.backend != "numpy":
            facts += f", backend={self.backend}"
        if self.node is not None:
            facts += f", node={getattr(self.node.operation, 'name', self.node.operation)}"
        elif self.requires_grad:
            facts += ", requires_grad=True"
        return f"Tensor({numbers}, {facts})"

    # --- to Python and NumPy ---

    def numpy(self) -> np.ndarray:
        """Return the array on the host; read-only while the Tensor is part of a graph.

        Examples
        --------
        >>> import tinytransformer as tt
        >>> tt.ones((2,)).numpy()
        array([1., 1.], dtype=float32)
        """
        array = to_numpy(self.data)
        if self.requires_grad:
            array = array.view()
            array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """Return the only entry as a Python number."""
        if self.size != 1:
            raise ValueError(f"item(): a Tensor of shape {self.shape} is not a single number; use .numpy()")
        return self.data.item()

    def tolist(self) -> Any:
        """Return the entries as nested Python lists."""
        return self.data.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.size != 1 or self.dtype.kind not in "iu":
            raise TypeError(f"a Tensor of shape {self.shape} and dtype {self.dtype} is not an integer")
        return self.data.item()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth of a Tensor of shape {self.shape} is ambiguous: use .any() or .all()"
            )
        return bool(self.data.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("a Tensor of shape () cannot be iterated over")
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.data, self.requires_grad)

    def __deepcopy__(self, memo: dict) -> Tensor:
        copied = _rebuild(type(self), self.data.copy(), self.requires_grad)
        memo[id(self)] = copied
        return copied

    # --- the graph ---

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch the tracking of a leaf on or off, and return it."""
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"requires_grad needs a floating dtype, not {self.data.dtype}: use .astype(...)")
        if self.node is not None:
            raise RuntimeError("requires_grad can only be set on a leaf: use .detach() to leave the graph")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """Return the same array as a leaf that needs no gradient."""
        return Tensor._of(self.data)

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to ``.grad`` of every leaf it was made from.

        Parameters
        ----------
        gradient : array_like, optional
            The cotangent, of this Tensor's shape; 1 for a single number by default.
        retain_graph : bool
            Keep the graph for another walk. By default it is freed on the way.

        Raises
        ------
        RuntimeError
            If nothing here requires a gradient, the graph was freed, or one input was changed in place.
        ValueError
            If the gradient has another shape than this Tensor.

        Examples
        --------
        >>> import tinytransformer as tt
        >>> w = tt.tensor([3.0, 5.0], requires_grad=True)
        >>> (w * [2.0, 7.0]).backward(gradient=[1.0, 10.0])
        >>> w.grad.numpy()
        array([ 2., 70.], dtype=float32)
        """
        autograd.backward(self, gradient, retain_graph)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.requires_grad:
            raise RuntimeError(
                "in-place assignment would break the graph: write tt.where(mask, value, x) or "
                "tt.concatenate([...]) to make a new Tensor, or assign to x.detach() before it is used"
            )
        self.data[ops.indexing.plain_index(index)] = autograd.raw(value)
        self.mark_changed()

    def mark_changed(self) -> None:
        """Say that ``data`` was changed in place, so that an older graph refuses to use it."""
        self.changed = Tensor.last_change = next(Tensor.clock)

    def to(self, backend: str) -> Tensor:
        """Return a Tensor on the backend of this name (``"numpy"``, ``"cupy"``); the graph ends here."""
        moved = _rebuild(type(self), move(self.data, backend), False)
        moved.requires_grad = self.requires_grad and self.node is None
        return moved

    # --- operators ---

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.power(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def _compare(self, name: str, other: Any) -> Tensor:
        other = autograd.raw(other)
        result = getattr(self.data, name)(other)
        if result is NotImplemented:
            if is_array(other):
                backends = f"{self.backend} and {backend_name(other)}"
                raise TypeError(f"{name}: operands live on {backends}: move one with .to(...)")
            return result
        return Tensor._of(module_of(self.data).asarray(result))

    __eq__ = partialmethod(_compare, "__eq__")
    __ne__ = partialmethod(_compare, "__ne__")
    __lt__ = partialmethod(_compare, "__lt__")
    __le__ = partialmethod(_compare, "__le__")
    __gt__ = partialmethod(_compare, "__gt__")
    __ge__ = partialmethod(_compare, "__ge__")
    __and__ = partialmethod(_compare, "__and__")
    __or__ = partialmethod(_compare, "__or__")

    def __invert__(self) -> Tensor:
        return Tensor._of(~self.data)

    __hash__ = object.__hash__

    # --- methods, with NumPy's names and arguments ---

    @property
    def T(self) -> Tensor:  # noqa: N802
        """All axes reversed."""
        return ops.transpose(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802
        """The last two axes swapped: the transpose of each matrix."""
        return ops.swapaxes(self, -1, -2)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Sum over ``axis``."""
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Mean over ``axis``."""
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Variance over ``axis``, divided by n - ddof."""
        return ops.var(self, axis, ddof, keepdims)

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Square root of `var`."""
        return ops.std(self, axis, ddof, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Largest entry over ``axis``."""
        return ops.max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Smallest entry over ``axis``."""
        return ops.min(self, axis, keepdims)

    def prod(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Product over ``axis``."""
        return ops.prod(self, axis, keepdims)

    def cumsum(self, axis: Any = None) -> Tensor:
        """Cumulative sum along ``axis``."""
        return ops.cumsum(self, axis)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same entries in another shape."""
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def flatten(self) -> Tensor:
        """Return the entries along one axis."""
        return ops.reshape(self, -1)

    def transpose(self, *axes: Any) -> Tensor:
        """Permute the axes; reverse them by default."""
        return ops.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Exchange two axes."""
        return ops.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Tensor:
        """Drop axes of length 1."""
        return ops.squeeze(self, axis)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """Limit the entries to an interval."""
        return ops.clip(self, min, max)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        """Repeat each entry."""
        return ops.repeat(self, repeats, axis)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        """Take entries along an axis."""
        return ops.take(self, indices, axis)

    def astype(self, dtype: Any) -> Tensor:
        """Convert to another dtype; the gradient comes back in this one."""
        return ops.astype(self, dtype)

    def copy(self) -> Tensor:
        """Return a leaf with its own copy of the array, outside the graph."""
        return Tensor._of(self.data.copy())

    def _without_graph(self, name: str, axis: Any, **options: Any) -> Tensor:
        return Tensor._of(module_of(self.data).asarray(getattr(self.data, name)(axis=axis, **options)))

    def argmax(self, axis: int | None = None) -> Tensor:
        """Index of the largest entry."""
        return self._without_graph("argmax", axis)

    def argmin(self, axis: int | None = None) -> Tensor:
        """Index of the smallest entry."""
        return self._without_graph("argmin", axis)

    def argsort(self, axis: int = -1) -> Tensor:
        """Return the indices that sort along an axis."""
        return self._without_graph("argsort", axis)

    def any(self, axis: Any = None) -> Tensor:
        """Test whether any entry is not zero."""
        return self._without_graph("any", axis)

    def all(self, axis: Any = None) -> Tensor:
        """Test whether no entry is zero."""
        return self._without_graph("all", axis)


def _unwrap(data: Any) -> Any:
    """Nested lists may hold Tensors: replace each by its array on the host."""
    if isinstance(data, (list, tuple)):
        return [_unwrap(item) for item in data]
    return to_numpy(data.data) if isinstance(data, Tensor) else data


def _holds_float64(data: Any) -> bool:
    """Return True if an array or a NumPy number asks for float64; Python's floats do not."""
    if isinstance(data, (list, tuple)):
        return any(_holds_float64(item) for item in data)
    return getattr(data, "dtype", None) == np.float64


def _rebuild(kind: type, data: Any, requires_grad: bool) -> Tensor:
    made: Tensor = Tensor.__new__(kind)
    made.data, made.grad, made.node, made.changed = data, None, None, 0
    made.requires_grad = requires_grad
    return made


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor with a copy of the data.

    Parameters
    ----------
    data : array_like
        Numbers, nested lists of them, or an array. Python floats become float32; arrays keep their dtype.
    dtype : dtype, optional
        Convert to this dtype.
    requires_grad : bool
        Track operations on it.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> tt.tensor([1, 2, 3])
    Tensor([1, 2, 3], shape=(3,), dtype=int64)
    """
    made = Tensor(data, dtype, requires_grad)
    made.data = made.data.copy()
    return made


def zeros(shape: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of zeros on the default backend."""
    return Tensor(xp.zeros(shape, dtype), requires_grad=requires_grad)


def ones(shape: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of ones on the default backend."""
    return Tensor(xp.ones(shape, dtype), requires_grad=requires_grad)


def full(shape: Any, fill_value: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of one value on the default backend."""
    return Tensor(xp.full(shape, fill_value, dtype), requires_grad=requires_grad)


def arange(*bounds: Any, dtype: Any = None) -> Tensor:
    """Make a Tensor of evenly spaced values, as ``numpy.arange`` has them."""
    return Tensor(xp.arange(*bounds, dtype=dtype))


def eye(n: int, m: int | None = None, dtype: Any = np.float32) -> Tensor:
    """Make the identity matrix (n, m)."""
    return Tensor(xp.eye(n, m, dtype=dtype))


# Operators call ops, and ops are made of Tensors: the class above must exist before they are imported.
from . import autograd, ops  # noqa: E402
