"""Test of the tester: gradcheck finds planted mistakes, says what they are, and accuses nothing correct."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinytransformer as tt
from tinytransformer.backend import move, xp

RNG = np.random.default_rng(1)
X = RNG.uniform(0.3, 1.5, (3, 5))
SQUARE = RNG.uniform(0.3, 1.5, (3, 3))


def planted(forward, *rules):
    """A primitive with rules that may be wrong."""
    made = tt.primitive(forward)
    made.vjp(*rules)
    return made


def refusal(function, inputs, order=1, **options):
    with pytest.raises(tt.GradientError) as caught:
        tt.gradcheck(function, inputs, order, **options)
    return str(caught.value)


# --- planted mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3, 5), (11, 13), (101, 103)])
@pytest.mark.parametrize("error", [1e-4, -1e-4, 1e-5])
def test_finds_a_relative_error_of_1e_5(shape, error):
    x = np.random.default_rng(2).uniform(-2, 2, shape)
    wrong = planted(lambda x: x * x, lambda g, y, x: g * 2 * x * (1 + error))
    right = planted(lambda x: x * x, lambda g, y, x: g * 2 * x)
    refusal(wrong, x)
    assert tt.gradcheck(right, x, order=2)


@pytest.mark.parametrize("place", [(0, 0), (2, 4)])
def test_finds_a_relative_error_of_1e_4_in_one_entry_and_names_it(place):
    factor = np.ones((3, 5))
    factor[place] += 1e-4
    message = refusal(planted(lambda x: xp.exp(x), lambda g, y, x: g * y * factor), X)
    assert f"input 0, shape (3, 5), entry {place}: analytic" in message
    assert "1 of 15 entries differ" in message


def test_finds_an_error_of_order_2_alone():
    detached = planted(lambda x: x**3, lambda g, y, x: g * 3 * tt.autograd.raw(x) ** 2)
    assert tt.gradcheck(detached, X)
    message = refusal(detached, X, order=2)
    assert "second order, input 0" in message
    assert "raw()" in message
    slightly = planted(lambda x: x**3, lambda g, y, x: g * 3 * x * (x + 1e-4 * (x - tt.autograd.raw(x))))
    assert tt.gradcheck(slightly, X)
    assert "second order, input 0" in refusal(slightly, X, order=2)


def test_finds_a_rule_that_drops_the_cotangent_at_order_2():
    linear = planted(lambda x: x * 3.0, lambda g, y, x: tt.Tensor(tt.autograd.raw(g) * 3.0))
    assert "cotangent of output 0" in refusal(linear, X, order=2)


def test_random_cotangents_find_what_ones_do_not():
    # with a cotangent of ones the gradient of softmax is zero, and so is this one, at every point
    softmax = planted(
        lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), lambda g, y, x: y * (g - g.sum() / g.size)
    )
    refusal(softmax, X)


def test_cotangents_have_both_signs():
    refusal(planted(lambda x: x * x, lambda g, y, x: abs(g) * 2 * x), X)


# --- what the message says ------------------------------------------------------------------------------


def test_names_the_input_and_both_numbers():
    product = planted(lambda a, b: a * b, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a * 3)
    message = refusal(product, [X, np.full(5, 2.0)], tolerance=1e-6)
    assert message.startswith("gradcheck: input 1, shape (5,), entry (0,): analytic ")
    assert "5 of 5 entries differ" in message


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        (lambda g, y, x: -g * 2 * x, "the sign is wrong"),
        (lambda g, y, x: g * x * 14, "every entry is 7 times too large"),
        (lambda g, y, x: g * x * -4, "every entry is 2 times too large and has the wrong sign"),
        (lambda g, y, x: g * x * 2.6, "every entry is 1.3 times too large"),
        (lambda g, y, x: g * x * 2.00002, "every entry is 1.00001 times too large"),
        (lambda g, y, x: g * x, "2 times too small; of two equal uses of the input, one may be missing"),
        (lambda g, y, x: g * x * 2 / 5, "5 times too small, a mean where a sum belongs"),
        (lambda g, y, x: g * x * 2 * 3, "3 times too large, a sum where a mean belongs"),
        (lambda g, y, x: g * x * 2 / 15, "15 times too small, a mean where a sum belongs"),
        (lambda g, y, x: g * 0, "no gradient arrives"),
        (lambda g, y, x: g * 2 * x[::-1], "not one factor for all entries"),
        (lambda g, y, x: g * 2 * x + 0.1, "not one factor for all entries"),
        (lambda g, y, x: g * 2 * x / (x - x), "the output is finite, but the gradient is"),
    ],
)
def test_says_the_likely_cause(rule, cause):
    assert cause in refusal(planted(lambda x: x * x, rule), X)


def test_says_transposed():
    inner = planted(lambda x: x.mT * 2.0, lambda g, y, x: g * 2.0)
    assert "transposed" in refusal(inner, SQUARE)  # found by its numbers
    assert "transposed" in refusal(inner, np.stack([SQUARE, SQUARE + 1]))
    assert "transposed" in refusal(inner, X)  # found by its shape
    assert "7 times" in refusal(planted(lambda x: x * x, lambda g, y, x: g * x * 14), SQUARE)


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        (lambda g, y, x: xp.broadcast_to(g, (3, 5, 2)), "not summed over an axis"),
        (lambda g, y, x: (g[..., 0] * 2 * x).sum(axis=0), "summed over an axis that the input has"),
    ],
)
def test_says_what_a_wrong_shape_means(rule, cause):
    message = refusal(planted(lambda x: (x * x)[:, :, None], rule), X)
    assert "gradient rule of <lambda> returned shape" in message
    assert cause in message


def test_says_where_the_graph_was_left():
    assert "no gradient arrives" in refusal(lambda x: x.detach() * x.detach(), X)
    assert "not a Tensor" in refusal(lambda x: np.tanh(x.numpy()), X)
    assert "not a Tensor" in refusal(lambda x: x.sum().item(), X)


def test_says_that_the_output_does_not_depend_on_an_input():
    wrong = planted(lambda a, b: a * 1.0, lambda g, y, a, b: g, lambda g, y, a, b: g * b)
    assert "input 1" in (message := refusal(wrong, [X, X]))
    assert "does not depend on this input" in message


def test_refuses_a_function_that_is_random():
    rng = np.random.default_rng(0)
    assert "not deterministic" in refusal(lambda x: x * rng.random(x.shape), X)


def test_refuses_a_function_that_changes_its_input():
    def shifted(x):
        x.data -= x.data.max()
        return tt.exp(x)

    assert "input 1 was changed in place" in refusal(lambda a, b: a * shifted(b), [X, X.copy()])


def test_refuses_single_precision():
    assert "output 0 is float32" in refusal(lambda x: x.astype(np.float32) * 2, X)


def test_refuses_values_that_are_not_finite():
    assert "output 0 is -inf at entry (1,)" in refusal(tt.log, np.array([1.0, 0.0]))
    assert "the gradient is inf at entry (1,)" in refusal(tt.sqrt, np.array([1.0, 0.0]))
    assert "not finite around the input" in refusal(lambda x: tt.sqrt(x - 0.5), np.array([1.0, 0.5 + 1e-9]))


@pytest.mark.parametrize("function", [tt.relu, lambda x: tt.max(x * tt.sign(x.detach() + 1)), tt.sign])
def test_does_not_blame_the_rule_at_a_kink(function):
    assert "the input is at a kink" in refusal(function, np.array([0.7, 0.0, 0.7, 0.7]))


def test_curvature_is_not_a_kink():
    wrong = planted(lambda x: x * x, lambda g, y, x: g * (2 * x + 1e-3))
    assert "kink" not in refusal(wrong, np.zeros(3))


def test_blames_the_rule_if_it_is_wrong_beside_a_kink():
    wrong = planted(lambda x: xp.maximum(x, 0), lambda g, y, x: g * (x > 0) * 2)
    message = refusal(wrong, np.array([0.0, 1.0]))
    assert "entry (1,)" in message
    assert "kink" not in message


# --- no false alarm -------------------------------------------------------------------------------------

HARMLESS = {
    "steep": lambda x: tt.exp(20 * x),
    "small": lambda x: 1e-9 * tt.tanh(x),
    "large": lambda x: 1e9 * tt.tanh(x),
    "mixed": lambda x: tt.concatenate([1e-6 * x, 1e6 * x, tt.exp(-10 * x)]),
    "wavy": lambda x: tt.sin(50 * x),
    "cancelling": lambda x: (1 + 1e-3 * x) - (1 - 1e-3 * x),
    "flat": lambda x: tt.softmax(x).sum(),
    "constant": lambda x: tt.ones((2, 3), dtype=np.float64),
    "deep": lambda x: tt.tanh(tt.tanh(tt.exp(tt.sin(x)) / (1 + x * x)) @ x.mT),
    "reciprocal": lambda x: 1 / (x - 2.2) ** 2,
    "several": lambda x: (x * x, x.argmax(axis=0), tt.exp(x).sum()),
}


@pytest.mark.parametrize("name", HARMLESS)
@given(seed=st.integers(0, 2**31))
def test_accepts_what_is_right(name, seed):
    x = np.random.default_rng(seed).uniform(-2, 2, (3, 5))
    assert tt.gradcheck(HARMLESS[name], x, order=2, rng=np.random.default_rng(seed))


@given(exponent=st.integers(-6, 6))
def test_accepts_inputs_of_any_size(exponent):
    assert tt.gradcheck(lambda x: x * x * x, -(10.0**exponent) * X, order=2)
    assert tt.gradcheck(tt.log, 10.0 ** max(exponent, -3) * X, order=2)


# --- inputs ---------------------------------------------------------------------------------------------


def test_takes_numbers_arrays_tensors_and_constants(backend):
    def function(x, n, mask, scale, index):
        assert x.dtype == np.float64
        assert (n, index) == (3, (0, 1))
        return tt.where(mask, x**n, scale)[index[0]]

    x = move(X.astype(np.float32), backend)
    mask = move(X > 0.7, backend)
    assert tt.gradcheck(function, [x, 3, mask, 0.5, (0, 1)], order=2)
    assert tt.gradcheck(function, [tt.Tensor(x), 3, tt.Tensor(mask), np.float64(0.5), (0, 1)], order=2)
    assert tt.gradcheck(tt.exp, 0.5, order=2)
    assert tt.gradcheck(tt.exp, tt.Tensor(x))


def test_leaves_the_inputs_alone():
    x = tt.tensor(X, requires_grad=True)
    array = X.copy()
    array.flags.writeable = False
    assert tt.gradcheck(lambda a, b: a * b, [x, array], order=2)
    assert x.grad is None
    np.testing.assert_array_equal(x.data, X)


def test_passes_a_view_on_as_a_view():
    strides = []

    def function(x):
        strides.append(x.data.strides)
        return x * 1

    tt.gradcheck(function, X[:, ::2])
    assert strides[0] == X[:, ::2].strides


def test_refuses_what_it_cannot_check():
    with pytest.raises(TypeError, match="no input is floating"):
        tt.gradcheck(lambda x: x, [np.arange(3)])
    with pytest.raises(ValueError, match="order is 1 or 2, not 3"):
        tt.gradcheck(lambda x: x, X, order=3)
    without_rule = tt.primitive(lambda *arrays: sum(arrays))
    with pytest.raises(TypeError, match="has no gradient for argument 0"):
        tt.gradcheck(without_rule, X)
    without_rule.vjp_all(lambda g, y, *arrays: [g])
    with pytest.raises(ValueError, match="returned 1 gradients for 2 arguments"):
        tt.gradcheck(without_rule, [X, X])


def test_checks_every_entry_of_a_small_input_and_few_of_a_large_one():
    calls = []

    def function(x):
        calls.append(x.shape)
        return x * x

    tt.gradcheck(function, np.ones(100))
    assert len(calls) == 2 + 2 * 100  # the point itself, twice, and both sides of each entry
    calls.clear()
    tt.gradcheck(function, np.ones(10_000), order=2)
    assert len(calls) < 20


def test_empty_inputs_pass():
    assert tt.gradcheck(lambda a, b: a @ b, [np.ones((2, 0)), np.ones((0, 3))], order=2)


def test_a_gradient_of_which_most_is_zero_is_told_as_that():
    @tt.primitive
    def twice(x):
        return 2 * x

    twice.vjp(lambda g, y, x: 2 * g * np.array([1.0, 0.0, 0.0, 0.0, 0.0]))
    with pytest.raises(tt.GradientError, match="most entries are 0"):
        tt.gradcheck(twice, [np.array([1.0, 2.0, 3.0, 5.0, 7.0])])
