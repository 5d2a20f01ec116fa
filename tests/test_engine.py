"""The engine: graphs of any depth and width, freed on the way; gradients where, when and as asked for."""

import contextlib
import gc
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.autograd import Node, raw
from tinytransformer.backend import to_numpy

X = [[0.5, -1.0, 2.0, 0.3, -0.7], [1.5, 0.1, -0.3, 0.9, 1.1], [-0.2, 0.8, 0.6, -1.4, 0.4]]


@pytest.fixture
def x(backend):
    return tt.tensor(X, np.float64, requires_grad=True)


def values(tensor):
    return to_numpy(raw(tensor))


def same(tensor, expected):
    np.testing.assert_allclose(values(tensor), values(expected), rtol=1e-12, atol=1e-14)


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- size -----------------------------------------------------------------------------------------------


def fan_out(n):
    x = tt.tensor(1.0, np.float64, requires_grad=True)
    y = tt.stack([x] * n).sum()
    return x, y, float(n)


def deep(n):
    """A chain of n nodes, each of which uses x again."""
    x = tt.tensor(1.0, np.float64, requires_grad=True)
    y = x
    for _ in range(n):
        y = y + x
    return x, y, n + 1.0


def fan_in(n):
    leaves = [tt.tensor([1.0], np.float64, requires_grad=True) for _ in range(n)]
    return leaves[n // 2], (tt.concatenate(leaves) * np.arange(n)).sum(), [n // 2]


@pytest.mark.parametrize("build", [fan_out, fan_in, deep])
def test_time_is_linear_up_to_100000(build, no_collector):
    def seconds(n):
        best = np.inf
        for _ in range(2):
            start = time.process_time()
            x, y, expected = build(n)
            y.backward()
            best = min(best, time.process_time() - start)
            same(x.grad, np.array(expected))
        return best

    seconds(1000)
    assert seconds(100_000) / seconds(20_000) < 12  # 5 if linear, 25 if quadratic


def test_double_gradient_of_a_deep_graph():
    x, y, _ = deep(10_000)
    (dy,) = tt.grad(y * y, [x], create_graph=True)
    same(tt.grad(dy, x), np.array(2 * 10_001.0**2))


def test_deep_graphs_are_deleted_without_recursion():
    for _ in range(2):
        _, y, _ = deep(100_000)
        del y
    x, y, _ = deep(100_000)
    y.backward(retain_graph=True)
    del x, y


# --- memory ---------------------------------------------------------------------------------------------


def attention_step(x):
    scores = tt.softmax(x @ x.mT / 2.0, axis=-1)
    return tt.layer_norm(scores @ x, tt.ones(5, np.float64), tt.zeros(5, np.float64)).sum()


@pytest.mark.parametrize("how", ["dropped", "backward", "retained", "grad", "create_graph"])
def test_no_reference_cycles(x, how, no_collector):
    hidden = tt.tanh(x)
    y = attention_step(hidden)
    graph = [weakref.ref(t) for t in tt.autograd.ordered([y]) if t is not x]
    assert len(graph) > 3
    if how in ("backward", "retained"):
        y.backward(retain_graph=how == "retained")
    elif how == "grad":
        tt.grad(y, x)
    elif how == "create_graph":
        (dx,) = tt.grad(y, [x], create_graph=True)
        graph += [weakref.ref(t) for t in tt.autograd.ordered([dx]) if t is not x]
        tt.grad(dx.sum(), x)
        del dx
    del hidden, y
    assert [ref() for ref in graph if ref() is not None] == []


def test_memory_is_flat_over_2000_steps(no_collector):
    x = tt.tensor(X, np.float64, requires_grad=True)

    def steps(n):
        for _ in range(n):
            attention_step(x).backward()
            x.grad = None
            tt.grad(tt.grad((x * x * x).sum(), x, create_graph=True).sum(), x)
        return sys.getallocatedblocks()

    before = steps(200)
    assert steps(2000) - before < 500  # one object that stays per step would be 2000


def test_the_graph_is_freed_during_the_walk(x):
    # when the rule of the first operation runs, the arrays of the last are gone
    alive = []
    first = tt.primitive(lambda x: x * 1.0)
    y = first(x)
    z = tt.exp(y)
    last = weakref.ref(z)
    first.vjp(lambda g, y, x: alive.append(last()) or g)
    total = z.sum()
    del y, z
    total.backward()
    assert alive == [None]


# --- walking twice --------------------------------------------------------------------------------------


def test_backward_twice_says_so(x):
    y = tt.exp(x)
    z = y.sum()
    z.backward()
    for again in (z.backward, lambda: tt.grad(z, x), lambda: (y * 2).sum().backward()):
        with pytest.raises(RuntimeError, match=r"freed by an earlier backward\(\).*retain_graph=True"):
            again()


def test_retain_graph_allows_it(x):
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    same(x.grad, 4 * np.array(X))
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_grad_keeps_the_graph_if_it_creates_one(x):
    y = (x**3).sum()
    first = tt.grad(y, x, create_graph=True)
    same(tt.grad(y, x), first)
    y = (x**3).sum()
    tt.grad(y, x, create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="freed"):
        tt.grad(y, x)


def test_a_failed_walk_names_the_operation_and_the_fix(x):
    with pytest.raises(RuntimeError, match="does not depend on a Tensor with requires_grad=True"):
        x.detach().sum().backward()
    with pytest.raises(RuntimeError, match=r"an output of shape \(3, 5\) needs a gradient of that shape"):
        tt.exp(x).backward()
    with pytest.raises(ValueError, match=r"gradient of shape \(5, 3\) for an output of shape \(3, 5\)"):
        tt.exp(x).backward(tt.ones((5, 3)))
    with pytest.raises(RuntimeError, match=r"grad\(\): input 1 is not a Tensor with requires_grad=True"):
        tt.grad(x.sum(), [x, tt.ones(3)])
    without_rule = tt.primitive(lambda x: x * 1.0)
    with pytest.raises(TypeError, match=r"<lambda> has no gradient for argument 0: declare one with \.vjp"):
        without_rule(x).sum().backward()


# --- accumulation ---------------------------------------------------------------------------------------


def test_grad_accumulates_until_it_is_dropped(x):
    cotangent = tt.arange(15.0).reshape(3, 5)
    (x * 2).backward(cotangent)
    (x * 3).backward(cotangent)
    same(x.grad, 5.0 * cotangent)
    x.grad = None
    (x * 7).backward(cotangent)
    same(x.grad, 7.0 * cotangent)
    with pytest.raises(ValueError, match="gradient of shape"):
        (x * 2).backward(cotangent[:2])


def test_a_tensor_used_many_times_gets_the_sum(x):
    tt.concatenate([x, x[:2], (x + x)[::-1]]).backward(tt.ones((8, 5)))
    same(x.grad, np.broadcast_to([[4.0], [4.0], [3.0]], (3, 5)))


def pass_through(a, b):
    return a + b


def reshaped(a, b):
    return tt.reshape(a, (15,)) + tt.reshape(b, (15,))


@pytest.mark.parametrize("function", [pass_through, reshaped])
def test_gradients_own_their_buffers(x, function):
    other = tt.tensor(X, np.float64, requires_grad=True)
    cotangent = tt.ones(function(x, other).shape, np.float64)
    function(x, other).backward(cotangent)
    arrays = [x.grad.data, other.grad.data, cotangent.data]
    arrays += [g.data for g in tt.grad(function(x, other), [x, other], cotangent)]
    for i, array in enumerate(arrays):
        array += float(i)  # writing to one must not show in another
    for i, array in enumerate(arrays):
        same(array, np.full(array.shape, 1.0 + i))


def test_a_gradient_that_was_spread_can_be_written_to(x):
    (g,) = tt.grad(x.sum(), [x])
    g.data[0, 0] = 5.0
    same(g, np.array([[5.0, 1, 1, 1, 1], [1] * 5, [1] * 5]))


def test_a_shared_upstream_gradient_is_not_added_to_in_place(x):
    # a and b receive the same array from the addition; then a receives more
    a, b = x * 1.0, x * 1.0
    ((a + b).sum() + (a * 10).sum() + (a * 100).sum()).backward()
    same(x.grad, np.full((3, 5), 112.0))
    a, b = x * 1.0, x * 1.0
    y = (a + b).sum() + (a * 10).sum() + (a * 100).sum()
    ga, gb = tt.grad(y, [a, b])
    same(ga, np.full((3, 5), 111.0))
    same(gb, np.ones((3, 5)))


# --- tt.grad --------------------------------------------------------------------------------------------


def test_grad_with_respect_to_tensors_inside_the_graph(x):
    h = x * x
    y = (h * h).sum()
    gx, gh = tt.grad(y, [x, h])
    same(gh, 2 * np.array(X) ** 2)
    same(gx, 4 * np.array(X) ** 3)


def test_grad_leaves_what_lies_behind_its_inputs_alone(x):
    h = tt.exp(x)
    tt.grad((h * h).sum(), h)
    h.sum().backward()  # the graph behind h was neither walked nor freed
    same(x.grad, np.exp(X))


def test_grad_does_not_touch_dot_grad(x):
    tt.grad((x * x).sum(), x)
    assert x.grad is None


def test_grad_keeps_the_form_of_its_inputs(x):
    y = x.sum()
    assert isinstance(tt.grad(y, x, retain_graph=True), tt.Tensor)
    assert isinstance(tt.grad(y, [x]), tuple)


def test_grad_of_an_input_without_influence_is_zero(x):
    unused = tt.ones((2, 3), np.float32, requires_grad=True)
    gx, gu = tt.grad(x.sum(), [x, unused])
    same(gx, np.ones((3, 5)))
    assert gu.dtype == np.float32
    assert gu.backend == unused.backend
    same(gu, np.zeros((2, 3)))


def test_grad_of_several_outputs_is_the_sum(x):
    a, b = tt.exp(x), x[1]
    u, v = tt.arange(15.0).reshape(3, 5), tt.arange(5.0)
    expected = values(u) * np.exp(X)
    expected[1] += values(v)
    same(tt.grad([a, b], x, [u, v], retain_graph=True), expected)
    same(tt.grad((a, b, a), x, (u, v, u)), expected + values(u) * np.exp(X))
    with pytest.raises(ValueError, match="argument"):
        tt.grad([tt.exp(x), x[1]], x, [u])
    same(tt.grad([x.sum(), (2 * x).sum(), x[0, 0]], x), np.array([[4.0, 3, 3, 3, 3], [3] * 5, [3] * 5]))


def test_only_the_rules_on_the_way_run(x):
    ran = []
    watched = tt.primitive(lambda x: x * 1.0)
    watched.vjp(lambda g, y, x: ran.append(1) or g)
    other = tt.tensor(X, np.float64, requires_grad=True)
    tt.grad((watched(other) * x).sum(), x)
    tt.grad((tt.exp(watched(h := x * 2)) * x).sum(), [h])
    assert ran == [1]


def plain_softmax(x):
    e = tt.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("view", [tt.formulas, contextlib.nullcontext])
def test_third_order(x, view):
    def third(function):
        y = function(x).sum()
        for _ in range(3):
            (g,) = tt.grad(y, [x], create_graph=True)
            y = g.sum()
        return g

    with view():
        same(third(lambda x: x**4), 24 * np.array(X))
        same(third(tt.sin), -np.cos(X))
        expected = values(third(lambda x: plain_softmax(x) ** 2))
        np.testing.assert_allclose(
            values(third(lambda x: tt.softmax(x) ** 2)), expected, rtol=1e-9, atol=1e-12
        )


def test_create_graph_inside_no_grad_gives_the_values(x):
    for function in (tt.tanh, tt.softmax):
        y = (function(x) * x).sum()
        expected = tt.grad(y, x, retain_graph=True)
        with tt.no_grad():
            (g,) = tt.grad(y, [x], create_graph=True)
        assert not g.requires_grad
        same(g, expected)


# --- recording ------------------------------------------------------------------------------------------


def test_no_grad_records_nothing(x):
    with tt.no_grad():
        y = tt.exp(x)
        assert y.node is None
        assert not y.requires_grad
    assert tt.exp(x).requires_grad
    with pytest.raises(KeyError), tt.no_grad():
        raise KeyError
    assert tt.exp(x).requires_grad


@pytest.mark.parametrize(("switch", "off"), [(tt.no_grad, "recording"), (tt.formulas, "kernels")])
def test_a_switch_as_decorator_may_recurse_and_nest(switch, off):
    state = tt.autograd._switch

    @switch()
    def function(n):
        assert getattr(state, off) is False
        if n:
            function(n - 1)
        with switch():
            pass
        assert getattr(state, off) is False

    function(2)
    assert getattr(state, off) is True
    function(0)
    assert getattr(state, off) is True


@pytest.mark.parametrize(("switch", "off"), [(tt.no_grad, "recording"), (tt.formulas, "kernels")])
def test_a_switch_holds_for_its_thread_alone(switch, off):
    seen = []
    inside, looked = threading.Event(), threading.Event()

    @switch()
    def work():
        inside.set()
        looked.wait(10)
        seen.append(getattr(tt.autograd._switch, off))

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    seen.append(getattr(tt.autograd._switch, off))
    looked.set()
    thread.join()
    assert seen == [True, False]


def test_threads_build_and_walk_graphs_at_once():
    shared = tt.tensor(X, np.float64, requires_grad=True)
    results = [None] * 4

    def work(i):
        for _ in range(50):
            results[i] = tt.grad((tt.exp(shared) * (i + 1)).sum(), shared)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(results):
        same(result, (i + 1) * np.exp(X))


def test_constants_are_not_in_the_graph(x):
    y = x * tt.ones((3, 5), np.float64)
    assert y.node.parents == [x]
    assert (tt.ones(3) + 1).node is None
    assert x.argmax().node is None
    assert not x.astype(np.int64).requires_grad


# --- change in place ------------------------------------------------------------------------------------


def test_assignment_to_a_tensor_of_a_graph_is_refused(x):
    for tensor in (x, tt.exp(x)):
        with pytest.raises(RuntimeError, match=r"in-place assignment would break the graph: write tt.where"):
            tensor[0] = 1.0
    free = x.detach().copy()
    free[1, 2:4] = tt.tensor([7.0, 8.0], np.float64)
    free[free < 0] = 0.0
    expected = np.array(X)
    expected[1, 2:4] = [7, 8]
    same(free, np.maximum(expected, 0))


def test_a_change_in_place_after_the_use_is_found(x):
    constant = tt.ones((3, 5), np.float64)
    y = (x * constant).sum()
    constant[0] = 5.0
    with pytest.raises(RuntimeError, match=r"an input of multiply, shape \(3, 5\), was changed in place"):
        y.backward()
    (x * constant).sum().backward()  # used after the change: as it is now
    same(x.grad, np.array([[5.0] * 5, [1.0] * 5, [1.0] * 5]))


def test_mark_changed_says_that_data_was_written_to(x):
    y = tt.exp(x).sum()
    x.data[...] = 0.0
    x.mark_changed()
    with pytest.raises(RuntimeError, match="an input of exp"):
        y.backward()
    y = tt.exp(x)
    y.data[...] = 0.0
    y.mark_changed()
    with pytest.raises(RuntimeError, match="of exp"):
        y.backward(tt.ones((3, 5)))


# --- shapes and dtypes of gradients ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (3, 1), (1, 1), (2, 3, 5), (4, 1, 3, 1)])
def test_broadcasting_is_undone(x, shape):
    other = tt.ones(shape, np.float64, requires_grad=True)
    y = x * other
    cotangent = np.random.default_rng(0).normal(size=y.shape)
    y.backward(cotangent.tolist())
    assert other.grad.shape == shape
    assert x.grad.shape == (3, 5)
    same(x.grad, cotangent.reshape(-1, 3, 5).sum(axis=0))
    extra = cotangent * np.array(X)
    extra = extra.sum(axis=tuple(range(extra.ndim - len(shape))))
    same(
        other.grad,
        extra.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape),
    )


