"""Tensor beside NumPy's array: every operator and method, its messages, and the ways in and out."""

import copy
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import tinytransformer as tt
from tinytransformer.backend import move, to_numpy

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
Y = np.array([1.25, -0.5, 3.0])
WHOLE = np.array([[3, 1, 2], [5, 7, 4]])


def same(tensor, expected):
    """The same values, dtype and shape, in a Tensor."""
    assert isinstance(tensor, tt.Tensor)
    assert tensor.dtype == expected.dtype
    assert tensor.shape == expected.shape
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.fixture
def born(backend):
    """Make a Tensor of a copy of an array on the backend."""
    return lambda array, **options: tt.Tensor(move(np.array(array), backend), **options)


# --- making ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.5, 2], np.float32),
        (3, np.int64),
        ([[1, 2], [3, 4]], np.int64),
        (True, np.bool_),
        ([], np.float32),
        (np.float64(1.5), np.float64),
        (X, np.float64),
        (X.astype(np.float16), np.float16),
        (np.array([1, 2], np.uint8), np.uint8),
    ],
)
def test_dtype_of_what_is_given(data, dtype, backend):
    for made in (tt.tensor(data), tt.Tensor(data)):
        assert made.dtype == np.asarray(data).dtype if dtype is np.int64 else made.dtype == dtype
        np.testing.assert_array_equal(made.numpy(), data)
    assert tt.tensor(data, np.float64).dtype == np.float64
    assert tt.tensor(tt.tensor(data), np.float32).dtype == np.float32


def test_lists_may_hold_tensors_and_arrays():
    same(tt.tensor([tt.tensor(1.0), np.float32(2), 3]), np.array([1, 2, 3], np.float32))
    same(tt.tensor([[tt.tensor([1, 2])], [np.array([3, 4])]]), np.array([[[1, 2]], [[3, 4]]]))
    same(tt.tensor([tt.Tensor(X), X]), np.array([X, X]))  # float64 stays


def test_tensor_copies_and_the_class_does_not():
    array = X.copy()
    copied, shared = tt.tensor(array), tt.Tensor(array)
    array[0, 0] = 9.0
    assert copied.numpy()[0, 0] == 0.5
    assert shared.numpy()[0, 0] == 9.0
    assert tt.Tensor(shared).data is array


@pytest.mark.parametrize("data", [["a"], None, [1j], object()])
def test_refuses_what_is_not_numbers(data):
    with pytest.raises(TypeError, match="Tensor: cannot be made of"):
        tt.tensor(data)


def test_constructors(backend):
    same(tt.zeros((2, 3)), np.zeros((2, 3), np.float32))
    same(tt.ones(3, np.int64), np.ones(3, np.int64))
    same(tt.full((2, 1), 2.5), np.full((2, 1), 2.5, np.float32))
    same(tt.arange(5), np.arange(5))
    same(tt.arange(1.0, 2.0, 0.25), np.arange(1.0, 2.0, 0.25))
    same(tt.arange(3, dtype=np.float32), np.arange(3, dtype=np.float32))
    same(tt.eye(2), np.eye(2, dtype=np.float32))
    same(tt.eye(2, 3, np.float64), np.eye(2, 3))
    made = [
        tt.zeros(2),
        tt.ones(2),
        tt.full(2, 1),
        tt.arange(2),
        tt.eye(2),
        tt.tensor([1.0]),
        tt.Tensor([1.0]),
    ]
    assert {t.backend for t in made} == {backend}
    assert all(f(2, requires_grad=True).requires_grad for f in (tt.zeros, tt.ones))
    assert tt.full(2, 1.0, requires_grad=True).requires_grad


def test_requires_grad_needs_floats_and_a_leaf():
    with pytest.raises(TypeError, match=r"requires_grad needs a floating dtype, not int64: use \.astype"):
        tt.tensor([1, 2], np.int64, requires_grad=True)
    x = tt.tensor(1.0)
    assert x.requires_grad_() is x
    assert x.requires_grad
    y = x * 2
    with pytest.raises(RuntimeError, match=r"only be set on a leaf: use \.detach\(\)"):
        y.requires_grad_(False)
    assert not x.requires_grad_(False).requires_grad


