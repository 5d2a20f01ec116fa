"""Every formula against its equation and its derivatives, and the properties that make it what it is."""

import contextlib
import math

import numpy as np
import pytest
from cases import Pick
from formula_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_primitives import assert_same, moved

import tinytransformer as tt
from tinytransformer import Mask
from tinytransformer.autograd import FORMULAS

VIEWS = {"kernels": contextlib.nullcontext, "formulas": tt.formulas}  # what runs: fused, or as it is written
VALUES = {np.float64: 1e-12, np.float32: 1e-5}  # dtype -> tolerance


@pytest.fixture(params=VIEWS)
def view(request):
    """The test runs once on the kernels and once on the formulas as they are written."""
    with VIEWS[request.param]():
        yield request.param


def cast(argument, dtype):
    return (
        argument.astype(dtype)
        if isinstance(argument, np.ndarray) and argument.dtype.kind == "f"
        else argument
    )


def magnitude(*arrays):
    """Return the size of the largest number around, which rounding errors are measured by; at least 1."""
    floating = [a for a in arrays if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    return max(1.0, *(float(abs(a).max(initial=0)) for a in floating))


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_formula_equals_its_equation(case, view, backend, data):
    pick = Pick.drawn(data)
    arguments = case.inputs(pick)
    for dtype, tolerance in VALUES.items():
        given_ = [cast(a, dtype) for a in arguments]
        expected = case.oracle(*given_)
        scale = magnitude(expected, *given_)
        for wrap in (lambda x: x, tt.Tensor):
            got = case.function(*[moved(a, backend, wrap) for a in given_])
            assert_same(got, expected, tolerance * scale)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=5)
@given(data=st.data())
def test_gradcheck(case, view, data):
    pick = Pick.drawn(data)
    assert tt.gradcheck(case.function, case.inputs(pick), case.order, rng=pick.rng)


def test_every_formula_has_a_case():
    assert FORMULAS.keys() - {case.name for case in CASES} == set()


# --- softmax and masks ----------------------------------------------------------------------------------


@given(data=st.data())
def test_softmax_sums_to_one_and_ignores_a_shift(view, backend, data):
    pick = Pick.drawn(data)
    x = pick.numbers((2, 3, 5)) * pick.of(1, 30, 300)  # e^600 does not exist in float32
    for dtype in VALUES:
        p = tt.softmax(moved(x.astype(dtype), backend, tt.Tensor), axis=1)
        np.testing.assert_allclose(p.sum(axis=1).numpy(), 1, rtol=1e-6)
        shifted = tt.softmax(moved(np.trunc(x * 8).astype(dtype) / 8 + 1000, backend, tt.Tensor), axis=1)
        whole = tt.softmax(moved(np.trunc(x * 8).astype(dtype) / 8, backend, tt.Tensor), axis=1)
        np.testing.assert_allclose(shifted.numpy(), whole.numpy(), rtol=1e-5, atol=1e-30)


def test_log_softmax_stays_finite_where_softmax_is_zero(view, backend):
    x = moved(np.array([[0.0, 1000.0, -1000.0], [-1e30, 1e30, 5.0]]), backend, tt.Tensor)
    assert tt.log_softmax(x).tolist() == [[-1000, 0, -2000], [-2e30, 0, 5 - 1e30]]
    assert tt.softmax(x).tolist() == [[0, 1, 0], [0, 1, 0]]


def test_a_row_that_allows_nothing_is_zero_with_zero_gradient(view, backend):
    rng = np.random.default_rng(1)
    allowed = rng.random((2, 5, 7)) < 0.5
    allowed[1, 3] = False
    mask = Mask(moved(allowed, backend, lambda x: x))
    Q, K, V = (
        moved(rng.normal(size=s), backend, tt.Tensor) for s in ((2, 3, 5, 2), (2, 3, 7, 2), (2, 3, 7, 3))
    )
    for factor in (1.0, 100.0):  # both with and without a maximum to subtract
        q = tt.Tensor(Q.data * factor, requires_grad=True)
        y = tt.attention(q, K, V, mask)
        g = tt.grad(y, q, moved(rng.normal(size=y.shape), backend, tt.Tensor)).numpy()
        assert not y.numpy()[1, :, 3].any()
        assert not g[1, :, 3].any()
        assert y.numpy()[1, :, 2].any()
        assert g[1, :, 2].any()
    x = moved(rng.normal(size=(2, 3, 5, 7)), backend, tt.Tensor).requires_grad_()
    p = tt.masked_softmax(x, mask)
    g = tt.grad(p, x, moved(rng.normal(size=p.shape), backend, tt.Tensor)).numpy()
    assert not p.numpy()[1, :, 3].any()
    assert not g[1, :, 3].any()
    np.testing.assert_allclose(p.sum(axis=-1).numpy(), np.broadcast_to(allowed.any(-1)[:, None], (2, 3, 5)))