def test_broadcasting_of_nothing():
    x = tt.ones((1, 3), requires_grad=True)
    (x * np.ones((0, 3), np.float32)).sum().backward()
    same(x.grad, np.zeros((1, 3)))


@pytest.mark.parametrize("shape", [(3, 5, 1), (2, 5), (5, 3), (5,), (), (15,)])
def test_a_rule_that_returns_a_wrong_shape_is_named(x, shape):
    @tt.primitive
    def scaled(x):
        return x * 2.0

    scaled.vjp(lambda g, y, x: tt.autograd.module_of(g).ones(shape))
    with pytest.raises(
        ValueError, match=r"gradient rule of scaled returned shape .* for an input of shape \(3, 5\)"
    ):
        scaled(x).sum().backward()


@pytest.mark.parametrize("function", [tt.multiply, tt.add, tt.matmul, tt.maximum, tt.divide, tt.power])
def test_a_gradient_has_the_dtype_of_its_tensor(function, backend):
    square = np.random.default_rng(0).uniform(0.5, 2.0, (3, 3))
    single = tt.tensor(square, np.float32, requires_grad=True)
    double = tt.tensor(square.T, np.float64, requires_grad=True)
    y = function(single, double) * single + single.astype(np.float64)
    assert y.dtype == np.float64
    y.sum().backward()
    assert (single.grad.dtype, double.grad.dtype) == (np.float32, np.float64)
    y = (function(single, double) * single).sum()
    g1, g2 = tt.grad(y, [single, double], create_graph=True)
    assert (g1.dtype, g2.dtype) == (np.float32, np.float64)
    g1, g2 = tt.grad(g1.sum() + g2.sum(), [single, double])
    assert (g1.dtype, g2.dtype) == (np.float32, np.float64)


