"""The strict test fake of CuPy: what it refuses, what it computes, what it counts."""

import copy
import importlib.util
import inspect
import math
import operator
import threading

import fake_cupy
import numpy as np
import pytest
from fake_cupy import CUPY, count_syncs, refuses

from tinytransformer.backend import is_array, module_of, move, running, to_numpy, use_backend, xp

cp = fake_cupy.install()
B, T, D = 2, 5, 7


@pytest.fixture
def host():
    return np.random.default_rng(11).normal(size=(B, T, D))


@pytest.fixture
def device(host):
    return cp.asarray(host)


def same(result, expected):
    """Assert that a result is on the device and has NumPy's shape, dtype and values."""
    assert type(result) is cp.ndarray
    assert (result.shape, result.dtype) == (np.shape(expected), np.asarray(expected).dtype)
    np.testing.assert_array_equal(result.get(), expected)


# --- refusals: conversion and mixed operands ---


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        lambda a: np.array([a, a]),
        lambda a: np.array(list(a)),
        lambda a: np.zeros(a.shape).__setitem__(..., a),
        lambda a: np.ones(B)[a],
        np.exp,
        np.sum,
        np.shape,
        lambda a: np.add(a, np.ones(a.shape)),
        lambda a: np.add(np.ones(a.shape), a),
        lambda a: np.concatenate([a, a]),
        lambda a: operator.iadd(np.ones(a.shape), a),
        lambda a: np.exp(np.ones(a.shape), out=a),
        memoryview,
        bytes,
        hash,
        range,
        lambda a: [1, 2][a[0, 0, 0]],
    ],
)
def test_array_does_not_become_a_numpy_array(device, convert):
    with count_syncs() as syncs, pytest.raises(TypeError):
        convert(device)
    assert syncs.count == 0


def test_conversion_error_says_what_to_write(device):
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed.*\.get\(\)"):
        np.asarray(device)
    with pytest.raises(TypeError, match=r"np\.sum was called on a device array"):
        np.sum(device)


@pytest.mark.parametrize("shape", [(B, T, D), ()], ids=["array", "0-d array"])
@pytest.mark.parametrize(
    "mix",
    [
        lambda a, n: a + n,
        lambda a, n: n + a,
        lambda a, n: n * a,
        lambda a, n: n - a,
        lambda a, n: a == n,
        lambda a, n: n < a,
        lambda a, n: a.__iadd__(n),
        lambda a, n: cp.maximum(a, n),
        lambda a, n: cp.exp(n),
        lambda a, n: cp.sum(n),
        lambda a, n: cp.matmul(a, n),
        lambda a, n: a @ n,
        lambda a, n: cp.where(a > 0, a, n),
        lambda a, n: cp.where(n, a, a),
        lambda a, n: cp.clip(a, n, None),
        lambda a, n: a.clip(n),
        lambda a, n: cp.concatenate([a, n]),
        lambda a, n: cp.concatenate([n, n]),
        lambda a, n: cp.einsum("bij,bik->bjk", a, n),
        lambda a, n: cp.add(a, a, out=n),
        lambda a, n: cp.add(a, a, n),
        lambda a, n: cp.sum(a, out=n),
        lambda a, n: cp.matmul(a, a.mT, out=n),
        lambda a, n: cp.take(a, n.astype(int)),
        lambda a, n: cp.full((3,), n),
        lambda a, n: cp.add.at(a, 0, n),
        lambda a, n: cp.add.reduce(n),
        lambda a, n: a[n.astype(int)],
        lambda a, n: a.__setitem__(..., n),
        lambda a, n: a.__setitem__(n.astype(int), 1.0),
        lambda a, n: cp.put_along_axis(a, cp.zeros(a.shape, int), n, 0),
        lambda a, n: cp.random.default_rng(3).standard_normal(out=n),
    ],
)
def test_numpy_arrays_are_refused_as_operands(device, mix, shape):
    with pytest.raises(TypeError, match=r"Unsupported type <class '(numpy\.ndarray|list)'>"):
        mix(device, np.ones(shape))


