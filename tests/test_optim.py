"""Optimizers against their equations, number by number in float64; schedules and clipping at known points."""

import copy
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
from fake_cupy import count_syncs

import tinytransformer as tt
from tinytransformer import nn, optim
from tinytransformer.backend import to_numpy, xp
from tinytransformer.optim import optimizers

SHAPES = [(2, 3), (5,), (7, 1)]
SCALES = [1.0, 1e-7, 3.0]  # the second has gradients as small as eps: it shows where eps stands
STEPS = 12
ABSENT = {(3, 0), (6, 2), (7, 2)}  # (step, parameter) without gradient


@pytest.fixture
def rng():
    return np.random.default_rng(30)


def host(tensor):
    return to_numpy(tensor.data)


def parameters(dtype="float64"):
    rng = np.random.default_rng(32)
    return [nn.Parameter(xp.asarray(rng.normal(size=shape).astype(dtype))) for shape in SHAPES]


def gradients(step):
    """Return the gradients of one step as arrays on the host, None where there is none."""
    rng = np.random.default_rng([31, step])
    drawn = [rng.normal(1, 1, shape) * scale for shape, scale in zip(SHAPES, SCALES, strict=True)]
    return [None if (step, i) in ABSENT else g for i, g in enumerate(drawn)]


def give(ps, step):
    for p, g in zip(ps, gradients(step), strict=True):
        p.grad = None if g is None else tt.Tensor(xp.asarray(g.astype(p.dtype)))


def rate(step):
    return 0.01 if step < 5 else 0.003


# --- the equations, one number at a time, and the mistakes that people make ---


class TextbookAdam:
    """Adam, or with ``decoupled`` AdamW, on arrays of the host."""

    def __init__(self, arrays, betas, eps, weight_decay, decoupled=False, mistake=""):
        self.arrays, self.betas, self.eps, self.weight_decay = list(arrays), betas, eps, weight_decay
        self.decoupled, self.mistake = decoupled, mistake
        self.m = [[0.0] * a.size for a in arrays]
        self.v = [[0.0] * a.size for a in arrays]
        self.t = [int(mistake == "t starts at 1")] * len(arrays)

    def step(self, gradients, lr):
        beta1, beta2 = self.betas
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            for j in range(len(self.t)) if self.mistake == "t counts parameters" else [i]:
                self.t[j] += 1
            t, shape = self.t[i], self.arrays[i].shape
            theta = self.arrays[i].reshape(-1)
            if self.mistake == "rebinds":
                theta = theta.copy()
            for k, g in enumerate(gradient.flat):
                decay = self.weight_decay * theta[k]
                if not self.decoupled or self.mistake == "decays twice":
                    g = g + decay
                self.m[i][k] = beta1 * self.m[i][k] + (1 - beta1) * g
                self.v[i][k] = beta2 * self.v[i][k] + (1 - beta2) * g**2
                m_hat, v_hat = self.m[i][k] / (1 - beta1**t), self.v[i][k] / (1 - beta2**t)
                if self.mistake == "m is not corrected":
                    m_hat = self.m[i][k]
                elif self.mistake == "m is corrected as at t = 1":
                    m_hat = self.m[i][k] / (1 - beta1)
                change = m_hat / (math.sqrt(v_hat) + self.eps)
                if self.mistake == "eps inside the root":
                    change = m_hat / math.sqrt(v_hat + self.eps)
                if self.decoupled:
                    theta[k] -= decay * (1 if self.mistake == "decay without lr" else lr)
                theta[k] -= lr * change
            self.arrays[i] = theta.reshape(shape)


class TextbookSGD:
    def __init__(self, arrays, momentum=0.0, weight_decay=0.0, nesterov=False):
        self.arrays, self.momentum, self.weight_decay = list(arrays), momentum, weight_decay
        self.nesterov = nesterov
        self.v = [np.zeros(a.shape) for a in arrays]

    def step(self, gradients, lr):
        for i, (theta, g) in enumerate(zip(self.arrays, gradients, strict=True)):
            if g is not None:
                g = g + self.weight_decay * theta
                self.v[i] = self.momentum * self.v[i] + g
                theta -= lr * (g + self.momentum * self.v[i] if self.nesterov else self.v[i])


