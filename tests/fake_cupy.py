"""A strict stand-in for CuPy, so that the backend seam is tested on machines without a GPU.

It has CuPy's names and NumPy's numbers: `ndarray` wraps a NumPy array and hides it, and each function
runs NumPy's on what is wrapped. It refuses what CuPy 14.2 refuses: implicit conversion, NumPy arrays as
operands, ``where=`` and ``initial=``, names, methods and keywords that CuPy lacks. As in CuPy, integer
arrays out of range wrap around, reductions give 0-d arrays, and overflow does not warn. It counts host syncs.

It also refuses what CuPy accepts but a port should avoid: a NumPy function called on its arrays (CuPy
dispatches, which hides a stray ``np.``), and a NumPy array as index or argument (CuPy copies it to the
device at each call, or hands the work to NumPy). It leaves out files, printing, polynomials, histograms,
window functions, callbacks, ``fft``, ``mgrid`` and its kin, the global functions of ``random`` and raw device
memory. Kernels in CUDA run too, on the processor: see `cuda_on_cpu`.

A passing suite shows that the code keeps to CuPy's interface. It shows no result of a GPU.
"""

from __future__ import annotations

import builtins
import operator
import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import cuda_on_cpu
import numpy as np

from tinytransformer.backend import register_backend

# What CuPy 14.2 has, as allow-lists: what NumPy adds later stays refused. "refused" are the keywords that
# NumPy has and CuPy lacks, as name/keyword, or */keyword for all names; "scatters" are the ufuncs with `at`.
_CUPY = """
functions: abs absolute acos acosh add all allclose amax amin angle any append arange arccos arccosh arcsin
arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort argwhere around array array_equal
array_equiv array_split asanyarray asarray asarray_chkfinite ascontiguousarray asfortranarray asin asinh
astype atan atan2 atanh atleast_1d atleast_2d atleast_3d average bincount bitwise_and bitwise_count
bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bool bool_ broadcast
broadcast_arrays broadcast_shapes broadcast_to byte can_cast cbrt cdouble ceil choose clip column_stack
common_type complex128 complex64 complexfloating compress concat concatenate conj conjugate convolve copy
copysign copyto corrcoef correlate cos cosh count_nonzero cov cross csingle cumprod cumsum cumulative_prod
cumulative_sum deg2rad degrees delete diag diag_indices diag_indices_from diagflat diagonal diff digitize
divide divmod dot double dsplit dstack dtype e ediff1d einsum empty empty_like equal euler_gamma exp exp2
expand_dims expm1 extract eye fabs fill_diagonal finfo fix flatiter flatnonzero flip fliplr flipud float16
float32 float64 float_power floating floor floor_divide fmax fmin fmod frexp full full_like gcd generic
gradient greater greater_equal half heaviside hsplit hstack hypot i0 identity iinfo imag index_exp indices
inexact inf inner int16 int32 int64 int8 int_ intc integer interp intersect1d intp invert isclose iscomplex
iscomplexobj isdtype isfinite isfortran isin isinf isnan isneginf isposinf isreal isrealobj isscalar
issubdtype iterable ix_ kron lcm ldexp left_shift less less_equal lexsort linspace log log10 log1p log2
logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logspace long longlong mask_indices
matmul matrix_transpose max maximum may_share_memory mean median meshgrid min min_scalar_type minimum mod
modf moveaxis multiply nan nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian
nanmin nanprod nanstd nansum nanvar ndim ndindex negative newaxis nextafter nonzero not_equal number ones
ones_like outer packbits pad partition percentile permute_dims pi place positive pow power prod promote_types
ptp put putmask quantile rad2deg radians ravel ravel_multi_index real real_if_close reciprocal remainder
repeat require reshape resize result_type right_shift rint roll rollaxis rot90 round row_stack s_
searchsorted select setdiff1d setxor1d shape shares_memory short sign signbit signedinteger sin sinc single
sinh size sort sort_complex split sqrt square squeeze stack std subtract sum swapaxes take tan tanh tensordot
tile trace transpose trapezoid tri tril tril_indices tril_indices_from trim_zeros triu triu_indices
triu_indices_from true_divide trunc ubyte uint uint16 uint32 uint64 uint8 uintc uintp ulong ulonglong union1d
unique unique_all unique_counts unique_inverse unique_values unpackbits unravel_index unsignedinteger unwrap
ushort vander var vdot vsplit vstack where zeros zeros_like

methods: all any argmax argmin argpartition argsort astype byteswap choose clip compress conj conjugate copy
cumprod cumsum diagonal dot fill flatten max mean min nonzero partition prod put ravel repeat reshape round
searchsorted sort squeeze std sum swapaxes take trace transpose var view

properties: T base dtype imag itemsize mT nbytes ndim real shape size strides

generator: beta binomial chisquare dirichlet exponential f gamma geometric hypergeometric integers logseries
poisson power random standard_exponential standard_gamma standard_normal uniform

linalg: cholesky cond cross det eig eigh eigvals eigvalsh inv lstsq matmul matrix_power matrix_rank
matrix_transpose norm pinv qr slogdet solve svd tensorinv tensorsolve

operators: add/add sub/subtract mul/multiply truediv/divide floordiv/floor_divide mod/remainder pow/power
and/bitwise_and or/bitwise_or xor/bitwise_xor lshift/left_shift rshift/right_shift divmod/divmod matmul/matmul

comparisons: lt/less le/less_equal gt/greater ge/greater_equal eq/equal ne/not_equal

unary: neg/negative pos/positive abs/absolute invert/invert

refused: */correction */device */initial */like */mean */ndmax */stable */subok */where argpartition/kind
argpartition/order argsort/order astype/casting clip/max clip/min count_nonzero/keepdims delete/obj einsum/out
extract/arr indices/sparse intersect1d/ar2 isin/kind lexsort/axis partition/kind partition/order
percentile/weights quantile/weights reshape/shape sort/order take/mode trim_zeros/axis union1d/ar2
unique/sorted unpackbits/count unravel_index/shape

scatters: add maximum minimum

scatter_dtypes: int32 uint32 uint64 float32 float64

copies_from_host: array asanyarray asarray asarray_chkfinite ascontiguousarray asfortranarray require

takes_no_array: arange broadcast_shapes can_cast diag_indices empty eye identity indices isdtype issubdtype
linspace logspace mask_indices min_scalar_type ones promote_types tri tril_indices triu_indices zeros

takes_array_then_sizes: array_split broadcast_to expand_dims moveaxis permute_dims reshape roll split squeeze
swapaxes tile transpose

takes_anything: allclose common_type einsum full isclose iscomplexobj isrealobj isscalar iterable ix_ ndim
result_type shape

syncs: argwhere bincount choose compress delete extract flatnonzero intersect1d median nanmedian nonzero place
ravel_multi_index setdiff1d setxor1d trim_zeros union1d unique unique_all unique_counts unique_inverse
unique_values

gives_0d_array: allclose array_equal array_equiv count_nonzero
"""
CUPY = {key.strip(): frozenset(words.split()) for key, words in (p.split(":") for p in _CUPY.split("\n\n"))}