@pytest.mark.parametrize("value", [[1.0, 2.0], None, "x", {}])
def test_elementwise_functions_take_arrays_and_scalars_only(device, value):
    for use in (cp.exp, lambda v: device + v, lambda v: v * device, lambda v: device.__setitem__(..., v)):
        with pytest.raises(TypeError):
            use(value)


@pytest.mark.parametrize(
    "call",
    [
        "sum([1.0])",
        "sum(1.0)",
        "reshape([1, 2], (2, 1))",
        "where(True, 1.0, 2.0)",
        "stack([1.0, 2.0])",
        "mean([1.0])",
        "tril([[1.0]])",
        "linalg.norm([1.0])",
    ],
)
def test_functions_of_arrays_refuse_lists_and_numbers(call):
    with pytest.raises(TypeError, match="needs a device array first"):
        eval(f"cp.{call}")


def test_sizes_and_bounds_are_numbers_of_the_host(device):
    three = cp.asarray(3)
    for use in (
        cp.zeros,
        cp.arange,
        lambda n: cp.ones((2, n)),
        lambda n: device[:, :n],
        lambda n: device.reshape(n, -1),
    ):
        with pytest.raises(TypeError):
            use(three)


def test_scalars_of_python_and_numpy_are_operands(host, device):
    same(device * 2, host * 2)
    same(2 - device, 2 - host)
    same(np.float64(2) / device, np.float64(2) / host)
    same(np.float32(0.5) < device, np.float32(0.5) < host)
    same(device.astype(np.float32) * np.float64(2), host.astype(np.float32) * np.float64(2))  # float64
    same(device.astype(np.float32) * 2.0, host.astype(np.float32) * 2.0)  # float32
    same(cp.maximum(device, True), np.maximum(host, True))


def test_operators_leave_the_work_to_a_class_that_asks_for_it(device):
    class Opaque:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "radd"

        def __rmatmul__(self, other):
            return "rmatmul"

        def __gt__(self, other):
            return "gt"

    class Ranked:
        __array_priority__ = 1000

        def __radd__(self, other):
            return "ranked"

    assert device + Opaque() == "radd"
    assert device @ Opaque() == "rmatmul"
    assert (device < Opaque()) == "gt"
    assert device + Ranked() == "ranked"


# --- refusals: names and keywords ---


@pytest.mark.parametrize(
    "name",
    [
        "errstate",
        "insert",
        "einsum_path",
        "vecdot",
        "block",
        "longdouble",
        "str_",
        "spacing",
        "nditer",
        "geterr",
        "matvec",
        "unstack",
        "no_such_name",
    ],
)
def test_names_that_cupy_lacks(name):
    with pytest.raises(AttributeError, match=f"module 'cupy' has no attribute '{name}'"):
        getattr(cp, name)


@pytest.mark.parametrize(
    "name",
    [
        "resize",
        "setflags",
        "getfield",
        "ctypes",
        "to_device",
        "__index__",
        "__contains__",
        "__imatmul__",
        "__array_interface__",
        "__array_struct__",
        "__array_wrap__",
    ],
)
def test_methods_that_cupy_lacks(device, name):
    assert hasattr(np.ndarray, name)
    assert not hasattr(device, name)


def test_every_name_of_the_allow_list_resolves():
    present = [name for name in CUPY["functions"] if name in dir(np)]
    assert len(present) > 300
    for name in present:
        getattr(cp, name)


def test_constants_and_dtypes_are_those_of_numpy():
    assert (cp.float32, cp.dtype, cp.newaxis, cp.pi, cp.inf) == (
        np.float32,
        np.dtype,
        None,
        math.pi,
        math.inf,
    )
    assert math.isnan(cp.nan)
    assert issubclass(cp.int32, cp.integer)


