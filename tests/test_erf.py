"""erf_array against math.erf: accuracy, symmetry, the ends of the number line, dtypes and shapes."""

import math

import numpy as np
import pytest
from fake_cupy import install

from tinytransformer.backend import available_backends, module_of, move, running, to_numpy
from tinytransformer.ops.special import erf_array

install()  # the fake stands in for CuPy where there is no GPU
FLOATS = [np.float32, np.float64]


@pytest.fixture(params=available_backends())
def erf(request):
    """erf_array on one backend, from NumPy array to NumPy array."""

    def on_backend(x):
        array = move(x, request.param)
        with running(module_of(array)):
            y = erf_array(array)
        assert type(y) is type(array)
        return to_numpy(y)

    return on_backend


def exact(x):
    return np.array([math.erf(value) for value in x.tolist()])


# Measured: 1.3e-16 and 8.6e-8. The rest is room for the tanh of other machines.
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 5e-16), (np.float32, 1.2e-7)])
def test_absolute_error_on_a_dense_grid(erf, dtype, bound):
    x = np.linspace(-10, 10, 200_003).astype(dtype)
    assert np.abs(erf(x) - exact(x)).max() <= bound


@pytest.mark.parametrize(("dtype", "smallest"), [(np.float64, -300), (np.float32, -37)])
def test_relative_error_down_to_tiny_values(erf, dtype, smallest):
    x = np.logspace(smallest, 0, 20_011).astype(dtype)
    assert np.abs(erf(x) / exact(x) - 1).max() <= 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", FLOATS)
def test_exactly_odd(erf, dtype):
    x = (3 * np.random.default_rng(5).standard_normal(10_007)).astype(dtype)
    np.testing.assert_array_equal(erf(-x), -erf(x))
    assert np.signbit(erf(np.array([-0.0, 0.0], dtype))).tolist() == [True, False]


@pytest.mark.parametrize("dtype", FLOATS)
def test_levels_off_at_one_without_overflow(erf, dtype):
    x = np.array([6.0, 11.0, np.finfo(dtype).max, np.inf], dtype)
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_array_equal(erf(x), np.ones(4, dtype))
        np.testing.assert_array_equal(erf(-x), -np.ones(4, dtype))
        assert np.isnan(erf(np.array([0.5, np.nan], dtype))).tolist() == [False, True]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)])
def test_shape_and_dtype_are_kept_and_the_input_too(erf, dtype, shape):
    x = np.random.default_rng(7).standard_normal(shape).astype(dtype)
    before = x.copy()
    y = erf(x)
    assert (y.shape, y.dtype) == (shape, dtype)
    np.testing.assert_allclose(y.ravel(), exact(x.ravel()), rtol=0, atol=1.2e-7)
    np.testing.assert_array_equal(x, before)


def test_views_and_broadcast_arrays(erf):
    x = np.random.default_rng(11).standard_normal((5, 7))
    for view in (x.T, x[::-2, ::3], np.broadcast_to(x[:, None], (5, 3, 7))):
        np.testing.assert_array_equal(erf(view), erf(view.copy()))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, bool])
def test_integers_become_float64(erf, dtype):
    y = erf(np.array([0, 1, 3], dtype))
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, erf(np.array([0, 1, 3], dtype).astype(float)))


@pytest.mark.parametrize("dtype", [np.float16, np.complex128])
def test_other_dtypes_are_refused(erf, dtype):
    with pytest.raises(TypeError, match=f"float32 or float64, not {np.dtype(dtype)}"):
        erf(np.zeros(3, dtype))