# --- what it is -----------------------------------------------------------------------------------------


def test_attributes(backend, born):
    x = born(np.zeros((2, 3, 5)))
    assert (x.shape, x.ndim, x.size, x.dtype, len(x), x.backend) == ((2, 3, 5), 3, 30, np.float64, 2, backend)
    assert x.grad is None
    assert x.node is None
    with pytest.raises(AttributeError):
        x.shapes = 3


def test_repr(backend):
    where = "" if backend == "numpy" else f", backend={backend}"
    x = tt.tensor([[1.0, 2.5], [3.0, 4.0]], requires_grad=True)
    text = f"Tensor([[1. , 2.5],\n        [3. , 4. ]], shape=(2, 2), dtype=float32{where}"
    assert repr(x) == text + ", requires_grad=True)"
    assert repr(x.detach()) == text + ")"
    assert repr(x.detach() + 0 * x).endswith(", node=add)")
    y = x.sum()
    y.backward()
    assert repr(y).endswith("node=freed)")
    assert repr(tt.tensor(3)) == f"Tensor(3, shape=(), dtype=int64{where})"
    assert str(tt.tensor(True)) == f"Tensor(True, shape=(), dtype=bool{where})"
    assert len(repr(tt.zeros((100, 100)))) < 400
    assert "shape=(0, 3)" in repr(tt.zeros((0, 3)))


# --- operators ------------------------------------------------------------------------------------------

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS)
@pytest.mark.parametrize("other", [Y + 4, np.float64(2.0), 2, 2.0, np.float32(2.0), np.abs(X)])
def test_binary_operators_equal_numpy(op, other, backend, born):
    left = np.abs(X)
    tensor = born(left)
    given = move(other, backend) if isinstance(other, np.ndarray) else other
    same(op(tensor, given), op(left, other))
    same(op(given, tensor), op(other, left))  # an array on the left leaves the work to the Tensor
    same(op(tensor, born(other)), op(left, np.asarray(other)))


def test_operators_keep_single_precision():
    x = tt.tensor(X, np.float32)
    for result in (x + 1, 1.5 - x, x * 2.5, x / 3, x**2, -x, x @ x.mT, 2 / (x + 9), 2**x, x > 0.5):
        assert result.dtype in (np.float32, np.bool_)


def test_matmul_operator(backend, born):
    a, b = born(X), born(Y)
    same(a @ b, X @ Y)
    same(b @ a.mT, Y @ X.T)
    same(move(X, backend) @ b, X @ Y)
    same(a @ move(Y, backend), X @ Y)
    same(a @ [1.0, 2.0, 3.0], X @ [1.0, 2.0, 3.0])
    with pytest.raises(
        ValueError, match=r"matmul on \(2, 3\) and \(2, 3\).*inner lengths 3 and 2.*transpose"
    ):
        a @ a
    with pytest.raises(ValueError, match=r"matmul on \(2, 3\) and \(2,\).*inner lengths 3 and 2"):
        a @ tt.ones(2)
    with pytest.raises(ValueError, match="matmul"):
        a @ 2.0


def test_unary_operators(born):
    x = born(X)
    same(-x, -X)
    same(abs(x), abs(X))
    assert +x is x
    mask = born(X > 0)
    same(~mask, ~(X > 0))
    same(mask & (x < 1), (X > 0) & (X < 1))
    same(mask | (x < -0.8), (X > 0) | (X < -0.8))


def test_comparison_with_what_cannot_be_compared():
    x = tt.tensor(X)
    with pytest.raises(TypeError, match="'<' not supported"):
        assert x < object()
    for compare in COMPARISONS:
        with pytest.raises(TypeError, match="operands live on numpy and fake"):
            compare(x, tt.ones((2, 3)).to("fake"))


