"""Docstring, lesson, oracle and property test of a formula share its id; links lead to code that is there."""

import re
import sys

import pytest

pytest.importorskip("jupytext", reason="jupytext is not installed: pip install '.[notebooks]'")

import test_formulas
from formula_cases import CASES

from tinytransformer.autograd import FORMULAS
from tinytransformer.course import Say, notebooks

LESSONS = notebooks.lessons()
PROSE = {lesson.name: [c["text"] for c in lesson.cells if c["kind"] == "prose"] for lesson in LESSONS}


def equation_cells():
    """Yield id, lesson, the text of the cell, and the prose before it, for each id that a cell names."""
    for lesson in LESSONS:
        before = None
        for cell in lesson.cells:
            if cell["kind"] == "prose":
                before = cell["text"]
            for name in cell["metadata"].get("equation", "").split():
                yield name, lesson, cell["text"], before


CELLS = list(equation_cells())


def squeezed(text):
    """Leave out what only sets space."""
    return re.sub(r"\s+|\\[,;]|\\q?quad|&", "", text)


def test_ids_are_names():
    for name, formula in FORMULAS.items():
        assert name == formula.name
        assert getattr(sys.modules[formula.__module__], name) is formula
        assert formula.source
    assert {name for name, *_ in CELLS} <= FORMULAS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_the_docstring_prints_the_equation_and_its_source(name):
    formula = FORMULAS[name]
    math = re.findall(r"\.\. math::(.*?)(?=\n\s*\n\s*\w|\Z)", formula.__doc__, re.S)
    assert any(squeezed(formula.equation) in squeezed(found) for found in math), formula.equation
    assert "Source:" in formula.__doc__


@pytest.mark.parametrize("name", FORMULAS)
def test_the_equation_has_one_cell_in_the_lessons(name):
    found = [(lesson, text, before) for given, lesson, text, before in CELLS if given == name]
    assert len(found) == 1, f'cells with equation="{name}": {[lesson.name for lesson, *_ in found]}'
    lesson, text, before = found[0]
    assert re.search(rf"\btt\.{name}\(", text), "the cell does not call the function"
    assert re.search(r"np\.testing\.assert_(allclose|array_equal)\(", text), "the cell does not compare"
    assert before is not None
    target = f"[{name}]({FORMULAS[name].__module__}.{name})"
    for language in before:  # the same in English and Chinese
        assert "$$" in language, "the prose before the cell does not print the equation"
    for spoken in ("en", "zh"):
        assert any(target in prose(spoken) for prose in PROSE[lesson.name]), f"{lesson.name} lacks {target}"


@pytest.mark.parametrize("name", FORMULAS)
def test_the_equation_has_an_oracle_that_the_property_tests_use(name):
    assert any(case.name == name and callable(case.oracle) for case in CASES)
    for test in (test_formulas.test_formula_equals_its_equation, test_formulas.test_gradcheck):
        (marked,) = [m for m in test.pytestmark if m.name == "parametrize" and m.args[0] == "case"]
        if test is test_formulas.test_formula_equals_its_equation:
            assert marked.args[1] is CASES
        else:  # those with derivatives
            assert marked.args[1] == [case for case in CASES if case.order]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_links_to_code_lead_to_it(lesson):
    for text in PROSE[lesson.name]:
        for words in text:
            for label, target in notebooks.CODE_LINK.findall(words):
                notebooks.resolve(target)
                assert label == target.rpartition(".")[2]
            # and there is no other kind of link to code
            assert len(notebooks.CODE_LINK.findall(words)) == len(re.findall(r"\]\(tinytransformer", words))
    for language in Say._fields:
        built = lesson.notebook(language)
        assert not any("](tinytransformer" in cell.source for cell in built.cells)


def test_a_link_to_code_that_moved_is_found():
    for gone in ("tinytransformer.formulas.attention.attend", "tinytransformer.nowhere.attention"):
        with pytest.raises(notebooks.LessonError, match="has it moved"):
            notebooks.resolve(gone)
