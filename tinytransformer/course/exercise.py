"""What an exercise is: a reference, properties worth points, right answers in other words, and mistakes."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy

__all__ = ["Exercise", "Mistake", "Property", "Say", "all_exercises", "find_exercise"]


class Say(NamedTuple):
    """A sentence in both languages of the course.

    Examples
    --------
    >>> Say("look at the axis", "看看轴")("zh")
    '看看轴'
    """

    en: str
    zh: str

    def __call__(self, language: str) -> str:
        """Return the sentence in a language, "en" or "zh"."""
        if language not in ("en", "zh"):
            raise ValueError(f"the course speaks en and zh, not {language!r}")
        return getattr(self, language)


Judge = Callable[[tuple[Any, ...], Any, Any], Say | None]


@dataclasses.dataclass(frozen=True)
class Property:
    """One thing that is true of a right answer, worth points of its own.

    Attributes
    ----------
    says : Say
        What is true, such as "normalises over any axis".
    points : int
        For an answer of which it is true.
    calls : function of a Generator
        Draws the calls by which it is seen: a list of tuples of arguments.
    judge : function, optional
        For what has more than one right value: given arguments, a value and that of another answer, it
        returns None if both may come from answers that do the same, or a `Say` of how the first differs. It
        is asked about the reference and about mistakes. Without it the two values must be equal.
    """

    says: Say
    points: int
    calls: Callable[[numpy.random.Generator], list[tuple[Any, ...]]]
    judge: Judge | None = None


class Mistake(NamedTuple):
    """A wrong answer that students give, under a name, and what to tell who gives it."""

    name: str
    function: Callable
    says: Say


class Exercise:
    """A function that students write in plain NumPy, and what is known about right and wrong ones.

    A file in ``exercises/`` makes one and adds to it with decorators. The answer and the driver may use NumPy
    as ``np`` and the exercises named in ``uses``, and nothing else of their file: their source goes where
    answers run.

    Parameters
    ----------
    name : str
        Of the function; also the exercise's id, and the name of its file.
    lesson : int
        The lesson in which it stands.
    title : Say
    task : Say
        What to write: arguments with their shapes, and the value. It becomes the docstring of the student's
        function.
    uses : sequence of str
        Earlier exercises that an answer may call. It gets the references of these, so that a mistake made
        there costs nothing here.

    Attributes
    ----------
    reference : function
        The right answer.
    variants : list of function
        Right answers written otherwise.
    mistakes : list of Mistake
    properties : list of Property
    drive : function or None
        ``drive(answer, *arguments)`` in place of ``answer(*arguments)``: for an answer that is called many
        times, or is given a function.

    Examples
    --------
    >>> from tinytransformer.course import find_exercise
    >>> softmax = find_exercise("softmax")
    >>> softmax.signature
    'softmax(x, axis=-1)'
    >>> len(softmax.variants) >= 3
    True
    """

    reference: Callable

    def __init__(self, name: str, *, lesson: int, title: Say, task: Say, uses: Iterable[str] = ()):
        self.name, self.lesson, self.title, self.task, self.uses = name, lesson, title, task, tuple(uses)
        self.variants: list[Callable] = []
        self.mistakes: list[Mistake] = []
        self.properties: list[Property] = []
        self.drive: Callable | None = None

    def __repr__(self) -> str:
        return f"Exercise({self.name!r}, lesson={self.lesson}, points={self.points})"

    @property
    def points(self) -> int:
        """The points of all properties together."""
        return sum(shown.points for shown in self.properties)

    @property
    def signature(self) -> str:
        """The function as it is called."""
        return f"{self.name}{inspect.signature(self.reference)}"

    # --- how a file fills it ---

    def answer(self, function: Callable) -> Callable:
        """Take a function as the reference."""
        self.reference = function
        return function

    def variant(self, function: Callable) -> Callable:
        """Take a function as a right answer written otherwise."""
        self.variants.append(function)
        return function

    def driver(self, function: Callable) -> Callable:
        """Take a function named ``drive`` that calls the answer."""
        self.drive = function
        return function

    def mistake(self, en: str, zh: str) -> Callable[[Callable], Callable]:
        """Take a function as a mistake, under its name, with what to tell who makes it."""

        def take(function: Callable) -> Callable:
            self.mistakes.append(Mistake(function.__name__, function, Say(en, zh)))
            return function

        return take

    def shows(self, en: str, zh: str, points: int = 1, judge: Judge | None = None) -> Callable:
        """Take a function ``calls(rng)`` that draws the calls by which a property is seen."""

        def take(calls: Callable) -> Callable:
            self.properties.append(Property(Say(en, zh), points, calls, judge))
            return calls

        return take

    # --- as text ---

    def solution(self, language: str) -> str:
        """Return the source of the reference, with the task as its docstring."""
        head, body = self._parts(language)
        return head + body

    def stub(self, language: str) -> str:
        """Return what the student starts from: the same without its body."""
        return self._parts(language)[0] + "    raise NotImplementedError\n"

    def _parts(self, language: str) -> tuple[str, str]:
        source = source_of(self.reference)
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.FunctionDef)
        lines = source.splitlines(keepends=True)
        first = definition.body[0].lineno - 1
        task = textwrap.indent(inspect.cleandoc(self.task(language)), "    ")
        return f'{"".join(lines[:first])}    """{task.strip()}\n    """\n', "".join(lines[first:])


def source_of(function: Callable) -> str:
    """Return the source of a function without its decorators."""
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    return "".join(source.splitlines(keepends=True)[definition.lineno - 1 :])


@cache
def _all() -> dict[str, Exercise]:
    from . import exercises as folder

    names = [module.name for module in pkgutil.iter_modules(folder.__path__)]
    found = [importlib.import_module(f"{folder.__name__}.{name}").exercise for name in names]
    return {e.name: e for e in sorted(found, key=lambda e: (e.lesson, e.name))}


def all_exercises() -> list[Exercise]:
    """Return all exercises, in the order of the lessons.

    Examples
    --------
    >>> [e.lesson for e in all_exercises()] == sorted(e.lesson for e in all_exercises())
    True
    """
    return list(_all().values())


def find_exercise(name: str) -> Exercise:
    """Return the exercise of this name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find_exercise("softmax").lesson
    2
    """
    if name not in _all():
        from difflib import get_close_matches

        near = get_close_matches(name, _all(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ": see `tinytransformer course exercises`"
        raise ValueError(f"there is no exercise {name!r}{hint}")
    return _all()[name]