@given(data=st.data())
def test_what_a_mask_forbids_has_no_influence(view, data):
    """Whatever stands at a forbidden key, and be it nan: no output and no other gradient changes."""
    pick = Pick.drawn(data)
    Q, K, V = pick.numbers((2, 3, 5, 2)), pick.numbers((2, 3, 7, 2)), pick.numbers((2, 3, 7, 3))
    lengths = [pick.integer(1, 6), pick.integer(1, 6)]
    allowed = Mask.padding(lengths, 7)
    if pick.integer(0, 1):
        allowed = allowed & Mask.causal(5, 7)
    results = []
    for junk in (0.0, 50.0, 1e30):
        k, v = K.copy(), V.copy()
        for b, n in enumerate(lengths):
            k[b, :, n:], v[b, :, n:] = junk, -junk
        tensors = [tt.Tensor(a, requires_grad=True) for a in (Q, k, v)]
        y = tt.attention(*tensors, allowed)
        results.append([y.numpy(), *(g.numpy() for g in tt.grad(y, tensors, np.cos(y.numpy())))])
        for b, n in enumerate(lengths):
            for g in results[-1][2:]:
                assert not g[b, :, n:].any()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "attend", [tt.masked_attention, lambda *x: tt.attention(*x, Mask.causal(x[0].shape[2]))]
)
@pytest.mark.parametrize("T", [5, 67])
def test_a_later_token_never_moves_an_earlier_output(attend, T, view):
    rng = np.random.default_rng(T)
    before = [rng.normal(size=(2, 3, T, 5)) for _ in "QKV"]
    for t in (T - 1, T // 2, 1):
        after = [x.copy() for x in before]
        for x in after:
            x[:, :, t:] = rng.normal(size=x[:, :, t:].shape)
        moved_outputs = abs(attend(*before) - attend(*after)).max(axis=(0, 1, 3))
        assert (moved_outputs[:t] == 0).all()
        assert (moved_outputs[t:] > 0).all()


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (lambda: Mask(np.zeros((5, 7))), TypeError, "True = may attend, not float64"),
        (lambda: Mask(np.where(np.eye(5), 0, -np.inf)), TypeError, "scores_to_add == 0"),
        (lambda: Mask(np.ones((5, 7), int)), TypeError, "not int64"),
        (lambda: Mask(np.ones(7, bool)), ValueError, r"shape \(7,\) is none of"),
        (lambda: Mask(np.ones((2, 3, 5, 7, 1), bool)), ValueError, r"shape \(2, 3, 5, 7, 1\) is none of"),
        (
            lambda: Mask(np.ones((7, 5), bool)),
            ValueError,
            r"mask of shape \(7, 5\) .* scores of shape \(2, 3, 5, 7\)",
        ),
        (lambda: Mask(np.ones((3, 5, 7), bool)), ValueError, r"mask of shape \(3, 5, 7\) .*\(2, 3, 5, 7\)"),
        (lambda: Mask.causal(5), ValueError, r"mask of shape \(5, 5\) .* scores of shape \(2, 3, 5, 7\)"),
        (lambda: Mask.causal(7, 5), ValueError, "7 queries need at least as many keys, not 5"),
        (lambda: np.ones((5, 7), bool), TypeError, "must be a tinytransformer.Mask, not ndarray"),
        (lambda: Mask.causal(5, 7) & np.ones((5, 7), bool), TypeError, "wrap the other operand in Mask"),
    ],
)
def test_a_mask_that_could_be_read_by_guess_is_refused(mask, error, message, view):
    x = np.ones((2, 3, 5, 7))
    with pytest.raises(error, match=message):
        tt.masked_softmax(x, mask())
    with pytest.raises(error, match=message):
        tt.attention(x[..., :2], x.swapaxes(2, 3)[..., :2], x.swapaxes(2, 3)[..., :3], mask())


