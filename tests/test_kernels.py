"""Every kernel against its formula: the same values and gradients, and nothing else touched on the way."""

import contextlib
import itertools
import sys
import threading
from functools import partial

import fake_cupy
import numpy as np
import pytest
from cases import Pick
from formula_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formulas import VALUES, cast, magnitude
from test_primitives import moved

import tinytransformer as tt
from tinytransformer.autograd import FORMULAS, Kernel, raw
from tinytransformer.backend import is_array, to_numpy
from tinytransformer.kernels import common, threads

attention = sys.modules["tinytransformer.kernels.attention"]

KERNELS = {name: formula.fused for name, formula in FORMULAS.items() if formula.fused}


def small_blocks(patch):
    """Cut even the small arrays of the cases into several blocks and tiles."""
    patch.setattr(common, "BLOCK", 7)
    patch.setattr(attention, "TILE", 12)
    patch.setattr(attention, "ROWS", 2)


class Blas:
    """Stands for the library that multiplies matrices: it says how many threads there are."""

    def __init__(self, number):
        self.number = number

    def get_num_threads(self):
        return self.number

    def set_num_threads(self, number):
        self.number = number


def on_threads(patch, number):
    """Let kernels work on so many threads, as soon as there are two blocks."""
    blas = Blas(number)
    patch.setattr(threads, "LEAST", 2)
    patch.setattr(threads, "_blas", lambda: blas)
    return blas


@pytest.fixture(params=["small blocks", "small blocks on three threads", "blocks of full size"])
def block_size(request, monkeypatch):
    """The test runs with blocks so small that arrays are cut, also on threads, and with large ones."""
    if request.param != "blocks of full size":
        small_blocks(monkeypatch)
    if request.param == "small blocks on three threads":
        on_threads(monkeypatch, 3)


def watch(patch):
    """Look over the shoulder of every kernel's forward and backward; return the list of those that ran."""
    apply, gradients = Kernel.apply, Kernel.gradients
    ran = []

    def watched_apply(kernel, args, kwargs):
        inputs = [raw(a) for a in args if is_array(raw(a))]
        with unchanged(inputs):
            y = apply(kernel, args, kwargs)
        if y is not NotImplemented:
            ran.append(kernel.name)
            assert not any(shared(raw(y), a) for a in inputs), f"{kernel.name} returns an input"
        return y

    def watched_gradients(kernel, node, g, y, as_tensors):
        if as_tensors:
            return gradients(kernel, node, g, y, as_tensors)
        inputs = [*(a for a in node.arrays if is_array(a)), g, y]
        with unchanged(inputs):
            found = gradients(kernel, node, g, y, as_tensors)
        for d, (i, tensor) in zip(found, node.inputs, strict=True):
            assert (d.shape, d.dtype) == (tensor.shape, tensor.dtype)
            assert not any(shared(d, a) for a in inputs), f"the backward of {kernel.name} returns its input"
            alone = kernel.backward(g, y, node.saved, [j == i for j in range(len(node.args))])
            np.testing.assert_array_equal(to_numpy(alone[i]), to_numpy(d))
            if kernel.name != "layer_norm":  # its three gradients share nearly all of their work
                assert [j for j, other in enumerate(alone) if other is not None] == [i]
        for one, other in itertools.combinations(found, 2):
            assert not shared(one, other), f"the backward of {kernel.name} returns one buffer twice"
        return found

    patch.setattr(Kernel, "apply", watched_apply)
    patch.setattr(Kernel, "gradients", watched_gradients)
    return ran


@contextlib.contextmanager
def unchanged(arrays):
    before = [to_numpy(a).copy() for a in arrays]
    yield
    for a, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(to_numpy(a), copy, "a kernel changed what it was given")


@pytest.fixture
def watched(monkeypatch):
    return watch(monkeypatch)


def shared(a, b):
    return np.shares_memory(*(getattr(x, "_array", x) for x in (a, b)))