def test_hash_is_by_identity():
    x = tt.tensor(X)
    assert len({x, x, tt.tensor(X)}) == 2


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv"])
def test_augmented_assignment_makes_a_new_tensor(name):
    x = tt.tensor(X, requires_grad=True)
    y = getattr(operator, name)(x, 2.0)
    assert y is not x
    assert y.node is not None
    np.testing.assert_array_equal(x.numpy(), X)


# --- methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "max", "min", "prod"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, axis, keepdims):
    x = tt.tensor(X)
    expected = np.asarray(getattr(X, name)(axis=axis, keepdims=keepdims))
    same(getattr(x, name)(axis=axis, keepdims=keepdims), expected)
    if axis is None and not keepdims:
        same(getattr(x, name)(), expected)
    if name in ("sum", "mean", "max", "min", "prod"):
        same(getattr(x, name)(axis, keepdims), expected)
    if name in ("var", "std") and axis != -1:
        same(getattr(x, name)(axis, ddof=1), np.asarray(getattr(X, name)(axis, ddof=1)))


METHODS = {
    "cumsum": lambda x: x.cumsum(),
    "cumsum along": lambda x: x.cumsum(axis=1),
    "reshape": lambda x: x.reshape(3, 2),
    "reshape of a tuple": lambda x: x.reshape((3, -1)),
    "reshape to one axis": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(),
    "transpose": lambda x: x.transpose(),
    "transpose of axes": lambda x: x.transpose(1, 0),
    "transpose of a tuple": lambda x: x.transpose((1, 0)),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "swapaxes": lambda x: x.swapaxes(0, -1),
    "squeeze": lambda x: x[:1].squeeze(),
    "squeeze an axis": lambda x: x[:1].squeeze(0),
    "clip": lambda x: x.clip(-0.5, 1),
    "clip from below": lambda x: x.clip(min=0.1),
    "clip from above": lambda x: x.clip(max=0.1),
    "repeat": lambda x: x.repeat(2),
    "repeat along": lambda x: x.repeat(2, axis=0),
    "take": lambda x: x.take([0, 5, -1]),
    "take along": lambda x: x.take([1, 0, 1], axis=1),
    "astype": lambda x: x.astype(np.float32),
    "astype int": lambda x: x.astype(np.int64),
    "copy": lambda x: x.copy(),
    "argmax": lambda x: x.argmax(),
    "argmax along": lambda x: x.argmax(axis=1),
    "argmin along": lambda x: x.argmin(axis=0),
    "argsort": lambda x: x.argsort(),
    "argsort along": lambda x: x.argsort(axis=0),
    "any": lambda x: (x > 1).any(),
    "any along": lambda x: (x > 1).any(axis=1),
    "all": lambda x: (x > -3).all(),
    "all along": lambda x: (x > -0.8).all(axis=1),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_equal_numpy(name, born):
    same(METHODS[name](born(X)), np.asarray(METHODS[name](X)))


def test_every_public_method_is_tested():
    elsewhere = {
        "shape",
        "ndim",
        "size",
        "dtype",
        "backend",
        "numpy",
        "item",
        "tolist",
        "requires_grad_",
        "detach",
    }
    elsewhere |= {"backward", "mark_changed", "to", "changed", "data", "grad", "node", "requires_grad"}
    elsewhere |= {"sum", "mean", "var", "std", "max", "min", "prod", "clock", "last_change"}
    public = {name for name in dir(tt.Tensor) if not name.startswith("_")}
    assert public - elsewhere == {name.split()[0] for name in METHODS}


# --- to Python ------------------------------------------------------------------------------------------


def test_numbers(backend):
    x, n, yes = tt.tensor([[2.5]]), tt.tensor(3), tt.tensor([True])
    assert (x.item(), float(x), int(x), bool(x), f"{x:.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert (n.item(), operator.index(n), [10, 11, 12, 13][n], range(9)[n]) == (3, 3, 13, 3)
    assert (yes.item(), bool(yes)) == (True, True)
    assert type(x.item()) is float
    assert type(n.item()) is int
    assert not tt.tensor(0.0)
    assert f"{x}" == str(x)
    assert x.tolist() == [[2.5]]


def test_what_is_not_one_number_says_so():
    x = tt.tensor(X)
    for convert in (tt.Tensor.item, float, int):
        with pytest.raises(
            ValueError, match=r"a Tensor of shape \(2, 3\) is not a single number; use \.numpy"
        ):
            convert(x)
    with pytest.raises(
        ValueError, match=r"truth of a Tensor of shape \(2, 3\) is ambiguous: use \.any\(\) or \.all"
    ):
        bool(x)
    with pytest.raises(TypeError, match="integer"):
        operator.index(tt.tensor(2.5))
    with pytest.raises(TypeError, match="integer"):
        operator.index(tt.tensor([1, 2]))
    with pytest.raises(TypeError, match=r"len\(\) of unsized object"):
        len(tt.tensor(1.0))
    with pytest.raises(TypeError, match=r"a Tensor of shape \(\) cannot be iterated over"):
        iter(tt.tensor(1.0))


def test_iteration(born):
    x = born(X, requires_grad=True)
    rows = list(x)
    assert len(rows) == 2
    same(rows[1], X[1])
    first, second = x
    (first * second).sum().backward()
    same(x.grad, X[::-1].copy())
    assert 2.0 in tt.tensor([1.0, 2.0])
    assert 3.0 not in tt.tensor([1.0, 2.0])


# --- to NumPy and back ----------------------------------------------------------------------------------


def test_numpy_gives_the_array():
    x = tt.tensor(X)
    assert x.numpy() is x.data
    tracked = tt.tensor(X, requires_grad=True)
    assert not tracked.numpy().flags.writeable
    tracked.data[0, 0] = 7.0  # numpy() did not make the data itself read-only
    assert tracked.numpy()[0, 0] == 7.0


def test_asarray():
    x = tt.tensor(X, requires_grad=True)
    array = np.asarray(x)
    np.testing.assert_array_equal(array, X)
    assert np.shares_memory(array, x.data)
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    copied = np.array(x)
    copied[0] = 0.0
    np.testing.assert_array_equal(x.numpy(), X)
    with pytest.raises(ValueError, match="copy"):
        np.array(x, dtype=np.float32, copy=False)


@pytest.mark.parametrize("function", [np.exp, np.add.reduce, lambda x: np.multiply(X, x)])
def test_numpy_functions_are_refused(function):
    with pytest.raises(TypeError, match="__array_ufunc__"):
        function(tt.tensor(X))


def test_moves_between_backends():
    x = tt.tensor(X, requires_grad=True)
    there = x.to("fake")
    assert (there.backend, there.requires_grad, there.node) == ("fake", True, None)
    np.testing.assert_array_equal(there.numpy(), X)
    back = (there * 2).to("numpy")
    assert (back.backend, back.requires_grad) == ("numpy", False)
    assert x.to("numpy").data is x.data
    with pytest.raises(tt.BackendError, match="backend 'tpu' is unknown"):
        x.to("tpu")


def test_numpy_of_a_device_tensor():
    x = tt.tensor(X).to("fake")
    assert type(x.numpy()) is np.ndarray
    np.testing.assert_array_equal(np.asarray(x), X)
    np.testing.assert_array_equal(to_numpy(x.data), X)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(duplicate):
    leaf = tt.tensor(X, requires_grad=True)
    twin = duplicate(leaf)
    assert twin.requires_grad
    assert twin.node is None
    np.testing.assert_array_equal(twin.numpy(), X)
    (leaf * 2).sum().backward()
    assert twin.grad is None


def test_deepcopy_owns_its_data_and_keeps_identities():
    x = tt.tensor(X)
    one, two = copy.deepcopy([x, x])
    assert one is two
    one[0, 0] = 9.0
    np.testing.assert_array_equal(x.numpy(), X)


def test_a_tensor_of_a_graph_is_copied_without_it():
    y = tt.exp(tt.tensor(X, requires_grad=True))
    for twin in (copy.deepcopy(y), pickle.loads(pickle.dumps(y)), y.copy(), y.detach()):
        assert twin.node is None
        np.testing.assert_array_equal(twin.numpy(), np.exp(X))
    assert not y.detach().requires_grad
    assert y.detach().data is y.data
    assert y.copy().data is not y.data


# --- indexing -------------------------------------------------------------------------------------------

BOX = np.arange(2 * 3 * 5.0).reshape(2, 3, 5)
INDICES = st.one_of(
    npst.basic_indices(BOX.shape, allow_newaxis=True, allow_ellipsis=True),
    npst.integer_array_indices(BOX.shape, result_shape=npst.array_shapes(max_dims=2, max_side=3)),
    npst.arrays(np.bool_, st.sampled_from([BOX.shape, BOX.shape[:1], BOX.shape[:2]])),
    st.lists(st.integers(-2, 1), max_size=4),
    st.tuples(
        st.sampled_from([slice(None), slice(None, None, -1), 1]),
        npst.arrays(np.int64, 2, elements=st.integers(-3, 2)),
    ),
    st.tuples(npst.arrays(np.int64, (2, 1), elements=st.integers(0, 1)), st.just(Ellipsis), st.just(None)),
    st.booleans(),
)


def wrapped(index, wrap):
    if isinstance(index, tuple):
        return tuple(wrapped(i, wrap) for i in index)
    return wrap(index) if isinstance(index, np.ndarray) else index


@settings(max_examples=60)
@given(index=INDICES)
def test_indexing_equals_numpy(index, backend, born):
    if isinstance(index, list) and not index:
        index = np.zeros(0, np.int64)  # an empty list is an array of floats
    x = born(BOX, requires_grad=True)
    expected = np.asarray(BOX[index])
    same(x[wrapped(index, lambda i: move(i, backend))], expected)
    picked = x[wrapped(index, born)]
    same(picked, expected)
    cotangent = np.arange(1.0, expected.size + 1).reshape(expected.shape)
    picked.backward(born(cotangent))
    gradient = np.zeros(BOX.shape)
    np.add.at(gradient, index, cotangent)
    same(x.grad, gradient)


@settings(max_examples=60)
@given(index=INDICES)
def test_assignment_equals_numpy(index, born):
    if isinstance(index, list) and not index:
        index = np.zeros(0, np.int64)
    x, expected = born(BOX), BOX.copy()
    x[wrapped(index, born)] = -1.0
    expected[index] = -1.0
    same(x, expected)


@given(
    shapes=npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0),
    op=st.sampled_from([operator.add, operator.mul, operator.sub]),
)
def test_broadcasting_equals_numpy(shapes, op, born):
    a, b = (np.arange(float(np.prod(s))).reshape(s) + 1 for s in shapes.input_shapes)
    same(op(born(a), born(b)), np.asarray(op(a, b)))


def test_index_errors_name_the_shape():
    with pytest.raises(IndexError, match=r"getitem on \(2, 3\): index 2 is out of bounds"):
        tt.tensor(X)[2]
    with pytest.raises(IndexError, match=r"getitem on \(2, 3\): .* \d+ were indexed"):
        tt.tensor(X)[0, 0, 0]


def test_pad_takes_its_arguments_in_numpy_s_order():
    x = np.arange(6.0).reshape(2, 3)
    found = tt.pad(tt.tensor(x), ((1, 0), (0, 2)), "constant", constant_values=7.0)
    np.testing.assert_array_equal(found.numpy(), np.pad(x, ((1, 0), (0, 2)), "constant", constant_values=7.0))
    with pytest.raises(ValueError, match=r"pad on \(2, 3\): mode 'edge' is not there"):
        tt.pad(tt.tensor(x), 1, "edge")
