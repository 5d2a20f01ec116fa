"""Every exercise: right answers pass, mistakes lose points under their own name, nothing is for free."""

import ast
import inspect

import numpy as np
import pytest

from tinytransformer.course import all_exercises, mark
from tinytransformer.course.answers import references
from tinytransformer.course.exercise import Say, find_exercise, source_of
from tinytransformer.course.sandbox import call, pack, run_apart

EXERCISES = all_exercises()
SEEDS = (0, 1, 2026)


def each(kind):
    """Parameters for every function of a kind that an exercise holds."""
    found = []
    for e in EXERCISES:
        functions = {
            "right": [e.reference, *e.variants],
            "wrong": [m.function for m in e.mistakes],
        }[kind]
        found += [pytest.param(e, function, id=f"{e.name}-{function.__name__}") for function in functions]
    return found


def marked(asked, function, seed=0, speak="en"):
    return mark(asked, lambda calls: [call(function, c, asked.drive) for c in calls], seed, speak)


@pytest.mark.parametrize(("asked", "function"), each("right"))
def test_right_answers_get_all_points(asked, function):
    for seed in SEEDS:
        result = marked(asked, function, seed)
        assert result.score == asked.points, result


@pytest.mark.parametrize(("asked", "function"), each("wrong"))
def test_mistakes_lose_points_and_are_named(asked, function):
    for seed in SEEDS:
        result = marked(asked, function, seed)
        assert result.score < asked.points, "it has all points"
        assert result.misconception == function.__name__, result
    mistake = next(m for m in asked.mistakes if m.function is function)
    assert result.message.startswith(mistake.says.en)
    assert marked(asked, function, speak="zh").message.startswith(mistake.says.zh)


@pytest.mark.parametrize("asked", EXERCISES, ids=lambda e: e.name)
def test_an_answer_of_no_value_gets_no_point(asked):
    parameters = inspect.signature(asked.reference).parameters

    def not_written(*_, **__):
        raise NotImplementedError

    def first_argument(*arguments, **_):
        return arguments[0] if arguments else None

    def zeros_of_the_right_shape(*arguments, **options):
        right = asked.reference(*arguments, **options)
        return np.zeros(np.shape(right)) if isinstance(right, (np.ndarray, float)) else None

    assert parameters
    for worthless in (not_written, first_argument, zeros_of_the_right_shape):
        for seed in SEEDS:
            result = marked(asked, worthless, seed)
            assert result.score <= (0 if worthless is not_written else asked.points / 3), (worthless, result)


@pytest.mark.parametrize("asked", EXERCISES, ids=lambda e: e.name)
def test_an_exercise_is_whole(asked):
    assert len(asked.variants) >= 3
    assert len(asked.mistakes) >= 3
    assert 4 <= asked.points <= 6
    assert asked.name == asked.reference.__name__
    assert len({m.name for m in asked.mistakes}) == len(asked.mistakes)
    sentences = [
        asked.title,
        asked.task,
        *(m.says for m in asked.mistakes),
        *(p.says for p in asked.properties),
    ]
    assert all(isinstance(said, Say) and said.en.strip() and said.zh.strip() for said in sentences)
    for said in sentences:
        assert any("\u4e00" <= c <= "\u9fff" for c in said.zh), f"no Chinese in {said.zh!r}"
        assert not any("\u4e00" <= c <= "\u9fff" for c in said.en), f"Chinese in {said.en!r}"
    assert len({m.says.en for m in asked.mistakes}) == len({m.says.zh for m in asked.mistakes})
    assert len({m.says.en for m in asked.mistakes}) == len(asked.mistakes), "two mistakes with one message"
    earlier = [find_exercise(name).lesson for name in asked.uses]
    assert all(lesson <= asked.lesson for lesson in earlier)


@pytest.mark.parametrize("asked", EXERCISES, ids=lambda e: e.name)
def test_arguments_differ_from_student_to_student_and_cross(asked):
    one, other = ([c for p in asked.properties for c in p.calls(np.random.default_rng(s))] for s in (0, 1))
    assert [pack(list(c)) for c in one] != [pack(list(c)) for c in other]


@pytest.mark.parametrize("asked", EXERCISES, ids=lambda e: e.name)
def test_the_reference_runs_on_its_own(asked):
    calls = [c for p in asked.properties for c in p.calls(np.random.default_rng(3))]
    source = "\n\n".join([*references(asked.uses), asked.solution("zh")])
    drive = asked.drive and source_of(asked.drive)
    result = mark(asked, lambda given: run_apart(source, asked.name, given, drive), 3)
    assert result.score == asked.points, result
    assert calls


@pytest.mark.parametrize("asked", EXERCISES, ids=lambda e: e.name)
def test_the_stub_is_the_solution_without_its_body(asked):
    for speak in ("en", "zh"):
        stub, solution = ast.parse(asked.stub(speak)).body[0], ast.parse(asked.solution(speak)).body[0]
        assert ast.unparse(stub.args) == ast.unparse(solution.args)
        assert ast.get_docstring(stub) == ast.get_docstring(solution) == inspect.cleandoc(asked.task(speak))
        own = {line.strip() for line in source_of(asked.reference).splitlines()[1:] if len(line.strip()) > 12}
        assert not own & {line.strip() for line in asked.stub(speak).splitlines()}
