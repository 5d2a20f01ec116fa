"""Grade what students hand in: each exercise in a process of its own, scored by the parent."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .answers import Submission, SubmissionError, read_submission
from .checking import Result, mark
from .exercise import Exercise, Say, all_exercises, source_of
from .sandbox import MEMORY, PARSING, SECONDS, Failure, run_apart

__all__ = ["Grade", "grade", "summary", "write_csv", "write_gradescope", "write_json"]


@dataclasses.dataclass(frozen=True)
class Grade:
    """The results of one submission.

    Attributes
    ----------
    name : str
    results : list of Result
        One for each exercise, in the order of the lessons.
    notes : list of str
        What could not be read.
    """

    name: str
    results: list[Result]
    notes: list[str]

    @property
    def score(self) -> int:
        """Points had."""
        return sum(result.score for result in self.results)

    @property
    def max(self) -> int:
        """Points to be had."""
        return sum(result.max for result in self.results)


def grade(
    paths: Sequence[str | os.PathLike[str]],
    *,
    asked: Sequence[Exercise] | None = None,
    speak: str = "en",
    salt: str = "",
    seconds: float = SECONDS,
    memory: int = MEMORY,
    workers: int | None = None,
    progress: bool = True,
) -> list[Grade]:
    """Grade submissions.

    Parameters
    ----------
    paths : sequence of path
        Notebooks, Python files, or folders: a folder is one submission.
    asked : sequence of Exercise, optional
        By default all.
    speak : {"en", "zh"}
        Language of the messages.
    salt : str
        Together with a submission's name it draws the arguments; keep it to yourself, and no one can know
        them beforehand.
    seconds : float
        For all calls of an exercise.
    memory : int
        Bytes an exercise may take.
    workers : int, optional
        Processes at once; by default one for each core.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Grade
        In the order of the paths.

    Raises
    ------
    ValueError
        If there are two submissions of one name.

    Examples
    --------
    >>> import tempfile
    >>> from tinytransformer.course import find_exercise
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "ada.py")
    ...     _ = path.write_text("def softmax(x, axis=-1): return x")
    ...     (graded,) = grade([path], asked=[find_exercise("softmax")], progress=False)
    >>> graded.name, graded.score
    ('ada', 0)
    """
    from tqdm import tqdm

    chosen = list(asked or all_exercises())
    twice = [name for name, times in Counter(map(_name, paths)).items() if times > 1]
    if twice:
        raise ValueError(
            f"two submissions are named {twice[0]!r}: rename one, so that each has its own score"
        )
    drives = [None if exercise.drive is None else source_of(exercise.drive) for exercise in chosen]
    rows = []
    with (
        ThreadPoolExecutor(workers or len(_cores())) as pool,
        tqdm(total=len(paths) * len(chosen), unit="exercise", disable=not progress) as bar,
    ):

        def graded(name: str, answer: _Answer) -> Result:
            try:
                return _graded(name, answer, speak, salt, seconds, memory)
            finally:
                bar.update(1)

        for path in paths:
            with PARSING:
                submission = _read(path)
                notes = list(submission.broken)
                answers = [
                    _Answer(exercise, _source(submission, exercise, notes), drive, notes)
                    for exercise, drive in zip(chosen, drives, strict=True)
                ]
            rows.append((_name(path), [pool.submit(graded, _name(path), a) for a in answers], notes))
        return [Grade(name, [future.result() for future in futures], notes) for name, futures, notes in rows]


def _cores() -> Any:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _name(path: str | os.PathLike[str]) -> str:
    path = Path(path).resolve()  # "." has a name too
    return path.name if path.is_dir() else path.stem


def _read(path: str | os.PathLike[str]) -> Submission:
    """Read a submission; one that cannot be read is graded all the same, with 0 and the reason."""
    try:
        return read_submission(Path(path))
    except SubmissionError as error:
        return Submission(_name(path), [], [str(error)])


def _source(submission: Submission, asked: Exercise, notes: list[str]) -> str | None:
    try:
        return submission.source_for(asked)
    except (RecursionError, ValueError) as error:  # nested without measure
        notes.append(f"{asked.name} cannot be read: {error}")
        return None


class _Answer(NamedTuple):
    """An answer as text, and what may be told where there is none."""

    asked: Exercise
    source: str | None
    drive: str | None
    notes: list[str]


def _graded(name: str, answer: _Answer, speak: str, salt: str, seconds: float, memory: int) -> Result:
    asked, source = answer.asked, answer.source
    if source is None:
        none = Say("not answered yet", "尚未作答")(speak)
        lost = [(shown.says(speak), 0, shown.points) for shown in asked.properties]
        message = "; ".join([none, *answer.notes])
        return Result(asked.name, 0, asked.points, None, message, lost, False)

    def run(calls: list[tuple[Any, ...]]) -> list[Any]:
        try:
            return run_apart(source, asked.name, calls, answer.drive, seconds, memory)
        except (OSError, ValueError) as error:  # the system gave no process, or the source cannot cross
            return [Failure(type(error).__name__, " ".join(str(error).split()))] * len(calls)

    return mark(asked, run, zlib.crc32(f"{salt}/{name}".encode()), speak)


# --- what comes out ---


def as_dict(grades: Sequence[Grade]) -> dict[str, Any]:
    """Return grades as plain data, as `write_json` writes them."""
    return {
        "submissions": [
            {
                "name": g.name,
                "score": g.score,
                "max": g.max,
                "exercises": {
                    r.exercise: {
                        "score": r.score,
                        "max": r.max,
                        "misconception": r.misconception,
                        "message": r.message,
                    }
                    for r in g.results
                },
                **({"notes": g.notes} if g.notes else {}),
            }
            for g in grades
        ]
    }


def write_json(grades: Sequence[Grade], path: str | os.PathLike[str]) -> None:
    """Write all of it as JSON."""
    Path(path).write_text(json.dumps(as_dict(grades), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_csv(grades: Sequence[Grade], path: str | os.PathLike[str]) -> None:
    """Write a table: a row for each submission, a column for each exercise."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:  # a spreadsheet needs the mark
        table = csv.writer(file)
        names = [result.exercise for result in grades[0].results] if grades else []
        table.writerow(["name", "score", "max", *names])
        for g in grades:
            table.writerow([_harmless(g.name), g.score, g.max, *(result.score for result in g.results)])