@pytest.mark.parametrize(
    "call",
    [
        "exp(a, where=True)",
        "add(a, a, where=a > 0)",
        "sum(a, where=a > 0)",
        "sum(a, initial=1.0)",
        "max(a, initial=1.0)",
        "mean(a, where=a > 0)",
        "var(a, mean=0.0)",
        "std(a, correction=1)",
        "take(a, 0, mode='clip')",
        "clip(a, min=0)",
        "argsort(a, stable=True)",
        "sort(a, order=None)",
        "count_nonzero(a, keepdims=True)",
        "einsum('bij->b', a, out=a)",
        "zeros(3, device=None)",
        "asarray(a, like=a)",
        "broadcast_to(a, a.shape, subok=True)",
        "reshape(a, shape=(-1,))",
        "add.reduce(a, where=True)",
        "add.reduce(a, initial=0.0)",
        "take_along_axis(a, a.astype(int))",
    ],
)
def test_keywords_that_cupy_lacks_in_functions(device, call):
    with pytest.raises(TypeError):
        eval(f"cp.{call}", {"cp": cp, "a": device})


@pytest.mark.parametrize(
    "call",
    [
        "sum(where=True)",
        "sum(initial=1.0)",
        "max(initial=1.0)",
        "mean(where=True)",
        "std(correction=1)",
        "item(0)",
        "take(0, mode='clip')",
        "argsort(stable=True)",
        "astype(int, casting='unsafe')",
        "any(where=True)",
    ],
)
def test_keywords_that_cupy_lacks_in_methods(device, call):
    with pytest.raises(TypeError):
        eval(f"device.{call}", {"device": device})


def test_keywords_that_only_some_of_cupy_has(host, device):
    same(device.clip(min=0.0), host.clip(min=0.0))  # the method has them, the function has not
    cp.copyto(device, 3.0, where=device > 0)
    same(device, np.where(host > 0, 3.0, host))


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
class TestAgainstCuPy:
    """CuPy can be imported and inspected without a GPU."""

    def test_names(self):
        import cupy

        assert CUPY["functions"] <= set(dir(cupy))
        assert CUPY["methods"] | CUPY["properties"] | {"get", "item", "tolist"} <= set(dir(cupy.ndarray))
        assert CUPY["generator"] <= set(dir(cupy.random.Generator))
        assert CUPY["linalg"] <= set(dir(cupy.linalg))
        special = {name for name in vars(cp.ndarray) if name.startswith("__") and name != "__annotations__"}
        assert special <= set(dir(cupy.ndarray))

    def test_ufuncs(self):
        import cupy

        ufuncs = {name for name in CUPY["functions"] if isinstance(getattr(cp, name, None), cp.ufunc)}
        assert {name for name in ufuncs if not isinstance(getattr(cupy, name), cupy.ufunc)} == set()

    def test_every_keyword_that_cupy_lacks_is_refused(self):
        import cupy

        for name in CUPY["functions"] & set(dir(np)):
            ours, theirs = getattr(cp, name), getattr(cupy, name)
            if isinstance(ours, type | cp.ufunc) or not inspect.isfunction(theirs):
                continue
            parameters = inspect.signature(theirs).parameters
            if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or not inspect.isroutine(
                getattr(np, name)
            ):
                continue
            _, *rest = inspect.signature(getattr(np, name)).parameters  # the first is passed by position
            accepted = {keyword for keyword in rest if not refuses(name, keyword)} - {"args", "kwargs"}
            assert accepted <= set(parameters), name


# --- what CuPy does differently ---