host_syncs = 0  # how often the host had to wait for the device to hand over a value


class count_syncs:  # noqa: N801
    """Count the host syncs of a ``with`` block, in ``count`` once it has ended."""

    def __enter__(self) -> count_syncs:
        self.start = host_syncs
        return self

    def __exit__(self, *_: object) -> None:
        self.count = host_syncs - self.start


def _sync() -> None:
    global host_syncs
    host_syncs += 1


def _wrap(value: Any, sources: Any = ()) -> Any:
    """Put a result of NumPy on the device. The very array that one of the sources wraps is that source."""
    for source in sources:
        if isinstance(source, ndarray) and source._array is value:
            return source
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.char not in "?bBhHiIlLqQefdFD":
            raise ValueError(f"Unsupported dtype {value.dtype}")
        wrapper = object.__new__(ndarray)
        wrapper._array = np.asarray(value)
        return wrapper
    if isinstance(value, tuple | list):
        items = map(_wrap, value)
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    return value


def _has_array(value: Any) -> bool:
    return any(isinstance(v, ndarray) for v in (value if isinstance(value, tuple | list) else [value]))


def _unwrap(value: Any) -> Any:
    """Take an array, or each of a sequence of arrays, off the device. Nothing else may hold one."""
    if isinstance(value, tuple | list) and _has_array(value):
        return [_device(item) for item in value]
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value._array if isinstance(value, ndarray) else value


