"""The forward of every primitive against NumPy: values, dtype and shape, on every backend."""

import numpy as np
import pytest
from cases import CASES, Pick
from hypothesis import given
from hypothesis import strategies as st

import tinytransformer as tt
from tinytransformer.autograd import raw
from tinytransformer.backend import move, to_numpy


def converted(argument, dtype):
    """Give a floating argument another dtype; integers stay different from 0."""
    if not isinstance(argument, np.ndarray) or argument.dtype.kind != "f":
        return argument
    return np.asarray(np.trunc(argument * 10) if dtype == np.int64 else argument).astype(dtype)


def moved(argument, backend, wrap):
    """Put the arrays in an argument, also those in a tuple, on a backend."""
    if isinstance(argument, tuple):
        return tuple(moved(a, backend, wrap) for a in argument)
    return wrap(move(argument, backend)) if isinstance(argument, np.ndarray) else argument


def assert_same(got, expected, tolerance):
    if isinstance(expected, tuple | list):
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            assert_same(g, e, tolerance)
    else:
        array = to_numpy(raw(got))
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
def test_primitive_equals_numpy(case, backend, data):
    pick = Pick.drawn(data)
    dtype = pick.of(np.float64, np.float32, *[np.int64] * case.integers)
    arguments = [converted(a, dtype) for a in case.inputs(pick)]
    expected = case.oracle(*arguments)
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    assert_same(case.function(*[moved(a, backend, lambda x: x) for a in arguments]), expected, tolerance)
    tensors = [moved(a, backend, tt.Tensor) for a in arguments]
    assert_same(case.function(*tensors), expected, tolerance)