def test_integer_arrays_out_of_range_wrap_around(host, device):
    far = [0, T, -T - 1, 2 * T + 3]
    near = [0, 0, T - 1, 3]
    i = cp.asarray(far)
    same(device[:, i], host[:, near])
    same(device[:, far], host[:, near])
    same(device[..., i, :], host[..., near, :])
    same(device[1, i, None, 2], host[1, near, None, 2])
    same(device[device[:, 0, 0] > -9, i[:2]], host[[0, 1], near[:2]])  # a mask takes one axis here
    same(device[None, :, i], host[None, :, near])
    last = cp.asarray([D + 1, -D - 2])
    same(device[..., last], host[..., [1, D - 2]])
    same(device[device[..., 0] > -9, last[0]], host[host[..., 0] > -9, 1])  # a mask takes two axes here
    same(device.take(i, axis=1), host.take(near, axis=1))
    same(cp.take(device, D * T * B + 4), host.ravel()[4])
    index = np.argsort(host, axis=1)
    same(cp.take_along_axis(device, cp.asarray(index - 3 * T), 1), np.take_along_axis(host, index, 1))
    device[:, i] = 1.5
    host[:, near] = 1.5
    same(device, host)
    cp.put_along_axis(device, cp.asarray([[[T + 2]]]), 4.0, 1)
    assert device.get()[0, 2, 0] == 4.0
    device.put(cp.asarray([B * T * D]), -1.0)
    assert device.get()[0, 0, 0] == -1.0


def test_integers_out_of_range_are_errors(device):
    with pytest.raises(IndexError):
        device[B]
    with pytest.raises(IndexError):
        device[:, cp.zeros(1, int), D] = 1.0


def test_add_at_sums_repeated_indices():
    for dtype in (np.float32, np.float64, np.int32, np.uint32):
        total = cp.zeros((T, D), dtype)
        cp.add.at(total, cp.asarray([1, 1, 4 + T]), cp.ones((3, D), dtype))
        expected = np.zeros((T, D), dtype)
        np.add.at(expected, [1, 1, 4], 1)
        same(total, expected)
    cp.maximum.at(total, (cp.asarray([1, 1]), 0), 9)
    assert total.get()[1, 0] == 9


def test_scatters_that_cuda_has_no_atomics_for(device):
    with pytest.raises(NotImplementedError, match=r"multiply\.at"):
        cp.multiply.at(device, 0, 2.0)
    with pytest.raises(TypeError, match=r"add\.at does not support int64"):
        cp.add.at(cp.zeros(3, np.int64), cp.asarray([0]), 1)
    with pytest.raises(NotImplementedError, match=r"maximum\.reduce"):
        cp.maximum.reduce(device)


def test_ufunc_methods(host, device):
    same(cp.add.reduce(device, axis=(0, 2), keepdims=True), np.add.reduce(host, axis=(0, 2), keepdims=True))
    same(cp.multiply.reduce(device), np.multiply.reduce(host))
    same(cp.add.accumulate(device, axis=1), np.add.accumulate(host, axis=1))
    assert isinstance(cp.add, cp.ufunc)
    assert not hasattr(cp.matmul, "at")


def test_generator_has_the_methods_of_cupy():
    rng = cp.random.default_rng(5)
    for name in ("normal", "permutation", "shuffle", "choice", "permuted", "multinomial", "bit_generator"):
        assert hasattr(np.random.Generator, name)
        assert not hasattr(rng, name)
    assert not hasattr(cp.random, "seed")
    same(
        rng.standard_normal((3, 2), dtype=np.float32),
        np.random.default_rng(5).standard_normal((3, 2), np.float32),
    )
    same(cp.random.default_rng(5).random(), np.random.default_rng(5).random())
    out = cp.zeros(3)
    assert rng.random(out=out) is out


@pytest.mark.parametrize(
    "reduce",
    [
        lambda a: a.sum(),
        lambda a: a.max(),
        lambda a: a.argmax(),
        lambda a: a.any(),
        lambda a: a.std(),
        lambda a: a[1, 2, 3],
        lambda a: -a.mean(),
        lambda a: a.min() * 2,
        lambda a: abs(a.min()),
    ],
)
def test_results_without_axes_are_arrays(host, device, reduce):
    with count_syncs() as syncs:
        result = reduce(device)
    assert syncs.count == 0
    same(result, reduce(host))


def test_truths_are_arrays_too(device):
    for result in (
        cp.allclose(device, device),
        cp.array_equal(device, device),
        cp.array_equiv(device, device),
    ):
        assert type(result) is cp.ndarray
        assert result.shape == ()
        assert result
    same(cp.count_nonzero(device > 99), np.int64(0))