def test_single_precision_stays_single_within_the_walk(backend):
    x = tt.ones((3, 5), requires_grad=True)
    seen = []
    watch = tt.primitive(lambda x: x)
    watch.vjp(lambda g, y, x: seen.append(g.dtype) or g)
    y = tt.mean(tt.sqrt(watch(tt.sigmoid(watch(x * 2) - 0.5) + 0.25)) ** 2) / 3
    (y + tt.max(watch(x * 3))).backward(2.0)
    assert set(seen) == {np.dtype(np.float32)}


# --- primitives of one's own ----------------------------------------------------------------------------


def test_a_primitive_of_ones_own(x):
    @tt.primitive
    def fma(a, b, c=0.0, *, scale=1.0):
        """a b + c, times a scale."""
        return (a * b + c) * scale

    fma.vjp(
        lambda g, y, a, b, c=0.0, *, scale=1.0: g * b * scale,
        lambda g, y, a, b, c=0.0, *, scale=1.0: g * a * scale,
        lambda g, y, a, b, c=0.0, *, scale=1.0: g * scale,
    )
    assert repr(fma) == "<primitive fma>"
    assert fma.__doc__ == "a b + c, times a scale."
    row = tt.ones(5, np.float64)
    assert tt.gradcheck(fma, [x, row, x], order=2)
    assert tt.gradcheck(lambda a, b, c: fma(a, c=c, b=b, scale=3), [x, row, x], order=2)
    assert tt.gradcheck(lambda a, c: fma(a, c=c, b=2), [x, x], order=2)
    assert isinstance(fma(x.data, 2.0), type(x.data))
    assert "fma" not in tt.autograd.PRIMITIVES

    fma.vjp(lambda g, y, a, b: g * b, lambda g, y, a, b: g * b)
    with pytest.raises(tt.GradientError, match="input 1"):
        tt.gradcheck(fma, [x, row])


