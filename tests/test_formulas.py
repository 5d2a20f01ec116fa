"""Every formula against its equation and its derivatives, and the properties that make it what it is."""

import contextlib
import math
import sys
from functools import partial

import numpy as np
import pytest
from cases import Pick
from formula_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_primitives import assert_same, moved

import tinytransformer as tt
from tinytransformer import Mask
from tinytransformer.autograd import FORMULAS, raw

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
@settings(max_examples=8)
@given(data=st.data())
def test_formula_equals_its_equation(case, view, backend, data):
    assert_is_its_equation(case, Pick.drawn(data), backend)


def assert_is_its_equation(case, pick, backend="numpy"):
    arguments = case.inputs(pick)
    for dtype, tolerance in VALUES.items():
        given_ = [cast(a, dtype) for a in arguments]
        for a in given_:
            if isinstance(a, np.ndarray):
                a.flags.writeable = False
        expected = case.oracle(*given_)
        scale = magnitude(expected, *given_)
        for wrap in (lambda x: x, tt.Tensor):
            got = case.function(*[moved(a, backend, wrap) for a in given_])
            assert_same(got, expected, tolerance * scale)


@pytest.mark.parametrize("case", [case for case in CASES if case.order], ids=str)
@settings(max_examples=4)
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


# --- wrong answers that students give: the cases must reject every one ----------------------------------


def wrong_softmax(x, axis=-1, own_maximum=True, over=None, keepdims=True, in_place=False):
    m = tt.max(x, axis, keepdims=True) if own_maximum else 0.0
    if in_place:
        array = raw(x)
        array -= raw(m)
        m = 0.0
    e = tt.exp(x - m)
    return e / tt.sum(e, axis if over is None else over, keepdims=keepdims)


def forbidding(scores, M):
    return tt.where(M, scores, -1e30)


def wrong_weights(Q, K, mask=None, fit=None, hide=forbidding, after=tt.softmax):
    d, heads = Q.shape[-1], Q.shape[1] if Q.ndim == 4 else 2
    scores = Q @ K.mT * (d**-0.5 if fit is None else fit(d, heads))
    if mask is None:
        return after(scores)
    M = np.broadcast_to(raw(tt.masked_softmax(0.0 * raw(scores), mask)) > 0, scores.shape)
    return after(hide(scores, M))


def without_maximum(scores):
    e = tt.exp(scores)
    return e / tt.sum(e, -1, keepdims=True)


def wrong_norm(x, gamma, beta, eps=1e-5, axis=-1, ddof=0, centre=True, root=tt.sqrt, inside=False):
    mu = tt.mean(x, axis, keepdims=True) if centre else 0.0
    var = tt.var(x, axis, ddof, keepdims=True) if centre else tt.mean(x * x, -1, keepdims=True)
    if inside:
        return (gamma * (x - mu) + beta) / root(var + eps)
    return gamma * (x - mu) / root(var + eps) + beta


def wrong_loss(
    z,
    y,
    ignore_index=-100,
    label_smoothing=0.0,
    reduction="mean",
    before=None,
    log_p=tt.log_softmax,
    sign=-1.0,
    count=None,
    pick=None,
):
    y = np.asarray(raw(y))
    keep = y != ignore_index
    log_p = log_p(z if before is None else before(z))
    right = (pick or (lambda p, t: tt.take_along_axis(p, t[..., None])[..., 0]))(log_p, y * keep)
    losses = sign * ((1 - label_smoothing) * right + label_smoothing * tt.mean(log_p, -1)) * keep
    total = losses.sum()
    n = max(1, keep.sum()) if count is None else count(keep, z)
    return {"none": losses, "sum": total, "mean": total / float(n)}[reduction]


def wrong_heads(Q, K, V, *parameters, heads, mask=None, change):
    return FORMULAS["multi_head_attention"].__wrapped__(*change(Q, K, V, *parameters), heads=heads, mask=mask)