def test_floating_point_errors_do_not_warn():
    x = cp.asarray([0.0, -1.0, 1e308])
    for result in (
        cp.log(x),
        x / 0.0,
        x * 1e308,
        cp.exp(x),
        cp.linalg.norm(x * 1e300),
        x.sum() * x.max() * 1e9,
    ):
        assert not cp.isfinite(result).all()
    x[0] = cp.asarray(1e308)
    x *= 10.0
    cp.add.at(x, 0, math.inf)
    assert math.isinf(float(x[0]))


def test_matmul_in_place_makes_a_new_array(device):
    a = alias = device[:, :, :T]
    a @= device[:, :, :T]
    assert a is not alias


# --- host syncs ---


@pytest.mark.parametrize(
    "wait",
    [
        lambda a: float(a[0, 0, 0]),
        lambda a: int(a[0, 0, 0]),
        lambda a: complex(a[0, 0, 0]),
        lambda a: bool((a > 0).all()),
        lambda a: a[0, 0, 0].item(),
        lambda a: a.get(),
        lambda a: a.tolist(),
        lambda a: a.tobytes(),
        cp.asnumpy,
        to_numpy,
        repr,
        str,
        lambda a: f"{a[0, 0, 0]:.3f}",
        lambda a: a[a > 0],
        lambda a: a[:, a[0, :, 0] > 0],
        lambda a: a.__setitem__(a > 0, 1.0),
        lambda a: a.nonzero(),
        cp.nonzero,
        cp.argwhere,
        cp.unique,
        lambda a: cp.where(a > 0),
        lambda a: cp.repeat(a, cp.asarray([2, 3]), axis=0),
        lambda a: cp.bincount((a[0, 0] > 0).astype(int)),
        lambda a: math.exp(a[0, 0, 0]),
    ],
)
def test_what_waits_for_the_device_is_counted_once(device, wait):
    before = fake_cupy.host_syncs
    with count_syncs() as syncs:
        wait(device)
    assert syncs.count == 1
    assert fake_cupy.host_syncs == before + 1


def test_what_stays_on_the_device_is_not_counted(host, device):
    with count_syncs() as syncs:
        cp.asarray(host)
        x = cp.exp(device - device.max(axis=-1, keepdims=True))
        x /= cp.sum(x, axis=-1, keepdims=True)
        x = cp.where(x > 0.5, x, 0.0) @ device.mT
        x[0, 1] = x[cp.asarray([0, 1]), 2, 3].sum()
        x = cp.concatenate([x, cp.repeat(x, 2, axis=0)]).reshape(-1).astype(np.float32)
        _ = len(x), x.shape, x.dtype, x.size, x.nbytes, [row.sum() for row in device], x[None, ..., 3]
        cp.add.at(x, cp.asarray([1, 1]), 2.0)
        _ = x == x, x is None, isinstance(x, cp.ndarray), cp.allclose(x, x), copy.deepcopy(x)
    assert syncs.count == 0


def test_host_values_are_those_of_the_device(device):
    value = device[0, 1, 2]
    assert float(value) == value.item() == value.tolist() == device.get()[0, 1, 2]
    assert f"{value:.3f}" == f"{float(value):.3f}"
    assert repr(device) == repr(device.get())
    with pytest.raises(ValueError, match="ambiguous"):
        bool(device > 0)
    with pytest.raises(ValueError, match="size"):
        device.item()


# --- values, views and memory ---


