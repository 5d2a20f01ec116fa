"""Check an answer: which properties it has, and which mistake it is if it lacks one."""

from __future__ import annotations

import dataclasses
import html
import types
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .exercise import Exercise, Mistake, Property, Say, find_exercise
from .sandbox import Failure, Outcome, Seed, call
from .speaking import language

__all__ = ["Result", "check", "difference", "mark"]

RTOL, ATOL = 1e-5, 1e-8  # a right answer may add up in another order; no mistake is as small


@dataclasses.dataclass(frozen=True)
class Result:
    """What an answer is worth, and what to tell who gave it.

    Attributes
    ----------
    exercise : str
    score, max : int
        Points had and to be had.
    misconception : str or None
        The name of the mistake it is known to be.
    message : str
        What is wrong, in the language asked for; of a right answer, that it is.
    properties : list of (str, int, int)
        What was looked at, points had, points to be had.
    is_answered : bool
        Whether there was a function to be run.
    """

    exercise: str
    score: int
    max: int
    misconception: str | None
    message: str
    properties: list[tuple[str, int, int]]
    is_answered: bool = True

    def __str__(self) -> str:
        rows = [
            f"  {'✓' if had == most else '✗'} {says} ({had}/{most})" for says, had, most in self.properties
        ]
        return "\n".join([f"{self.exercise}: {self.score}/{self.max}", *rows, self.message])

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Show it under the cell of a notebook; as plain text the score alone, which nbgrader reads."""
        return {"text/html": self._html(), "text/plain": str(self.score)}

    def _html(self) -> str:
        rows = "".join(
            f"<li>{'✓' if had == most else '✗'} {html.escape(says)} <small>({had}/{most})</small></li>"
            for says, had, most in self.properties
        )
        message = html.escape(self.message).replace("\n", "<br>")
        colour = "#2e7d32" if self.score == self.max else "#c62828"
        return (
            f'<div style="border-left: 4px solid {colour}; padding-left: 1em">'
            f"<b>{html.escape(self.exercise)}: {self.score}/{self.max}</b>"
            f'<ul style="list-style: none; padding-left: 0">{rows}</ul>{message}</div>'
        )


def check(function: Callable, seed: int = 0) -> Result:
    """Check an answer to the exercise of its name, at once, and say what is wrong.

    Parameters
    ----------
    function : function
        Yours, under the exercise's name.
    seed : int
        Draws the arguments; the grader uses others.

    Returns
    -------
    Result
        A notebook shows it under the cell.

    Raises
    ------
    ValueError
        If there is no exercise of that name.

    Examples
    --------
    >>> import numpy as np
    >>> def softmax(x, axis=-1):
    ...     e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    ...     return e / np.sum(e, axis=0)
    >>> result = check(softmax)
    >>> result.score < result.max, result.misconception
    (True, 'sums_down_the_columns')
    """
    if not isinstance(function, types.FunctionType):
        raise ValueError(f"check takes the function you wrote, as in check(softmax), not {function!r:.60}")
    asked = find_exercise(function.__name__)
    # where it calls earlier exercises it gets the references, as it does from the grader
    known = {name: find_exercise(name).reference for name in asked.uses}
    answer = types.FunctionType(
        function.__code__,
        {**function.__globals__, **known},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    answer.__kwdefaults__ = function.__kwdefaults__
    return mark(asked, lambda calls: [call(answer, arguments, asked.drive) for arguments in calls], seed)


def mark(
    asked: Exercise,
    run: Callable[[list[tuple[Any, ...]]], list[Outcome]],
    seed: int = 0,
    speak: str | None = None,
) -> Result:
    """Mark an answer that can be run, wherever it runs.

    Parameters
    ----------
    asked : Exercise
    run : function
        From the arguments of all calls to their outcomes.
    seed : int
        Draws the arguments.
    speak : {"en", "zh"}, optional
        By default the language of the course, see `language`.

    Returns
    -------
    Result

    Examples
    --------
    >>> from tinytransformer.course import find_exercise
    >>> asked = find_exercise("softmax")
    >>> mark(asked, lambda calls: [asked.reference(*arguments) for arguments in calls]).score == asked.points
    True
    """
    speak = speak or language()
    rng = numpy.random.default_rng([seed, zlib.crc32(asked.name.encode())])
    calls = [(shown, arguments) for shown in asked.properties for arguments in shown.calls(rng)]

    def outcomes_of(function: Callable) -> list[Outcome]:
        return [call(function, arguments, asked.drive) for _, arguments in calls]

    expected = outcomes_of(asked.reference)
    outcomes = run([arguments for _, arguments in calls])
    wrong = _wrong(calls, outcomes, expected)
    lacking = {id(shown) for (shown, _), told in zip(calls, wrong, strict=True) if told is not None}
    properties = [
        (shown.says(speak), 0 if id(shown) in lacking else shown.points, shown.points)
        for shown in asked.properties
    ]
    score = sum(had for _, had, _ in properties)
    if not lacking:
        right = Say("All of it is right.", "全部正确。")
        return Result(asked.name, score, asked.points, None, right(speak), properties)

    mistake: Mistake | None = None
    for known in asked.mistakes:
        theirs = outcomes_of(known.function)
        shows = any(told is not None for told in _wrong(calls, theirs, expected))  # with these arguments
        if shows and _alike(calls, outcomes, theirs):
            mistake = known
            break
    first, told = next((i, told) for i, told in enumerate(wrong) if told is not None)
    shown, arguments = calls[first]
    lacks = Say(f"Not yet: {shown.says.en}.", f"尚未满足：{shown.says.zh}。")
    # a driver's arguments are not those of the student's function
    written = _written(asked.name, arguments)
    where = Say("", "") if asked.drive else Say(f", in {written}", f"，在 {written}")
    told_first = Say(f"First difference{where.en}: {told.en}", f"第一处不同{where.zh}：{told.zh}")
    message = f"{(mistake.says if mistake else lacks)(speak)}\n{told_first(speak)}"
    return Result(asked.name, score, asked.points, mistake and mistake.name, message, properties)


Calls = Sequence[tuple[Property, tuple[Any, ...]]]


def _wrong(calls: Calls, outcomes: Sequence[Outcome], expected: Sequence[Outcome]) -> list[Say | None]:
    """Tell for each call how its outcome differs from what is expected, or None."""
    told: list[Say | None] = []
    for (shown, arguments), outcome, right in zip(calls, outcomes, expected, strict=True):
        if shown.judge is None or type(outcome) is Failure or type(right) is Failure:
            told.append(difference(outcome, right))
            continue
        try:
            with numpy.errstate(all="ignore"):
                told.append(shown.judge(arguments, outcome, right))
        except Exception:  # a judge expects a value of the right kind, and this may be of any
            told.append(_other(outcome, right))
    return told


def _alike(calls: Calls, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> bool:
    """Tell whether two answers do the same in every call, be it that they fail."""
    failed = [
        (a.kind if type(a) is Failure else None, b.kind if type(b) is Failure else None)
        for a, b in zip(ours, theirs, strict=True)
    ]
    if any(a != b for a, b in failed):
        return False
    both = [i for i, (kind, _) in enumerate(failed) if kind is None]
    told = _wrong([calls[i] for i in both], [ours[i] for i in both], [theirs[i] for i in both])
    return all(t is None for t in told)


def difference(got: Outcome, expected: Any) -> Say | None:
    """Say how a value differs from what is expected, or None if it does not.

    Lists, tuples and arrays of the same numbers are the same, and so are True and 1. Numbers may differ by
    1e-5 of their size.

    Parameters
    ----------
    got : value or Failure
    expected : value

    Returns
    -------
    Say or None

    Examples
    --------
    >>> difference([1.0, 2.5], numpy.array([1.0, 2.0])).en
    'at [1] expected 2.0, got 2.5'
    >>> difference((1, 0), numpy.array([True, False])) is None
    True
    """
    if type(got) is Failure:
        if got.kind == "ValueError" and "read-only" in got.text:
            return Say("your function writes into its argument", "你的函数改写了传入的参数")
        if got.kind == "Timeout":
            return Say(f"{got.text}; is there a loop that never ends?", "超时：是否有不会结束的循环？")
        if got.kind == "NotImplementedError":
            return Say("the function is not written yet", "函数还没有写")
        if got.kind == "Died":
            return Say(
                f"{got.text}: it left Python, or took more memory than there is",
                "进程没有给出答案就结束了：它退出了 Python，或者用掉了过多的内存",
            )
        if got.kind == "TooDeep":
            return Say("it calls itself without end", "它无休止地调用自己")
        return Say(f"it raised {got.kind}: {got.text}", f"抛出了 {got.kind}：{got.text}")
    if type(expected) is Failure:  # the right answer refuses these arguments
        return Say(
            f"expected {expected.kind}, got {_brief(got)}", f"应当抛出 {expected.kind}，得到 {_brief(got)}"
        )
    if isinstance(expected, dict):
        if not isinstance(got, dict) or got.keys() != expected.keys():
            return _other(got, expected)
        return _first_of((f"[{key!r}]", got[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)) and not _is_numbers(expected):
        is_listed = isinstance(got, (list, tuple)) or (isinstance(got, numpy.ndarray) and got.ndim > 0)
        items = list(got) if is_listed else None
        if items is None or len(items) != len(expected):
            return _other(got, expected)
        return _first_of(
            (f"[{i}]", item, right) for i, (item, right) in enumerate(zip(items, expected, strict=True))
        )
    if isinstance(expected, (str, bytes)) or expected is None:
        return None if type(got) is type(expected) and got == expected else _other(got, expected)
    return _numbers_differ(got, numpy.asarray(expected))


def _numbers_differ(got: Any, right: numpy.ndarray) -> Say | None:
    try:
        value = numpy.asarray(got)
    except ValueError:  # lists of unequal lengths
        return _other(got, right)
    if value.dtype.kind not in "biufc":
        return _other(got, right)
    if value.shape != right.shape:
        return Say(
            f"expected shape {right.shape}, got {value.shape}", f"形状应为 {right.shape}，得到 {value.shape}"
        )
    same = numpy.isclose(value, right, RTOL, ATOL, equal_nan=True)
    if same.all():
        return None
    place = tuple(int(i) for i in numpy.argwhere(~same)[0])
    at = f"[{', '.join(map(str, place))}]" if place else ""
    expected_text, got_text = _brief(right[place]), _brief(value[place])
    return Say(
        f"{f'at {at} ' if at else ''}expected {expected_text}, got {got_text}"
        + (f", shapes {right.shape}" if value.ndim > 1 else ""),
        f"{f'在 {at} 处' if at else ''}应为 {expected_text}，得到 {got_text}"
        + (f"，形状 {right.shape}" if value.ndim > 1 else ""),
    )


def _is_numbers(value: Any) -> bool:
    try:
        return numpy.asarray(value).dtype.kind in "biufc"
    except ValueError:
        return False


def _first_of(items: Any) -> Say | None:
    for place, got, right in items:
        if told := difference(got, right):
            return Say(f"in {place}: {told.en}", f"在 {place} 中：{told.zh}")
    return None


def _other(got: Any, expected: Any) -> Say:
    return Say(
        f"expected {_brief(expected)}, got {_brief(got)}", f"应为 {_brief(expected)}，得到 {_brief(got)}"
    )


def _brief(value: Any) -> str:
    """Write a value in a few words."""
    if isinstance(value, Seed):
        return "rng"
    if isinstance(value, numpy.ndarray) and value.size > 6:
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.6g}" if value != round(value, 6) else str(value)
    if isinstance(value, list):
        text = "[" + ", ".join(map(_brief, value)) + "]"
    elif isinstance(value, tuple):
        text = "(" + ", ".join(map(_brief, value)) + ("," if len(value) == 1 else "") + ")"
    else:
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _written(name: str, arguments: tuple[Any, ...]) -> str:
    return f"{name}({', '.join(map(_brief, arguments))})"