def _device(value: Any) -> np.ndarray:
    if not isinstance(value, ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a device array is needed")
    return value._array


def _operand(value: Any) -> Any:
    """Unwrap what elementwise functions take: an array, or a Python or NumPy scalar."""
    if not isinstance(value, ndarray | bool | int | float | complex | np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    return _unwrap(value)


def _quiet(function: Any, *args: Any, **kwargs: Any) -> Any:
    with np.errstate(all="ignore"):  # a GPU gives inf and nan without a warning
        return function(*args, **kwargs)


def refuses(name: str, keyword: str) -> bool:
    """Return True for a keyword of NumPy's function that CuPy's lacks."""
    return f"{name}/{keyword}" in CUPY["refused"] or (f"*/{keyword}" in CUPY["refused"] and name != "copyto")


def _function(name: str, function: Any, may_use: tuple[str, ...] = ()) -> Any:
    def call(first: Any, /, *args: Any, **kwargs: Any) -> Any:
        for keyword in kwargs:
            if refuses(name, keyword) and keyword not in may_use:
                raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")
        asks_host = {"where": not args and not kwargs, "repeat": _has_array(args)}
        if name in CUPY["syncs"] or asks_host.get(name):
            _sync()
        sources = [first, *args, *kwargs.values()]
        if name in CUPY["copies_from_host"] and not isinstance(first, ndarray):
            first = np.array(_unwrap(first) if _has_array(first) else first)
        elif name not in CUPY["takes_no_array"]:
            if name not in CUPY["takes_anything"] and not _has_array(first):
                raise TypeError(f"Unsupported type {type(first)}: {name} needs a device array first")
            first = _unwrap(first)
            if name not in CUPY["takes_array_then_sizes"]:  # there, NumPy refuses an opaque array as a size
                args = tuple(map(_unwrap, args))
                kwargs = {key: _unwrap(value) for key, value in kwargs.items()}
        if name in ("take", "put"):
            kwargs.setdefault("mode", "wrap")
        result = _quiet(function, first, *args, **kwargs)
        return _wrap(np.asarray(result) if name in CUPY["gives_0d_array"] else result, sources)

    call.__qualname__ = name
    return call


class ufunc:  # noqa: N801
    """An elementwise function, with the methods of CuPy's that are of use here."""

    def __init__(self, function: np.ufunc):
        self._function = function
        self.__name__ = function.__name__

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if wrong := kwargs.keys() - {"dtype", "casting"}:
            raise TypeError(f"Wrong arguments {sorted(wrong)} for {self.__name__}")
        if out is not None:
            out = out if isinstance(out, tuple) else (out,)
            kwargs["out"] = tuple(None if o is None else _device(o) for o in out)
        return _wrap(_quiet(self._function, *map(_operand, args), **kwargs), [*args, *(out or ())])

    def at(self, a: Any, indices: Any, b: Any) -> None:
        """Apply in place at indices that may repeat."""
        if self.__name__ not in CUPY["scatters"]:
            raise NotImplementedError(f"`{self.__name__}.at` is not supported yet")
        if a.dtype.name not in CUPY["scatter_dtypes"]:
            raise TypeError(f"{self.__name__}.at does not support {a.dtype}")
        _quiet(self._function.at, _device(a), a._index(indices), _operand(b))

    def _along_axis(self, method: str, array: Any, **options: Any) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.__name__}.{method}` is not supported yet")
        return _function(method, getattr(self._function, method))(array, **options)

    def reduce(self, array: Any, axis: Any = 0, **options: Any) -> Any:
        """Reduce along axes."""
        return self._along_axis("reduce", array, axis=axis, **options)

    def accumulate(self, array: Any, axis: int = 0, **options: Any) -> Any:
        """Accumulate along an axis."""
        return self._along_axis("accumulate", array, axis=axis, **options)


class ndarray:  # noqa: N801
    """An array on the pretended device: opaque to NumPy."""

    __slots__ = ("_array",)
    __array_priority__ = 100
    __array_ufunc__ = None  # np.exp(array) raises, and NumPy's operators leave the work to ours
    __hash__ = None  # type: ignore[assignment]
    _array: Any

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"np.{function.__name__} was called on a device array: use the array's own module")

    def get(self) -> np.ndarray:
        """Copy to the host."""
        _sync()
        return np.array(self._array, order="C")

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __copy__(self) -> ndarray:
        return _wrap(self._array.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.__copy__()

    def __getitem__(self, key: Any) -> ndarray:
        return _wrap(self._array[self._index(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        _quiet(self._array.__setitem__, self._index(key), _operand(value))

    def _index(self, key: Any) -> tuple:
        """Turn CuPy's index into NumPy's: integer arrays wrap around, masks sync."""
        keys = [*key] if isinstance(key, tuple) else [key]
        keys = [_unwrap(k) if not isinstance(k, list) else np.array(k or np.zeros(0, int)) for k in keys]
        if not any(k is Ellipsis for k in keys):
            keys.append(Ellipsis)  # so that integers alone give a 0-d view and not a scalar
        masks = [isinstance(k, np.ndarray) and k.dtype == bool for k in keys]
        axes = [k.ndim if mask else int(k is not None) for k, mask in zip(keys, masks, strict=True)]
        dots = next(i for i, k in enumerate(keys) if k is Ellipsis)
        axes[dots] += self._array.ndim - sum(axes)
        for i, k in enumerate(keys):
            if masks[i]:
                _sync()
            elif isinstance(k, np.ndarray):
                keys[i] = k % max(self._array.shape[sum(axes[:i])], 1)
        return tuple(keys)

    @property
    def flags(self) -> SimpleNamespace:
        """Memory layout; as in CuPy, without ``writeable``."""
        flags = self._array.flags
        return SimpleNamespace(**{f: getattr(flags, f) for f in ("c_contiguous", "f_contiguous", "owndata")})


def _defers(other: Any) -> bool:
    """CuPy's rule for leaving an operator to the other operand, such as a Tensor."""
    try:
        return other.__array_ufunc__ is None and not isinstance(other, ndarray)
    except AttributeError:
        return getattr(other, "__array_priority__", 0) > ndarray.__array_priority__


def _operator(function: Any, reflected: bool = False) -> Any:
    def apply(self: Any, other: Any) -> Any:
        if _defers(other):
            return NotImplemented
        return function(other, self) if reflected else function(self, other)

    return apply


def _property(name: str) -> Any:
    return property(lambda self: _wrap(getattr(self._array, name)))


def _on_host(function: Any) -> Any:
    return lambda self, *args: function(self.get(), *args)


def _unary(function: Any) -> Any:
    return lambda self: function(self)


def _in_place(function: Any) -> Any:
    return lambda self, other: function(self, other, out=self)


class Generator:
    """Random numbers born on the device, with the methods that CuPy's Generator has."""

    def __init__(self, generator: np.random.Generator):
        self._generator = generator

    def __getattr__(self, name: str) -> Any:
        if name not in CUPY["generator"]:
            raise AttributeError(f"'Generator' object has no attribute {name!r}")

        def draw(*args: Any, **kwargs: Any) -> Any:
            options = {key: _unwrap(value) for key, value in kwargs.items()}
            result = getattr(self._generator, name)(*map(_unwrap, args), **options)
            return _wrap(np.asarray(result), kwargs.values())

        return draw


def _default_rng(seed: Any = None) -> Generator:
    return Generator(np.random.default_rng(seed))


random = SimpleNamespace(Generator=Generator, default_rng=_default_rng)
linalg = SimpleNamespace(**{name: _function(name, getattr(np.linalg, name)) for name in CUPY["linalg"]})


def asnumpy(a: Any) -> np.ndarray:
    """Copy to the host."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def take_along_axis(a: Any, indices: Any, axis: int | None) -> ndarray:
    """NumPy's function; indices out of range wrap around."""
    a, indices = _device(a), _device(indices)
    return _wrap(np.take_along_axis(a, indices % (a.size if axis is None else a.shape[axis]), axis))


def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None) -> None:
    """NumPy's function; indices out of range wrap around."""
    arr, indices = _device(arr), _device(indices)
    np.put_along_axis(arr, indices % (arr.size if axis is None else arr.shape[axis]), _operand(values), axis)


@cache
def __getattr__(name: str) -> Any:
    if name not in CUPY["functions"]:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    value = getattr(np, name)
    if isinstance(value, np.ufunc) and name != "matmul":  # which has no methods
        return ufunc(value)
    return value if isinstance(value, type) or not callable(value) else _function(name, value)


if cuda_on_cpu.COMPILER:  # without one, the kernels for the GPU leave their work to those of the host
    RawModule = cuda_on_cpu.RawModule


def install() -> Any:
    """Register the fake as the backend ``"fake"`` and return it."""
    module = sys.modules[__name__]
    register_backend("fake", module)
    return module


for _name in CUPY["properties"]:
    setattr(ndarray, _name, _property(_name))
for _name in ("bool", "int", "float", "complex", "repr", "str", "format"):
    setattr(ndarray, f"__{_name}__", _on_host(getattr(builtins, _name)))
for _name in ("item", "tolist", "tobytes"):
    setattr(ndarray, _name, _on_host(operator.methodcaller(_name)))
for _name in CUPY["methods"]:  # the method clip has min and max, the function has not
    setattr(ndarray, _name, _function(_name, getattr(np.ndarray, _name), may_use=("min", "max")))
for _name, _long in (pair.split("/") for pair in CUPY["operators"]):
    setattr(ndarray, f"__{_name}__", _operator(__getattr__(_long)))
    setattr(ndarray, f"__r{_name}__", _operator(__getattr__(_long), reflected=True))
    if _name not in ("divmod", "matmul"):  # CuPy has no __imatmul__: a @= b makes a new array
        setattr(ndarray, f"__i{_name}__", _in_place(__getattr__(_long)))
for _name, _long in (pair.split("/") for pair in CUPY["comparisons"]):
    setattr(ndarray, f"__{_name}__", _operator(__getattr__(_long)))
for _name, _long in (pair.split("/") for pair in CUPY["unary"]):
    setattr(ndarray, f"__{_name}__", _unary(__getattr__(_long)))