def test_masks_combine():
    padding = np.arange(5) < np.array([4, 2])[:, None, None]
    np.testing.assert_array_equal(
        (Mask.causal(5) & Mask.padding([4, 2], 5)).array, np.tri(5, dtype=bool) & padding
    )
    heads = np.random.default_rng(0).random((2, 3, 5, 5)) < 0.5
    np.testing.assert_array_equal((Mask.padding([4, 2], 5) & Mask(heads)).array, padding[:, None] & heads)
    np.testing.assert_array_equal(Mask.causal(2, 5).array, [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])


# --- heads ----------------------------------------------------------------------------------------------


def test_heads_are_cut_side_by_side_and_joined_again(backend):
    x = moved(np.arange(2 * 5 * 6.0).reshape(2, 5, 6), backend, tt.Tensor)
    heads = tt.split_heads(x, 3)
    for head in range(3):  # head 1 has the features 2 and 3, of every token
        np.testing.assert_array_equal(heads.numpy()[:, head], x.numpy()[:, :, 2 * head : 2 * head + 2])
    np.testing.assert_array_equal(tt.merge_heads(heads).numpy(), x.numpy())
    with pytest.raises(ValueError, match="6 features do not divide into 4 heads"):
        tt.split_heads(x, 4)


# --- losses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", [65, 99, 130])
@pytest.mark.parametrize("ignored", [-100, 3])
def test_cross_entropy_at_known_points(V, ignored, view, backend):
    rng = np.random.default_rng(V)
    targets = rng.integers(4, V, 7)
    uniform = moved(np.full((7, V), 2.5), backend, tt.Tensor)
    assert float(tt.cross_entropy(uniform, targets, ignored)) == pytest.approx(math.log(V))
    oracle = moved(1000.0 * np.eye(V)[targets], backend, tt.Tensor)
    assert float(tt.cross_entropy(oracle, targets, ignored)) == 0
    z = moved(rng.normal(size=(7, V)), backend, tt.Tensor).requires_grad_()
    losses = tt.cross_entropy(z, targets, ignored, reduction="none").numpy()
    some = np.where(np.arange(7) % 3 == 0, ignored, targets)
    for reduction, expected in (
        ("mean", losses[some != ignored].mean()),
        ("sum", losses[some != ignored].sum()),
    ):
        loss = tt.cross_entropy(z, some, ignored, reduction=reduction)
        assert float(loss) == pytest.approx(expected)
        assert not tt.grad(loss, z).numpy()[some == ignored].any()
    nothing = tt.cross_entropy(z, np.full(7, ignored), ignored)
    assert float(nothing) == 0
    assert not tt.grad(nothing, z).numpy().any()


@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        ([1, 5, 2], {}, IndexError, r"id 5 is outside \[0, 5\)"),
        ([1, -1, 2], {}, IndexError, r"id -1 is outside \[0, 5\)"),
        ([1, -100, 2], {"ignore_index": -1}, IndexError, r"id -100 is outside \[0, 5\)"),
        ([1.0, 0.0, 2.0], {}, TypeError, "ids must be integers"),
        ([1, 2], {}, ValueError, r"targets of shape \(2,\) for logits of shape \(3, 5\)"),
        ([[1, 2, 3]], {}, ValueError, r"targets of shape \(1, 3\) for logits of shape \(3, 5\)"),
        ([1, 2, 3], {"reduction": "average"}, ValueError, "'average' is none of 'mean', 'sum', 'none'"),
    ],
)
def test_bad_targets_are_refused(targets, options, error, message, view, backend):
    with pytest.raises(error, match=message):
        tt.cross_entropy(moved(np.ones((3, 5)), backend, tt.Tensor), targets, **options)


def test_bad_ids_are_refused(view, backend):
    W = moved(np.ones((5, 3)), backend, tt.Tensor)
    for ids, error in (([0, 5], IndexError), ([-1], IndexError), ([1.0], TypeError), ([True], TypeError)):
        with pytest.raises(error, match="embedding: id"):
            tt.embedding(ids, W)


# --- dropout --------------------------------------------------------------------------------------------


def test_dropout_keeps_the_expectation(view):
    rng = np.random.default_rng(5)
    x = np.array([2.0, -3.0, 5.0])
    total = sum(tt.dropout(x, rng.random(3) < 0.8, 0.2) for _ in range(4000))
    np.testing.assert_allclose(total / 4000, x, rtol=0.05)