def positions(p, d, dtype, angle=lambda p, i, d: p / 10000 ** (2 * i / d), join=None):
    p = np.arange(p) if isinstance(p, int) else np.asarray(p)
    a = angle(p[..., None], np.arange(d // 2), d)
    sines, cosines = np.sin(a), np.cos(a)
    pairs = np.stack([sines, cosines], -1).reshape(*p.shape, d) if join is None else join(sines, cosines)
    return pairs.astype(dtype)


WRONG = [
    ("softmax", "no maximum is subtracted", partial(wrong_softmax, own_maximum=False)),
    ("softmax", "along the columns", partial(wrong_softmax, over=0)),
    ("softmax", "keepdims forgotten", partial(wrong_softmax, keepdims=False)),
    ("softmax", "changes its input", partial(wrong_softmax, in_place=True)),
    ("attention_weights", "not scaled", partial(wrong_weights, fit=lambda d, heads: 1.0)),
    ("attention_weights", "multiplied by the root", partial(wrong_weights, fit=lambda d, heads: d**0.5)),
    ("attention_weights", "all features", partial(wrong_weights, fit=lambda d, heads: (heads * d) ** -0.5)),
    (
        "attention_weights",
        "softmax over the queries",
        partial(wrong_weights, after=partial(tt.softmax, axis=-2)),
    ),
    ("attention_weights", "no maximum is subtracted", partial(wrong_weights, after=without_maximum)),
    ("attention_weights", "the mask is multiplied", partial(wrong_weights, hide=lambda s, M: s * M)),
    (
        "attention_weights",
        "the mask is inverted",
        partial(wrong_weights, hide=lambda s, M: forbidding(s, ~M)),
    ),
    (
        "attention_weights",
        "nothing allowed: 0/0",
        partial(wrong_weights, hide=lambda s, M: tt.where(M, s, -np.inf)),
    ),
    ("attention_weights", "nothing allowed is uniform", wrong_weights),
    ("layer_norm", "unbiased variance", partial(wrong_norm, ddof=1)),
    ("layer_norm", "root forgotten", partial(wrong_norm, root=lambda v: v)),
    ("layer_norm", "no eps", lambda x, gamma, beta, eps: wrong_norm(x, gamma, beta, 0.0)),
    ("layer_norm", "over the batch", partial(wrong_norm, axis=0)),
    ("layer_norm", "RMSNorm", partial(wrong_norm, centre=False)),
    ("layer_norm", "beta inside the division", partial(wrong_norm, inside=True)),
    ("cross_entropy", "softmax twice", partial(wrong_loss, before=tt.softmax)),
    ("cross_entropy", "mean over padding too", partial(wrong_loss, count=lambda keep, z: max(1, keep.size))),
    ("cross_entropy", "divided by N V", partial(wrong_loss, count=lambda keep, z: max(1, z.size))),
    ("cross_entropy", "sign lost", partial(wrong_loss, sign=1.0)),
    (
        "cross_entropy",
        "N x N picked",
        partial(wrong_loss, pick=lambda p, t: tt.mean(p[..., t.reshape(-1)], -1)),
    ),
    ("cross_entropy", "one sum for the batch", partial(wrong_loss, log_p=lambda z: z - tt.logsumexp(z))),
    ("gelu", "the tanh form", FORMULAS["gelu_tanh"].__wrapped__),
    ("gelu_tanh", "the erf form", FORMULAS["gelu"].__wrapped__),
    ("gelu_tanh", "the sigmoid form", lambda x: x / (1 + tt.exp(-1.702 * x))),
    ("dropout", "scaled by 1/p", lambda x, keep, p: x * keep / (p or 1.0)),
    ("dropout", "not scaled", lambda x, keep, p: x * keep),
    (
        "multi_head_attention",
        "keys and values exchanged",
        partial(wrong_heads, change=lambda Q, K, V, a, b, c, d, *rest: (Q, V, K, a, b, c, d, *rest)),
    ),
    (
        "multi_head_attention",
        "no output projection",
        partial(
            wrong_heads, change=lambda Q, K, V, a, b, c, d, *rest: (Q, K, V, a, b, c, np.eye(*d.shape), *rest)
        ),
    ),
    ("sinusoidal_positions", "2i twice", partial(positions, angle=lambda p, i, d: p / 10000 ** (4 * i / d))),
    ("sinusoidal_positions", "i for 2i", partial(positions, angle=lambda p, i, d: p / 10000 ** (i / d))),
    (
        "sinusoidal_positions",
        "multiplied",
        partial(positions, angle=lambda p, i, d: p * 10000.0 ** (2 * i / d)),
    ),
    ("sinusoidal_positions", "in halves", partial(positions, join=lambda s, c: np.concatenate([s, c], -1))),
    (
        "sinusoidal_positions",
        "sin and cos exchanged",
        partial(positions, join=lambda s, c: np.stack([c, s], -1).reshape(*s.shape[:-1], -1)),
    ),
]


def assert_rejected(name, check):
    """Some case of this name must fail, by a wrong number, a warning or an error."""
    with pytest.raises((AssertionError, RuntimeWarning, ValueError)):
        check_all(name, check)


def check_all(name, check):
    for case in CASES:
        for seed in range(20 if case.name == name else 0):
            check(case, Pick.seeded(seed))


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("softmax", wrong_softmax),
        ("layer_norm", wrong_norm),
        ("cross_entropy", wrong_loss),
        ("sinusoidal_positions", positions),
    ],
)
def test_the_same_without_the_mistake_is_accepted(name, right, monkeypatch):
    monkeypatch.setattr(FORMULAS[name], "function", right)
    with tt.formulas():
        check_all(name, assert_is_its_equation)