def test_a_joint_rule_gives_all_gradients_at_once(x):
    @tt.primitive
    def total(*arrays):
        return sum(arrays)

    total.vjp_all(lambda g, y, *arrays: [g * (i + 1) for i, _ in enumerate(arrays)])
    a, b = x.detach(), tt.tensor(X, np.float64, requires_grad=True)
    gx, gb = tt.grad(total(a, x, 3.0, b, x), [x, b], tt.ones((3, 5), np.float64))
    same(gx, np.full((3, 5), 2.0 + 5.0))
    same(gb, np.full((3, 5), 4.0))
    total.vjp_all(lambda g, y, *arrays: [g])
    with pytest.raises(ValueError, match="total"):
        total(x, b).sum().backward()


def test_errors_name_the_operation_and_the_shapes(x):
    with pytest.raises(ValueError, match=r"add on \(3, 5\) and \(2, 5\)"):
        x + tt.ones((2, 5))
    with pytest.raises(
        ValueError, match=r"matmul on \(3, 5\) and \(3, 5\): the inner lengths 5 and 3 differ.*\.mT"
    ):
        x @ x
    with pytest.raises(IndexError, match=r"getitem on \(3, 5\)"):
        x[7]
    with pytest.raises(ValueError, match=r"reshape on \(3, 5\)"):
        x.reshape(2, 5)