class Planted:
    """A textbook optimizer with a mistake, in the place of one of ours."""

    def __init__(self, ps, **options):
        self.ps = ps
        self.textbook = TextbookAdam([p.data for p in ps], **options)

    def step(self):
        self.textbook.step([None if p.grad is None else p.grad.data for p in self.ps], self.lr)


def difference(make, make_textbook, dtype="float64", tolerance=1e-10):
    """Run an optimizer and a textbook on the same numbers, and say how the results differ if they do."""
    ps = parameters(dtype)
    before = [host(p).astype("float64") for p in ps]
    textbook = make_textbook([a.copy() for a in before])
    optimizer = make(ps)
    held = [p.data for p in ps]
    for step in range(STEPS):
        give(ps, step)
        optimizer.lr = rate(step)
        optimizer.step()
        textbook.step(gradients(step), rate(step))
    for i, p in enumerate(ps):
        if p.data is not held[i]:
            return f"parameter {i} has another array"
        moved, expected = host(p) - before[i], textbook.arrays[i] - before[i]
        if not np.allclose(moved, expected, rtol=tolerance, atol=tolerance):
            return f"parameter {i} moved by {moved} instead of {expected}"
    return ""


OPTIONS = {"betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.3}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-5)])
@pytest.mark.parametrize("piece", [4, 65_536])  # 4 cuts parameters apart and joins parts of two
@pytest.mark.parametrize(("kind", "decoupled"), [(optim.Adam, False), (optim.AdamW, True)])
def test_adam_is_the_textbook(backend, monkeypatch, kind, decoupled, piece, dtype, tolerance):
    monkeypatch.setattr(optimizers, "PIECE", piece)
    textbook = lambda arrays: TextbookAdam(arrays, **OPTIONS, decoupled=decoupled)  # noqa: E731
    assert difference(lambda ps: kind(ps, **OPTIONS), textbook, dtype, tolerance) == ""


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(
    "mistake",
    [
        "m is not corrected",
        "m is corrected as at t = 1",
        "eps inside the root",
        "t counts parameters",
        "rebinds",
        "t starts at 1",
        "decays twice",
        "decay without lr",
    ],
)
def test_the_comparison_rejects_what_people_get_wrong(mistake, decoupled):
    decoupled = decoupled or mistake.startswith("decay")  # these two are mistakes of AdamW
    textbook = lambda arrays: TextbookAdam(arrays, **OPTIONS, decoupled=decoupled)  # noqa: E731
    planted = difference(lambda ps: Planted(ps, **OPTIONS, decoupled=decoupled, mistake=mistake), textbook)
    assert planted != ""
    assert difference(lambda ps: Planted(ps, **OPTIONS, decoupled=decoupled), textbook) == ""


@pytest.mark.parametrize("piece", [4, 65_536])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.3},
        {"momentum": 0.7},
        {"momentum": 0.7, "weight_decay": 0.3},
        {"momentum": 0.7, "weight_decay": 0.3, "nesterov": True},
    ],
    ids=str,
)
def test_sgd_is_the_textbook(backend, monkeypatch, options, piece):
    monkeypatch.setattr(optimizers, "PIECE", piece)
    make = lambda ps: optim.SGD(ps, 0.5, **options)  # noqa: E731
    assert difference(make, lambda arrays: TextbookSGD(arrays, **options)) == ""


def test_default_hyperparameters_are_those_of_the_papers():
    """They are PyTorch's too; who compares with another library relies on them."""
    for kind, decay in ((optim.Adam, 0.0), (optim.AdamW, 0.01)):
        textbook = lambda arrays, kind=kind, decay=decay: TextbookAdam(  # noqa: E731
            arrays, (0.9, 0.999), 1e-8, decay, decoupled=kind is optim.AdamW
        )
        assert difference(kind, textbook) == ""
        assert kind(parameters()).lr == 1e-3


# --- groups ---