def outcome(case, arguments, backend, seed, order=1):
    """Value and gradients for a random cotangent; with order 2 also the gradients of those."""
    tensors = [moved(a, backend, tt.Tensor) for a in arguments]
    floating = [t.requires_grad_() for t in tensors if isinstance(t, tt.Tensor) and t.dtype.kind == "f"]
    y = case.function(*tensors)
    rng = np.random.default_rng(seed)
    v = moved(np.asarray(rng.normal(size=y.shape)).astype(y.dtype), backend, tt.Tensor).requires_grad_()
    gradients = tt.grad(y, floating, v, create_graph=order == 2)
    if order == 2:
        w = [
            moved(np.asarray(rng.normal(size=g.shape)).astype(g.dtype), backend, tt.Tensor) for g in gradients
        ]
        pairs = [(g, c) for g, c in zip(gradients, w, strict=True) if g.requires_grad]
        gradients = [*gradients, *tt.grad([g for g, _ in pairs], [*floating, v], [c for _, c in pairs])]
    return [to_numpy(raw(x)) for x in (y, *gradients)]


def assert_equal_outcomes(fused, plain, tolerance, *inputs):
    scale = magnitude(*plain, *inputs)  # some gradients are 0 as a sum of large terms
    for a, b in zip(fused, plain, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=6)
@given(data=st.data())
def test_kernel_equals_formula(case, watched, block_size, backend, data):
    pick = Pick.drawn(data)
    arguments = case.inputs(pick)
    seed = pick.integer(0, 2**31)
    for dtype, tolerance in VALUES.items():
        given_ = [cast(a, dtype) for a in arguments]
        with tt.formulas():
            plain = outcome(case, given_, backend, seed)
        assert_equal_outcomes(outcome(case, given_, backend, seed), plain, tolerance, *given_)


@pytest.mark.parametrize("case", [case for case in CASES if case.order == 2], ids=str)
@settings(max_examples=3)
@given(data=st.data())
def test_second_order_goes_through_the_formula(case, data):
    pick = Pick.drawn(data)
    arguments, seed = case.inputs(pick), pick.integer(0, 2**31)
    with tt.formulas():
        plain = outcome(case, arguments, "numpy", seed, order=2)
    assert_equal_outcomes(outcome(case, arguments, "numpy", seed, order=2), plain, 1e-11, *arguments)


def test_every_kernel_runs_in_a_case(watched):
    for case in CASES:
        for seed in range(10):
            outcome(case, case.inputs(Pick.seeded(seed)), "numpy", seed)
    assert set(watched) == KERNELS.keys()


def full_size(rng, name):
    """Inputs that fill several blocks or tiles of full size, and a call."""
    causal = tt.Mask.causal(131)
    few = tt.Mask.causal(67, 131) & tt.Mask.padding([131, 90], 131)
    ids, labels = rng.integers(0, 11, (7, 1201)), rng.integers(0, 97, 1409)
    keep = rng.random((3, 65003)) < 0.8
    return {
        "softmax": (tt.softmax, [(709, 211)]),
        "log_softmax": (tt.log_softmax, [(709, 211)]),
        "masked_softmax": (lambda x: tt.masked_softmax(x, causal), [(2, 3, 131, 131)]),
        "gelu": (tt.gelu, [(3, 65003)]),
        "gelu_tanh": (tt.gelu_tanh, [(3, 65003)]),
        "linear": (tt.linear, [(3, 701, 13), (13, 7), (7,)]),
        "embedding": (lambda W: tt.embedding(ids, W), [(13, 17)]),
        "dropout": (lambda x: tt.dropout(x, keep, 0.2), [(3, 65003)]),
        "layer_norm": (tt.layer_norm, [(3, 701, 67), (67,), (67,)]),
        "cross_entropy": (lambda z: tt.cross_entropy(z, labels), [(1409, 97)]),
        "rms_norm": (tt.rms_norm, [(3, 701, 67), (67,)]),
        "silu": (tt.silu, [(3, 65003)]),
        "rotary_positions": (lambda x: tt.rotary_positions(x, np.arange(701)), [(2, 3, 701, 14)]),
        "attention": (lambda *x: tt.attention(*x, mask=causal), [(5, 3, 131, 7)] * 3),
        "attention of fewer queries": (
            lambda *x: tt.attention(*x, mask=few),
            [(2, 3, 67, 7), (2, 3, 131, 7), (2, 3, 131, 5)],
        ),
        "attention to all": (tt.attention, [(17, 3, 131, 7)] * 3),
        "self_attention": (
            lambda x, *rest: tt.self_attention(x / 3, *[p / 9 for p in rest], heads=3, mask=causal),
            [(5, 131, 21), *[(21, 21)] * 4, *[(21,)] * 4],
        ),
        "general_attention": (
            lambda *x: tt.general_attention(*x[:3], causal, *x[3:]),
            [(5, 6, 131, 7), (5, 2, 131, 7), (5, 2, 131, 3), (1, 6, 131, 131)],
        ),
    }[name]