@pytest.mark.parametrize(
    "f",
    [
        lambda m, a: m.exp(a) + m.log1p(m.abs(a)) * m.sqrt(a * a) - m.tanh(a) / 3,
        lambda m, a: m.sum(a, axis=(0, -1), keepdims=True),
        lambda m, a: a.mean(axis=1, dtype=np.float32),
        lambda m, a: a.var(axis=-1, ddof=1),
        lambda m, a: m.einsum("bij,bkj->bik", a, a),
        lambda m, a: m.matmul(a, a.mT),
        lambda m, a: a[0] @ a[1].T,
        lambda m, a: m.where(a > 0, a, -1.0),
        lambda m, a: m.maximum(m.minimum(a, 1.0), a[:, :1]),
        lambda m, a: m.clip(a, -0.5, None),
        lambda m, a: m.concatenate([a, a[:, :3]], axis=1),
        lambda m, a: m.stack((a, a + 1), axis=2),
        lambda m, a: m.split(a, [2, 3], axis=1)[1],
        lambda m, a: m.pad(a, ((0, 0), (1, 2), (0, 0)), constant_values=3.0),
        lambda m, a: m.flip(m.roll(a, 2, axis=1), axis=(0, 2)),
        lambda m, a: m.tile(a, (1, 2, 1)),
        lambda m, a: m.repeat(a, 3, axis=2),
        lambda m, a: m.tril(a) + m.triu(a, 1),
        lambda m, a: m.cumsum(a, axis=1) + m.sort(a, axis=-1),
        lambda m, a: m.argsort(a, axis=-1, kind="stable"),
        lambda m, a: m.argmax(a, axis=1),
        lambda m, a: m.moveaxis(m.swapaxes(a, 0, 1), 0, 2).transpose(1, 0, 2),
        lambda m, a: m.expand_dims(a, 1).squeeze(1),
        lambda m, a: m.broadcast_to(a[:, :1], a.shape),
        lambda m, a: m.divmod(a, 0.3)[1] ** 2 // 0.01 % 7,
        lambda m, a: ~(a > 0) | ((a < 1) & (a != 0)) ^ (a >= 2),
        lambda m, a: +a - (-a) + abs(a) + 1 - 2 / (a * a),
        lambda m, a: m.logaddexp(a, 0.0).astype(np.float16),
        lambda m, a: m.arange(3, dtype=np.int32) << 2,
        lambda m, a: m.zeros((2, 3), m.float32) + m.ones_like(a[:, :3, 0]) + m.full((3,), 2.5) + m.eye(2, 3),
        lambda m, a: m.take_along_axis(a, m.argmax(a, axis=-1, keepdims=True), -1),
        lambda m, a: m.isfinite(a).all(axis=0),
        lambda m, a: m.linalg.norm(a, axis=-1),
        lambda m, a: m.unique_counts(m.sign(a)).counts,
        lambda m, a: a[a > 0],
        lambda m, a: a[:, None, ..., ::2],
        lambda m, a: a[:, []],
        lambda m, a: m.nonzero(a > 1)[2],
        lambda m, a: m.asarray([1.0, 2.0], dtype=m.float32),
        lambda m, a: m.meshgrid(a[0, 0], a[0, :, 0])[1],
        lambda m, a: m.prod(a, axis=2) * m.linspace(0, 1, 5),
    ],
)
def test_values_are_those_of_numpy(host, device, f):
    with np.errstate(all="ignore"):
        expected = f(np, host)
    same(f(cp, device), expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[0],
        lambda a: a[:, ::2],
        lambda a: a[..., 3],
        lambda a: a[1, 2, 3],
        lambda a: a.reshape(-1),
        lambda a: a.T,
        lambda a: a.mT,
        lambda a: a.transpose(2, 0, 1),
        lambda a: cp.swapaxes(a, 0, 1),
        lambda a: cp.split(a, [2], axis=1)[0],
        lambda a: a[None],
        lambda a: a.view(),
        lambda a: cp.reshape(a, (B, -1)),
    ],
)
def test_views_share_memory(device, view):
    v = view(device)
    assert cp.shares_memory(v, device)
    assert v.base is not None
    v[...] = 42.0
    assert (device.get() == 42.0).sum() == v.size
    v += 1.0
    assert (device.get() == 43.0).sum() == v.size


