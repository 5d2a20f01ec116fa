"""The gradients of every primitive, of orders 1 and 2, on every backend; and that none is left out."""

import formula_cases
import pytest
from cases import CASES, CONVENTIONS, Pick
from hypothesis import given, settings
from hypothesis import strategies as st
from test_primitives import moved

import tinytransformer as tt
from tinytransformer.autograd import FORMULAS, PRIMITIVES


@pytest.mark.parametrize("case", [case for case in CASES if case.order], ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_gradcheck(case, backend, data):
    pick = Pick.drawn(data)
    arguments = [moved(a, backend, lambda x: x) for a in case.inputs(pick)]
    assert tt.gradcheck(case.function, arguments, case.order, rng=pick.rng)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.name)
def test_gradient_where_there_is_no_derivative(convention):
    convention.check()


def test_every_operation_has_a_case():
    names = {case.name for case in [*CASES, *formula_cases.CASES]}
    assert (PRIMITIVES.keys() | FORMULAS.keys()) - names == set()  # a kernel has the name of its formula