FULL_SIZE = [*KERNELS, "attention of fewer queries", "attention to all"]


@pytest.mark.parametrize("spread", [1.0, 9.0])
@pytest.mark.parametrize("name", FULL_SIZE)
def test_kernel_equals_formula_at_full_size(name, spread):
    rng = np.random.default_rng(3)
    function, shapes = full_size(rng, name)
    tensors = [tt.Tensor(spread * rng.normal(size=s), requires_grad=True) for s in shapes]
    with tt.formulas():
        y = function(*tensors)
        v = rng.normal(size=y.shape)
        plain = [y, *tt.grad(y, tensors, v)]
    y = function(*tensors)
    fused = [y, *tt.grad(y, tensors, v)]
    assert_equal_outcomes([t.numpy() for t in fused], [t.numpy() for t in plain], 1e-11)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_backward_can_be_run_twice(name, watched):
    rng = np.random.default_rng(4)
    function, shapes = full_size(rng, name)
    tensors = [tt.Tensor(rng.normal(size=s), requires_grad=True) for s in shapes]
    y = function(*tensors)
    v = rng.normal(size=y.shape)
    once, twice = tt.grad(y, tensors, v, retain_graph=True), tt.grad(y, tensors, v)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("causal", [False, True])
@given(data=st.data())
def test_tiles_cover_every_pair_once(causal, block_size, data):
    """Tiles of all sizes: every score that may count is computed once, the last queries of a head first."""
    draw = Pick.drawn(data).integer
    batch, groups, heads, T_q = draw(1, 3), draw(1, 3), draw(1, 2), draw(1, 150)
    T_k = T_q + draw(0, 5) if causal else draw(1, 150)
    count = np.zeros((batch, groups, heads, T_q, T_k), dtype=int)
    for at, keys in itertools.chain(*attention.tiles_of_heads((batch, groups, heads, T_q, 7), T_k, causal)):
        assert at[:2] == keys[:2]
        part = count[at][..., keys[2]]
        assert part.any() or at[3].stop == T_q or count[at[0], at[1], :, at[3].stop].any()
        part += 1
    assert count.max() == 1
    needed = np.tri(T_q, T_k, T_k - T_q, dtype=bool) if causal else np.ones((T_q, T_k), bool)
    assert count[..., needed].min() == 1


def test_causal_tiles_leave_out_three_eighths():
    computed = sum(
        (at[3].stop - at[3].start) * keys[2].stop
        for at, keys in itertools.chain(*attention.tiles_of_heads((1, 1, 1, 256, 7), 256, True))
    )
    assert computed == 256 * 256 * 5 // 8


@given(data=st.data())
def test_scores_said_to_be_bounded_are(data):
    pick = Pick.drawn(data)
    q = pick.numbers((2, 1, 3, 5, 2)) * pick.of(1, 4, 1e90)
    k = pick.numbers((2, 1, 7, 2)) * pick.of(1, 4, 1e90)
    bias = pick.of(None, pick.numbers((1, 1, 3, 1, 7)) * pick.of(1, 20))
    c = pick.of(0.3, 1.0, 3.0)
    scores = c * (q @ k[:, :, None].mT) + (0 if bias is None else bias)
    if attention.bounded(q, k, bias, c):
        assert abs(scores).max() < common.LIMIT
    else:  # it is no more careful than lengths make it
        longest = [np.sqrt((x**2).sum(axis=-1)).max() for x in (q, k)]
        largest = c * longest[0] * longest[1] + (0 if bias is None else abs(bias).max())
        assert largest > common.LIMIT * (1 - 1e-9)
    assert common.moderate(scores) == (abs(scores).max() < common.LIMIT)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in KERNELS], ids=str)