@pytest.mark.parametrize(
    "clone",
    [
        lambda a: a.copy(),
        copy.copy,
        copy.deepcopy,
        lambda a: cp.array(a),
        lambda a: a[[0, 1]],
        lambda a: a + 0,
        cp.copy,
        lambda a: a.astype(np.float64),
        lambda a: a.flatten(),
        lambda a: cp.asarray(a.get()),
    ],
)
def test_copies_do_not_share_memory(host, device, clone):
    c = clone(device)
    c[...] = 42.0
    same(device, host)


def test_host_and_device_share_no_memory(host):
    kept = host.copy()
    for make in (cp.asarray, cp.array, cp.ascontiguousarray, lambda h: cp.asarray(h, dtype=h.dtype)):
        device = make(host)
        host += 1.0
        same(device, kept)
        device.get()[...] = 9.0
        cp.asnumpy(device)[...] = 9.0
        same(device, kept)
        host -= 1.0
        host[...] = kept


def test_what_needs_no_copy_is_the_same_array(device):
    assert cp.asarray(device) is device
    assert device.astype(device.dtype, copy=False) is device
    out = cp.empty_like(device)
    assert cp.exp(device, out=out) is out
    assert cp.add(device, device, out=(out,)) is out
    assert cp.add(device, device, out) is out
    total = cp.zeros(())
    assert device.sum(out=total) is total
    alias = out
    alias *= 2.0
    assert alias is out
    same(out, device.get() * 4.0)


def test_assignment(host, device):
    for key in (0, (slice(None), 2), (..., -1), (0, slice(1, 4), [0, 3])):
        device[key] = 7.0
        host[key] = 7.0
    device[1, :, :3] = cp.arange(3.0)
    host[1, :, :3] = np.arange(3.0)
    device[device > 2] = cp.asarray(-1)
    host[host > 2] = -1
    same(device, host)


def test_in_place_operators_keep_the_dtype(host):
    device = cp.asarray(host)
    device32 = cp.asarray(host, dtype=np.float32)
    device32 += device
    assert device32.dtype == np.float32
    count = cp.arange(3)
    with pytest.raises(TypeError):
        count += 0.5


def test_properties(host, device):
    for name in ("shape", "ndim", "size", "dtype", "strides", "nbytes", "itemsize"):
        assert getattr(device, name) == getattr(host, name)
    same(device.T, host.T)
    same(device.real, host)
    flags = device.mT.flags
    assert (flags.c_contiguous, flags.f_contiguous, flags.owndata) == (False, False, False)
    assert not hasattr(flags, "writeable")
    assert len(device) == B
    assert device.base is None
    with pytest.raises(TypeError):
        iter(device.sum())


def test_dtypes_without_a_cuda_type_are_refused():
    for value in (["a"], [None], np.zeros(2, np.longdouble), np.datetime64("2026-01-01")):
        with pytest.raises(ValueError, match="Unsupported dtype"):
            cp.asarray(value)


def test_the_fake_is_a_backend(host):
    assert cp.install() is cp
    device = move(host, "fake")
    assert is_array(device)
    assert module_of(device) is cp
    np.testing.assert_array_equal(to_numpy(device), host)
    with running(module_of(device)):
        same(xp.add(device, 1), host + 1)
    previous = xp.module
    with use_backend("fake"):
        same(xp.zeros((2, 3), xp.float32), np.zeros((2, 3), np.float32))
    assert xp.module is previous


def test_a_name_that_xp_keeps_is_of_the_backend_of_this_thread():
    names = []

    def elsewhere():
        names.append(xp.add)

    def in_another_thread():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return names.pop()

    with use_backend("numpy"):
        assert xp.add is np.add  # kept from here on
        with use_backend("fake"):
            assert xp.module is cp
            assert xp.add is in_another_thread() is cp.add
        with running(cp):
            assert xp.add is cp.add
            assert in_another_thread() is np.add
            assert xp.add is cp.add  # what the other thread found is not kept for this one
            with running(np):
                assert xp.add is np.add
            assert xp.add is cp.add
        assert xp.add is in_another_thread() is np.add
