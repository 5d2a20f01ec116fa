"""The gradients of every primitive, of orders 1 and 2, on every backend; and that none is left out."""

import pytest
from cases import CASES, Pick
from hypothesis import given
from hypothesis import strategies as st
from test_primitives import moved

import tinytransformer as tt
from tinytransformer.autograd import PRIMITIVES


@pytest.mark.parametrize("case", [case for case in CASES if case.order], ids=str)
@given(data=st.data())
def test_gradcheck(case, backend, data):
    pick = Pick.drawn(data)
    arguments = [moved(a, backend, lambda x: x) for a in case.inputs(pick)]
    assert tt.gradcheck(case.function, arguments, case.order, rng=pick.rng)


def test_every_primitive_has_a_case():
    assert PRIMITIVES.keys() - {case.name for case in CASES} == set()