def test_groups_have_their_own_hyperparameters_and_learning_rate():
    ps, alone = parameters(), parameters()
    groups = [
        {"params": [ps[0]], "weight_decay": 0.0, "betas": (0.5, 0.9)},
        {"params": iter([ps[1], ps[2]]), "lr_scale": 2.0},
    ]
    together = optim.AdamW(groups, lr=0.1, weight_decay=0.3)
    first = optim.AdamW([alone[0]], lr=0.1, weight_decay=0.0, betas=(0.5, 0.9))
    rest = optim.AdamW(alone[1:], lr=0.2, weight_decay=0.3)
    for step in range(STEPS):
        give(ps, step)
        give(alone, step)
        if step == 4:
            together.lr, first.lr, rest.lr = 0.05, 0.05, 0.1  # both groups follow a schedule
            together.groups[1]["weight_decay"] = rest.groups[0]["weight_decay"] = 0.1
        for optimizer in (together, first, rest):
            optimizer.step()
    for p, q in zip(ps, alone, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_decay_groups_cover_every_parameter_once():
    model = nn.TransformerDecoderLayer(6, 3, 11)
    model.tied = nn.Linear(6, 6)
    model.tied.weight = model.self_attention.W_Q.weight
    matrices, vectors = optim.decay_groups(model, 0.1)
    covered = matrices["params"] + vectors["params"]
    assert sorted(map(id, covered)) == sorted(map(id, model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)].rpartition(".")[0].rpartition(".")[2] for p in matrices["params"]} == {
        *("W_Q", "W_K", "W_V", "W_O", "linear1", "linear2")
    }
    assert all("norm" in names[id(p)] or names[id(p)].endswith("bias") for p in vectors["params"])
    assert [g["weight_decay"] for g in optim.decay_groups(nn.LayerNorm(7), 0.1)] == [0.0]
    optim.AdamW(optim.decay_groups(model, 0.1))


def test_bad_arguments_are_refused():
    p, q = parameters()[:2]
    for params, error, message in (
        ([], ValueError, "there are no parameters"),
        ([p, q, p], ValueError, r"a parameter of shape \(2, 3\) is given twice"),
        ([{"params": [p]}, {"params": [q, p]}], ValueError, "given twice"),
        ([{"params": [p], "weightdecay": 0.1}], ValueError, "unknown 'weightdecay'"),
        ([{"params": [p], "lr_scale": -1.0}], ValueError, "lr_scale must be at least 0, not -1.0"),
        ([{"params": [p], "lr": 1.0}], ValueError, "unknown 'lr' in a group; known: lr_scale, "),
        ([{"weight_decay": 0.1}], TypeError, "a dict with 'params'"),
        ([{"params": [p]}, q], TypeError, "a group is a dict"),
        ([p, np.ones(3)], TypeError, "leaf Tensors, not ndarray"),
        ([p * 2], TypeError, "leaf Tensors"),
        (p, TypeError, r"write \[params\]"),
    ):
        with pytest.raises(error, match=message):
            optim.AdamW(params)
    for options in ({"lr": math.nan}, {"eps": -1e-8}, {"betas": (0.9, 1.0)}, {"weight_decay": -0.1}):
        with pytest.raises(ValueError, match=f"Adam: (both )?{next(iter(options))} must be"):
            optim.Adam([p], **options)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        optim.SGD([p], 0.1, nesterov=True)
    with pytest.raises(ValueError, match="momentum must be"):
        optim.SGD([p], 0.1, momentum=-0.1)


# --- which parameters move ---