def test_operands_on_two_backends_are_refused(x):
    other = tt.ones((3, 5), np.float64).to("fake" if x.backend == "numpy" else "numpy")
    with pytest.raises(TypeError, match=r"add: operands live on .* and .*: move one with \.to\(...\)"):
        x + other
    with pytest.raises(TypeError, match=r"backward\(\): the gradient lives on .*, the output on"):
        tt.exp(x).backward(other)


def test_operations_run_where_their_arrays_are():
    def function(x):
        y = tt.einsum("ij,ij->i", tt.softmax(x)[:, ::-1], x)
        return tt.max(tt.cumsum(tt.pad(y, 1)) * tt.take(x, [0, 3, 3, 7, 1]), axis=0) + x.repeat(2).std()

    x = tt.tensor(X, np.float64, requires_grad=True)
    there = x.to("fake")  # while new arrays are born in NumPy
    for create_graph in (False, True):
        g = tt.grad(function(there), there, create_graph=create_graph)
        assert g.backend == "fake"
        same(g, tt.grad(function(x), x))
    function(there).backward()
    assert there.grad.backend == "fake"


def test_the_graph_can_be_looked_at(x):
    y = tt.matmul(x * 2.0, x.mT)
    assert isinstance(y.node, Node)
    assert [p.shape for p in y.node.parents] == [(3, 5), (5, 3)]
    order = tt.autograd.ordered([y])
    place = {id(t): i for i, t in enumerate(order)}
    for t in order:
        for parent in t.node.parents if t.node else ():
            assert place[id(parent)] < place[id(t)]
