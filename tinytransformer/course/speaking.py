"""What the notebooks say, in the language of the course."""

from __future__ import annotations

import os
from typing import Any

import numpy

from ..plotting.style import label, language

__all__ = ["label", "language", "reveal", "say"]

if os.environ.get("LANG", "").startswith("zh"):
    language("zh")


def say(en: str, zh: str) -> str:
    """Return a text in the language of the course, for what a cell prints.

    Parameters
    ----------
    en, zh : str
        The text in English and in Chinese.

    Returns
    -------
    str

    Examples
    --------
    >>> before = language()
    >>> _ = language("zh")
    >>> say("loss", "损失")
    '损失'
    >>> _ = language(before)
    """
    return en if language() == "en" else zh


def reveal(guess: Any, actual: Any, tolerance: float = 0.0) -> Any:
    """Show what is the case, once there is a guess to compare it with.

    Parameters
    ----------
    guess : number, string, bool, array, or ``...``
        What the student expects; ``...`` is no guess yet, and nothing is shown.
    actual : the same, or a picture
        What is the case. A picture is returned, for the notebook to show.
    tolerance : float
        How far from the truth a number still is right.

    Returns
    -------
    A picture, or None

    Examples
    --------
    >>> before = language("en")
    >>> reveal(..., 0.5)
    First write your guess in place of the dots in the cell above, and run both cells.
    >>> reveal(0.4, 0.5, tolerance=0.2)
    You guessed 0.4; it is 0.5. Well guessed.
    >>> reveal("rows", "columns")
    You guessed rows; it is columns.
    """
    if guess is ...:
        print(
            say(
                "First write your guess in place of the dots in the cell above, and run both cells.",
                "请先在上面的单元格中用你的猜测代替省略号，再运行这两个单元格。",
            )
        )
        return None
    if hasattr(actual, "savefig"):
        return actual
    given, truth = _short(guess), _short(actual)
    right = say(" Well guessed.", "猜对了。") if _agree(guess, actual, tolerance) else ""
    print(say(f"You guessed {given}; it is {truth}.", f"你猜 {given}；答案是 {truth}。") + right)
    return None


def _agree(guess: Any, actual: Any, tolerance: float) -> bool:
    try:
        return bool(numpy.allclose(guess, actual, rtol=0, atol=tolerance))
    except (TypeError, ValueError):  # words, or shapes that do not fit
        return str(guess).strip().casefold() == str(actual).strip().casefold()


def _short(value: Any) -> str:
    if isinstance(value, (float, numpy.floating)):
        return f"{value:.4g}"
    return str(value)