def test_a_frozen_parameter_stays_and_goes_on_when_thawed():
    ps, alone = parameters(), parameters()
    optimizer, reference = optim.AdamW(ps, lr=0.1), optim.AdamW(alone, lr=0.1)
    for step in range(STEPS):
        give(ps, step)
        give(alone, step)
        if 2 <= step < 9:
            ps[1].requires_grad_(False)
            alone[1].grad = None
        else:
            ps[1].requires_grad_(True)
        held = ps[1].data.copy()
        optimizer.step()
        reference.step()
        assert (ps[1].data == held).all() == (2 <= step < 9)
    for p, q in zip(ps, alone, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_zero_grad_forgets_every_gradient():
    ps = parameters()
    optimizer = optim.SGD([{"params": ps[:1]}, {"params": ps[1:]}], lr=0.1)
    give(ps, 0)
    optimizer.zero_grad()
    before = [p.data.copy() for p in ps]
    optimizer.step()
    assert all(p.grad is None for p in ps)
    assert all((p.data == b).all() for p, b in zip(ps, before, strict=True))


def test_a_gradient_is_not_changed_by_the_step():
    ps = parameters()
    for optimizer in (optim.Adam(ps, 0.1, weight_decay=0.1), optim.SGD(ps, 0.1, 0.9, 0.1, nesterov=True)):
        give(ps, 0)
        optimizer.step()
        assert all((p.grad.data == g).all() for p, g in zip(ps, gradients(0), strict=True))


def test_a_gradient_of_another_shape_is_refused_before_anything_moves():
    ps = parameters()
    before = [p.data.copy() for p in ps]
    optimizer = optim.SGD([{"params": ps[:2]}, {"params": ps[2:]}], lr=0.1)
    give(ps, 0)
    ps[2].grad = tt.zeros((7,), "float64")
    with pytest.raises(ValueError, match=r"gradient of shape \(7,\) for a parameter of \(7, 1\)"):
        optimizer.step()
    assert all((p.data == b).all() for p, b in zip(ps, before, strict=True))


def test_gradients_that_are_not_contiguous_and_parameters_of_odd_shapes():
    ps = [
        nn.Parameter(np.array(2.0)),
        nn.Parameter(np.ones((0, 3))),
        nn.Parameter(np.arange(6.0).reshape(2, 3)),
    ]
    expected = [
        2 - 0.5 * 3,
        np.ones((0, 3)),
        np.arange(6.0).reshape(2, 3) - 0.5 * np.arange(6.0).reshape(3, 2).T,
    ]
    optimizer = optim.SGD(ps, lr=0.5)
    ps[0].grad, ps[1].grad = tt.tensor(np.array(3.0)), tt.tensor(np.ones((0, 3)))
    ps[2].grad = tt.Tensor(np.arange(6.0).reshape(3, 2).T)
    optimizer.step()
    for p, e in zip(ps, expected, strict=True):
        np.testing.assert_array_equal(p.data, e)


def test_a_graph_from_before_the_step_is_refused():
    ps = parameters()
    optimizer = optim.SGD(ps[:2], lr=0.1)
    give(ps, 0)
    changed, frozen, foreign = ((p * p).sum() for p in ps)
    ps[1].grad = None
    optimizer.step()
    frozen.backward()
    foreign.backward()
    with pytest.raises(RuntimeError, match="changed in place"):
        changed.backward()


# --- the arrays ---


def test_tied_parameters_take_one_step_together():
    table = nn.Embedding(7, 3, dtype="float64")
    head = nn.Linear(7, 3, bias=False, dtype="float64")
    head.weight = table.weight
    model = nn.Sequential(table, head)
    before = table.weight.data.copy()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    (table.weight * 2.0).sum().backward()
    (head.weight * 3.0).sum().backward()
    optimizer.step()
    assert head.weight is table.weight
    np.testing.assert_allclose(table.weight.data, before - 0.1 * 5)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_arrays_exchanged_between_steps_are_followed(kind):
    """A model that moves, changes its dtype or loads another array keeps its values and its moments."""
    ps, alone = parameters(), parameters()
    optimizer, reference = kind(ps, lr=0.1), kind(alone, lr=0.1)
    for step in range(STEPS):
        if step == 2:  # another array with other values
            ps[0].data = ps[0].data + 1
            alone[0].data += 1
        if step == 4:  # one moves alone, and from now on needs a buffer of its own
            ps[1].data = tt.Tensor(ps[1].data).to("fake").data
        if step == 6:
            for p in ps:
                p.data = tt.Tensor(p.data).to("fake").data
        if step == 8:
            for p in ps:
                p.data = tt.Tensor(p.data).to("numpy").data
        for p, q, g in zip(ps, alone, gradients(step), strict=True):
            p.grad = q.grad = None
            if g is not None:
                p.grad, q.grad = tt.Tensor(g).to(p.backend), tt.Tensor(g)
        optimizer.step()
        reference.step()
    for p, q in zip(ps, alone, strict=True):  # the kernel for GPUs rounds a few operations elsewhere
        np.testing.assert_allclose(host(p), q.data, rtol=0, atol=1e-14)


def test_moments_follow_a_change_of_dtype():
    model, optimizer = small_model(1)
    train(model, optimizer, 0, 3)
    before = optimizer.state_dict()
    model.to(dtype="float64")
    for name, array in optimizer.state_dict().items():
        assert array.dtype == (np.float64 if name != "steps" else before["steps"].dtype)
        np.testing.assert_array_equal(array, before[name])


def test_moments_load_in_the_dtype_the_model_has_now():
    model, optimizer = small_model(1)
    rng = np.random.default_rng(34)
    state = {name: rng.random(a.shape) for name, a in optimizer.state_dict().items() if name != "steps"}
    state["steps"] = np.arange(len(list(model.parameters())))
    model.to(dtype="float64")
    optimizer.load_state_dict(state)
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_two_optimizers_may_take_turns_on_one_parameter():
    p = nn.Parameter(np.arange(5.0))
    expected = p.data.copy()
    turns = [optim.SGD([p], lr=0.5), optim.SGD([p], lr=0.25)]
    for step in range(4):
        p.grad = tt.tensor(np.full(5, 2.0**step))
        turns[step % 2].step()
        expected -= (0.5, 0.25)[step % 2] * 2.0**step
    np.testing.assert_array_equal(p.data, expected)


def test_a_step_does_not_wait_for_the_device():
    with tt.use_backend("fake"):
        ps = parameters()
        optimizer = optim.AdamW(ps)
        give(ps, 0)
        with count_syncs() as step:
            optimizer.step()
        with count_syncs() as clip:
            optim.clip_grad_norm(ps, 1e-3)
        assert (step.count, clip.count) == (0, 0)


# --- state ---


def small_model(seed):
    rng = np.random.default_rng(seed)
    model = nn.TransformerEncoderLayer(6, 3, 11, dropout=0.0, rng=rng)
    return model, optim.AdamW(optim.decay_groups(model, 0.1), lr=0.01, betas=(0.9, 0.99))


def train(model, optimizer, start, stop):
    for step in range(start, stop):
        x = np.random.default_rng([33, step]).normal(size=(2, 5, 6)).astype("float32")
        optimizer.zero_grad()
        optimizer.lr = rate(step)
        (model(tt.Tensor(x)) ** 2).sum().backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    return model


def bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


@pytest.mark.parametrize("carry", ["load", "deepcopy", "pickle"])
def test_a_run_that_was_saved_goes_on_bit_by_bit_alike(carry):
    whole = train(*small_model(1), 0, 10)
    model, optimizer = small_model(1)
    train(model, optimizer, 0, 5)
    if carry == "load":
        weights, moments = model.state_dict(), optimizer.state_dict()
        model, optimizer = small_model(2)
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    elif carry == "deepcopy":
        left, (model, optimizer) = model, copy.deepcopy((model, optimizer))
        assert bits(left) == bits(model)
    else:
        model, optimizer = pickle.loads(pickle.dumps((model, optimizer)))
    assert bits(model) != bits(whole)
    assert bits(train(model, optimizer, 5, 10)) == bits(whole)


def test_state_holds_moments_and_steps_of_each_parameter(backend):
    ps = parameters()
    optimizer = optim.Adam(ps, betas=(0.8, 0.95))
    for step in range(4):
        give(ps, step)
        optimizer.step()
    state = optimizer.state_dict()
    assert list(state) == ["steps", "m.0", "v.0", "m.1", "v.1", "m.2", "v.2"]
    assert state["steps"].tolist() == [3, 4, 4]  # step 3 had no gradient for the first
    for i, shape in enumerate(SHAPES):
        m, v = np.zeros(shape), np.zeros(shape)
        for step in range(4):
            g = gradients(step)[i]
            if g is not None:
                m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        np.testing.assert_allclose(state[f"m.{i}"], m, rtol=1e-12)
        np.testing.assert_allclose(state[f"v.{i}"], v, rtol=1e-12)
    give(ps, 4)
    optimizer.step()
    assert state["steps"].tolist() == [3, 4, 4]
    np.testing.assert_allclose(state["m.2"], m, rtol=1e-12)  # a copy


def test_a_state_that_does_not_fit_is_refused_as_a_whole():
    optimizer = optim.Adam(parameters())
    before = {name: array.copy() for name, array in optimizer.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    del state["m.0"]
    with pytest.raises(ValueError, match=r"Adam: missing m.0; unexpected w; v.2 has shape \(7,\) instead of"):
        optimizer.load_state_dict({**state, "v.2": np.ones(7), "w": np.ones(1)})
    for steps in (np.array([1.0, 2.0, 3.0]), np.array([1, -1, 2])):
        with pytest.raises(ValueError, match="Adam: steps must be integers from 0"):
            optimizer.load_state_dict({**before, "m.0": before["m.0"] + 1, "steps": steps})
    assert all((array == before[name]).all() for name, array in optimizer.state_dict().items())


# --- schedules ---


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (optim.Constant(0.3), {0: 0.3, 7: 0.3, 10**6: 0.3}),
        (
            optim.WarmupCosine(peak=2.0, warmup=10, total=110, floor=0.5),
            {0: 0.2, 4: 1.0, 9: 2.0, 10: 2.0, 35: 1.25 + 0.75 * math.sqrt(0.5), 60: 1.25, 110: 0.5, 999: 0.5},
        ),
        (
            optim.WarmupLinear(peak=2.0, warmup=10, total=110, floor=0.5),
            {0: 0.2, 4: 1.0, 9: 2.0, 10: 2.0, 35: 1.625, 60: 1.25, 109: 0.515, 110: 0.5, 999: 0.5},
        ),
        (optim.WarmupCosine(1.0, 0, 4), {0: 1.0, 2: 0.5, 4: 0.0}),
        (optim.WarmupLinear(1.0, 4, 4), {0: 0.25, 3: 1.0, 4: 0.0}),
        (optim.WarmupCosine(1.0, 0, 0, 0.1), {0: 0.1}),
        (
            optim.Noam(d_model=64, warmup=16, factor=3.0),  # the peak is 3 / sqrt(64 * 16)
            {0: 3 / 8 / 64, 7: 3 / 64, 15: 3 / 32, 63: 3 / 64, 255: 3 / 128},
        ),
    ],
    ids=str,
)
def test_schedules_at_known_points(schedule, points):
    for step, expected in points.items():
        assert schedule(step) == pytest.approx(expected, rel=1e-12), step