def test_no_kernel_makes_the_host_wait_for_a_gpu(case):
    for seed in range(5):
        arguments = [np.array(a) if isinstance(a, list) else a for a in case.inputs(Pick.seeded(seed))]
        tensors = [moved(a, "fake", tt.Tensor) for a in arguments]
        for t in tensors:
            if isinstance(t, tt.Tensor) and t.dtype.kind == "f":
                t.requires_grad_()
        with tt.use_backend("fake"), fake_cupy.count_syncs() as syncs:
            y = case.function(*tensors)
            tt.grad(y, [t for t in tensors if isinstance(t, tt.Tensor) and t.requires_grad], y)
        assert syncs.count == 0


def test_threads_do_not_share_their_buffers():
    names = [name for name in FULL_SIZE if name != "linear"]
    rng = np.random.default_rng(6)
    work = []
    for name in names:
        function, shapes = full_size(rng, name)
        work.append((function, [rng.normal(size=s) for s in shapes]))

    def results():
        found = []
        for function, arrays in work:
            tensors = [tt.Tensor(a, requires_grad=True) for a in arrays]
            y = function(*tensors)
            found.append([y.numpy(), *(g.numpy() for g in tt.grad(y, tensors, y.data))])
        return found

    expected, per_thread = results(), {}
    threads = [threading.Thread(target=lambda i=i: per_thread.update({i: results()})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        for got, right in zip(per_thread[i], expected, strict=True):
            for a, b in zip(got, right, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "shapes"),
    [
        (tt.linear, [(5, 3), (3, 7), (7,)]),
        (tt.layer_norm, [(5, 3), (3,), (3,)]),
        (tt.attention, [(2, 5, 3), (2, 7, 3), (2, 7, 2)]),
        (partial(tt.self_attention, heads=1), [(2, 5, 3), *[(3, 3)] * 4, *[(3,)] * 4]),
    ],
)
def test_mixed_dtypes_are_left_to_the_formula(call, shapes):
    rng = np.random.default_rng(7)
    for odd in range(len(shapes)):
        arrays = [rng.normal(size=s).astype("f8" if i == odd else "f4") for i, s in enumerate(shapes)]
        tensors = [tt.Tensor(a, requires_grad=True) for a in arrays]
        y = call(*tensors)
        assert y.dtype == np.float64
        assert y.node.operation.name != getattr(call, "func", call).name
        for g, t in zip(tt.grad(y, tensors, y.data), tensors, strict=True):
            assert g.dtype == t.dtype


@pytest.mark.parametrize("call", [tt.softmax, tt.log_softmax, tt.gelu, tt.gelu_tanh])
def test_whole_numbers_are_left_to_the_formula(call):
    np.testing.assert_allclose(call(np.array([1, 2, 4])), call(np.array([1.0, 2.0, 4.0])), rtol=1e-12)


def test_errors_are_those_of_the_formula():
    x, W = tt.ones((2, 5, 3)), tt.ones((7, 3))
    with pytest.raises(ValueError, match="inner lengths 3 and 7 differ"):
        tt.linear(x, W)
    with pytest.raises(IndexError, match="axis 2 is out of bounds"):
        tt.softmax(np.ones((3, 5)), axis=2)
    with pytest.raises(ValueError, match="inner lengths"):
        tt.attention(x, tt.ones((2, 7, 4)), tt.ones((2, 7, 3)))


def test_one_query_at_a_time_gives_the_same_as_all_at_once():
    """As generation does: keys and values in a buffer with room to spare."""
    rng = np.random.default_rng(8)
    Q, K, V = (rng.normal(size=(2, 3, 13, 5)) for _ in "QKV")
    room = [np.concatenate([x, np.full((2, 3, 8, 5), np.nan)], axis=2) for x in (K, V)]
    whole = tt.masked_attention(Q, K, V)
    for t in range(13):
        step = tt.attention(Q[:, :, t : t + 1], room[0][:, :, : t + 1], room[1][:, :, : t + 1])
        np.testing.assert_allclose(step[:, :, 0], whole[:, :, t], rtol=1e-12)