def _harmless(name: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def write_gradescope(grades: Sequence[Grade], folder: str | os.PathLike[str]) -> None:
    """Write ``results.json`` as Gradescope reads it; for more than one submission in a folder each."""
    for g in grades:
        place = Path(folder) if len(grades) == 1 else Path(folder, g.name)
        place.mkdir(parents=True, exist_ok=True)
        results = {
            "score": g.score,
            "output": "\n".join(g.notes),
            "tests": [
                {"name": r.exercise, "score": r.score, "max_score": r.max, "output": str(r)}
                for r in g.results
            ],
        }
        text = json.dumps(results, ensure_ascii=False, indent=1) + "\n"
        (place / "results.json").write_text(text, encoding="utf-8")


def summary(grades: Sequence[Grade]) -> list[tuple[str, float, list[tuple[str, int]]]]:
    """Tell for each exercise the mean part of its points, and how many fell into which mistake.

    Parameters
    ----------
    grades : sequence of Grade

    Returns
    -------
    list of (str, float, list of (str, int))
        Exercise, mean of score / max, mistakes with their numbers, the most frequent first. What is wrong in
        a way of its own counts as ``"other"``, what is not answered as ``"unanswered"``.

    Examples
    --------
    >>> results = [Result("softmax", 0, 4, "no_maximum_subtracted", "…", [])]
    >>> summary([Grade("ada", results, []), Grade("bo", results, [])])
    [('softmax', 0.0, [('no_maximum_subtracted', 2)])]
    """
    rows = []
    for results in zip(*(g.results for g in grades), strict=True):
        mistakes = Counter(
            r.misconception or ("other" if r.is_answered else "unanswered")
            for r in results
            if r.score < r.max
        )
        mean = sum(r.score / r.max for r in results) / len(results)
        rows.append((results[0].exercise, mean, mistakes.most_common()))
    return rows