@pytest.mark.parametrize(("name", "why", "wrong"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_a_wrong_formula_is_rejected(name, why, wrong, monkeypatch):
    monkeypatch.setattr(FORMULAS[name], "function", wrong)
    with tt.formulas():
        assert_rejected(name, assert_is_its_equation)


def straight_to_heads(x, heads):
    batch, T, features = x.shape
    return x.reshape(batch, heads, T, features // heads)


def interleaved_heads(x, heads):
    batch, T, features = x.shape
    return x.reshape(batch, T, features // heads, heads).transpose(0, 3, 1, 2)


def merged_with_batch(x):
    batch, heads, T, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(T, batch, heads * d).swapaxes(0, 1)


def wrong_causal(shift=0, half=np.tril):
    def causal(queries, keys=None):
        keys = keys or queries
        return Mask(half(np.ones((queries, keys), bool), keys - queries + shift))

    return causal


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "wrong"),
    [
        ("multi_head_attention", "attention", "split_heads", straight_to_heads),
        ("multi_head_attention", "attention", "split_heads", interleaved_heads),
        ("multi_head_attention", "attention", "merge_heads", merged_with_batch),
        ("masked_attention", Mask, "causal", wrong_causal(shift=1)),
        ("masked_attention", Mask, "causal", wrong_causal(half=np.triu)),
        ("masked_attention", Mask, "causal", lambda queries, keys: Mask(np.tri(queries, keys, dtype=bool))),
        ("attention", Mask, "padding", lambda n, T: Mask(np.arange(T) >= np.array(n)[:, None, None])),
    ],
)
def test_wrong_heads_and_masks_are_rejected(name, owner, attribute, wrong, view, monkeypatch):
    if isinstance(owner, str):
        owner = sys.modules[f"tinytransformer.formulas.{owner}"]
    monkeypatch.setattr(owner, attribute, wrong)
    assert_rejected(name, assert_is_its_equation)


def wrong_norm_gradient(g, y, saved, needs, spread=True, mean_h=True, summed=np.sum):
    x, mu, r, gamma, _ = saved
    axes = tuple(range(y.ndim - 1))
    n = ((x - mu) * r).reshape(y.shape)
    h = g * gamma
    dx = h - mean_h * h.mean(-1, keepdims=True) - spread * n * (h * n).mean(-1, keepdims=True)
    return dx * r.reshape(*y.shape[:-1], 1), summed(g * n, axis=axes), summed(g, axis=axes)


def wrong_embedding_gradient(g, y, saved, needs, averaged=False):
    ids, (V, d) = saved
    dW = np.zeros((V, d))
    if averaged:
        np.add.at(dW, ids, g)
        dW /= np.maximum(np.bincount(ids.ravel(), minlength=V), 1)[:, None]
    else:
        dW[ids] += g
    return None, dW


def gelu_without_inner_derivative(g, y, saved, needs):
    x = saved.reshape(y.shape)
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return [g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi))]


WRONG_GRADIENTS = [
    ("softmax", "diagonal only", lambda g, y, saved, needs: [g * y * (1 - y)]),
    ("softmax", "mean for sum", lambda g, y, saved, needs: [y * (g - (g * y).mean(saved[2], keepdims=True))]),
    ("layer_norm", "variance term missing", partial(wrong_norm_gradient, spread=False)),
    ("layer_norm", "mean and variance constant", partial(wrong_norm_gradient, spread=False, mean_h=False)),
    ("layer_norm", "mean over the batch", partial(wrong_norm_gradient, summed=np.mean)),
    ("embedding", "the last of equal ids", wrong_embedding_gradient),
    ("embedding", "equal ids averaged", partial(wrong_embedding_gradient, averaged=True)),
    ("gelu_tanh", "inner derivative forgotten", gelu_without_inner_derivative),
]


@pytest.mark.parametrize(
    ("name", "why", "wrong"), WRONG_GRADIENTS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_wrong_gradient_is_rejected(name, why, wrong, monkeypatch):
    monkeypatch.setattr(FORMULAS[name].fused, "backward", wrong)
    with pytest.raises(tt.GradientError, match="analytic"):
        check_all(name, lambda case, pick: tt.gradcheck(case.function, case.inputs(pick)))


@pytest.mark.parametrize("queries", [1, 5])
def test_a_mask_is_causal_only_where_its_causal_part_covers_it(queries):
    """One row of a causal mask that stands for all queries promises nothing about their diagonal."""
    causal = tt.Mask.causal(queries, 5)
    both = causal & tt.Mask(np.ones((2, 5, 5), bool))
    assert both.is_causal == (queries == 5)
    above = np.triu(np.ones((5, 5), bool), 1)
    assert not both.is_causal or not (np.asarray(both) & above).any()


def test_a_class_that_is_impossible_does_not_spoil_the_loss_of_another():
    logits = np.array([[0.0, -np.inf, np.log(3.0)]])
    with tt.formulas():
        assert float(tt.cross_entropy(logits, [2])) == pytest.approx(np.log(4 / 3))