@pytest.mark.parametrize("schedule", [optim.WarmupCosine(2.0, 11, 101), optim.WarmupLinear(2.0, 11, 101)])
def test_a_schedule_rises_to_its_peak_and_never_again(schedule):
    rates = [schedule(step) for step in range(110)]
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert max(rates) == rates[10] == rates[11] == 2.0
    assert all(a > b for a, b in pairwise(rates[11:102]))
    assert min(rates[:101]) > 0  # no step is wasted


def test_noam_peaks_at_the_end_of_its_warm_up():
    rates = [optim.Noam(64, 16)(step) for step in range(100)]
    assert int(np.argmax(rates)) == 15


def test_schedules_that_cannot_be_are_refused():
    for kind in (optim.WarmupCosine, optim.WarmupLinear):
        for warmup, total in ((5, 3), (-1, 3)):
            with pytest.raises(ValueError, match=f"{kind.__name__}: warmup={warmup} steps must lie between"):
                kind(1.0, warmup, total)
    with pytest.raises(ValueError, match="Noam: warmup must be at least 1"):
        optim.Noam(64, 0)


# --- clipping ---


def joint_norm(arrays):
    return math.sqrt(sum(float(x) ** 2 for a in arrays if a is not None for x in a.flat))


def test_clipping_scales_all_gradients_by_one_factor(backend):
    ps = parameters()
    give(ps, 3)  # the first has none
    norm = joint_norm(gradients(3))
    assert float(optim.clip_grad_norm(iter(ps), norm / 4)) == pytest.approx(norm, rel=1e-12)
    assert ps[0].grad is None
    for p, g in zip(ps[1:], gradients(3)[1:], strict=True):
        np.testing.assert_allclose(host(p.grad), g / 4, rtol=1e-12)


def test_clipping_leaves_small_gradients_and_measures_with_infinity():
    ps = parameters()
    give(ps, 0)
    norm = joint_norm(gradients(0))
    for limit in (1.001 * norm, math.inf):
        assert optim.clip_grad_norm(ps, limit) == pytest.approx(norm, rel=1e-12)
        assert all((p.grad.data == g).all() for p, g in zip(ps, gradients(0), strict=True))
    assert optim.clip_grad_norm([nn.Parameter([1.0])], 1.0) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])  # the square of the last is infinite in float32
def test_gradients_without_a_finite_norm_stay_as_they_are(backend, bad):
    ps = parameters("float32")
    give(ps, 0)
    array = host(ps[1].grad).copy()
    array[3] = bad
    ps[1].grad = tt.Tensor(xp.asarray(array))
    assert not math.isfinite(optim.clip_grad_norm(ps, 0.1))
    for p, g in zip(ps, [gradients(0)[0], array, gradients(0)[2]], strict=True):
        np.testing.assert_array_equal(host(p.grad), g.astype("float32"))


def test_clipping_needs_a_limit_above_zero():
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be above 0"):
            optim.clip_grad_norm(parameters(), limit)
