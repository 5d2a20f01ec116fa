"""Build notebooks for students and instructors from the lessons, in either language.

A lesson is one text file in jupytext's percent format. Cells of prose come in pairs, ``lang="en"`` and
``lang="zh"``; a cell with ``exercise="softmax"`` stands for the exercise: its title, the function to be
written, and the check under it. In a cell with ``guess="3"`` students find ``...`` where the guess goes. All
else is the same in every copy.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from pathlib import Path
from typing import Any

from .exercise import Exercise, Say, find_exercise

__all__ = ["Lesson", "LessonError", "build", "execute", "lessons"]

IMPORTS = "from tinytransformer.course import check, label, language, reveal, say"
CODE_LINK = re.compile(r"\[(\w+)\]\((tinytransformer(?:\.\w+)+)\)")  # [attention](tinytransformer.formulas.…)
# Chinese has no space where a line of the source ends; the line of a heading does end there
BROKEN_LINE = re.compile(r"^(?!#)(.*[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])", re.M)


class LessonError(ValueError):
    """A lesson's source that does not hold what a lesson must."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A lesson, read from its source.

    Attributes
    ----------
    path : pathlib.Path
        Of the source; its name begins with the lesson's number.
    title : Say
    section : str
        Of the document, such as "4.1"; may be empty.
    minutes : int
        That a student needs.
    cells : list of dict
        With ``kind`` ("prose", "code" or "exercise"), and ``text`` (a `Say` for prose), ``metadata``.
    """

    path: Path
    title: Say
    section: str
    minutes: int
    cells: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def number(self) -> int:
        """0 to 12."""
        return int(self.name[:2])

    @property
    def exercises(self) -> list[Exercise]:
        """The exercises of the lesson, in their order."""
        return [find_exercise(cell["exercise"]) for cell in self.cells if cell["kind"] == "exercise"]

    def notebook(self, language: str, solution: bool = False) -> Any:
        """Build the notebook of a language, for students or with the solutions.

        Returns
        -------
        nbformat.NotebookNode
            The same each time.
        """
        from nbformat import v4

        notebook = v4.new_notebook(
            metadata={
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            }
        )
        cells = notebook.cells
        head = Say(
            f"# {self.number} · {self.title.en}\n\n{self._place('en')}About {self.minutes} minutes.",
            f"# {self.number} · {self.title.zh}\n\n{self._place('zh')}大约 {self.minutes} 分钟。",
        )
        cells.append(v4.new_markdown_cell(head(language)))
        cells.append(v4.new_code_cell(f'{IMPORTS}\n\nlanguage("{language}");'))
        for cell in self.cells:
            if cell["kind"] == "prose":
                # a notebook has no page to link to: it shows the name that can be imported
                text = CODE_LINK.sub(r"`\2`", cell["text"](language))
                cells.append(v4.new_markdown_cell(BROKEN_LINE.sub(r"\1", text)))
            elif cell["kind"] == "code":
                text = cell["text"]
                if solution and "guess" in cell["metadata"]:
                    text = text.replace("...", cell["metadata"]["guess"], 1)
                cells.append(v4.new_code_cell(text))
            else:
                cells.extend(_exercise_cells(find_exercise(cell["exercise"]), language, solution))
        for place, built in enumerate(cells):
            built.id = f"{self.name[:2]}-{place:03d}"
        return notebook

    def _place(self, language: str) -> str:
        if not self.section:
            return ""
        return Say(f"Section {self.section} of the document. ", f"文档第 {self.section} 节。")(language)


def _exercise_cells(asked: Exercise, language: str, solution: bool) -> list[Any]:
    from nbformat import v4

    title = Say(
        f"### Exercise: {asked.title.en}\n\n{asked.points} points. Write the function, then run the check.",
        f"### 练习：{asked.title.zh}\n\n{asked.points} 分。写出函数，然后运行检查。",
    )
    written = asked.solution(language) if solution else asked.stub(language)
    common = {"schema_version": 3, "task": False}
    write = {"grade": False, "grade_id": asked.name, "locked": False, "solution": True, **common}
    points = {"grade": True, "grade_id": f"check-{asked.name}", "locked": True, "solution": False, **common}
    return [
        v4.new_markdown_cell(title(language)),
        v4.new_code_cell("import numpy as np\n\n\n" + written.rstrip(), metadata={"nbgrader": write}),
        v4.new_code_cell(f"check({asked.name})", metadata={"nbgrader": {**points, "points": asked.points}}),
    ]


def resolve(name: str) -> Any:
    """Return what a link to code leads to.

    Parameters
    ----------
    name : str
        Module and name, such as "tinytransformer.formulas.attention.attention".

    Raises
    ------
    LessonError
        If there is none.

    Examples
    --------
    >>> resolve("tinytransformer.models.NGram").__name__
    'NGram'
    """
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError):
        raise LessonError(f"a link leads to {name}, which is not there: has it moved?") from None


def lessons_folder() -> Path:
    """Return where the sources of the lessons lie: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "lessons"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "notebooks"


def lessons() -> list[Lesson]:
    """Read all lessons, in their order.

    Raises
    ------
    LessonError
        If one lacks a title, or a cell of prose in one of the languages.

    Examples
    --------
    >>> [lesson.title.en for lesson in lessons() if lesson.number == 3]
    ['Attention']
    """
    return [read_lesson(path) for path in sorted(lessons_folder().glob("[0-9][0-9]_*.py"))]


def read_lesson(path: str | os.PathLike[str]) -> Lesson:
    """Read a lesson from its source.

    Parameters
    ----------
    path : path

    Raises
    ------
    LessonError
        If it lacks a title, or a cell of prose in one of the languages, or names an exercise there is not.
    """
    import jupytext

    path = Path(path)
    source = jupytext.read(path, fmt="py:percent")
    about = source.metadata.get("lesson", {})
    if not {"en", "zh", "minutes"} <= about.keys():
        raise LessonError(
            f"{path.name}: the head must hold lesson: en (a title), zh, minutes, and may hold section"
        )
    cells: list[dict[str, Any]] = []
    waiting: str | None = None  # English prose whose Chinese has not come yet
    for number, cell in enumerate(source.cells, 1):
        where = f"{path.name}, cell {number} ({cell.source.strip()[:40]!r})"
        if cell.cell_type == "markdown":
            spoken = cell.metadata.get("lang")
            if spoken != ("en" if waiting is None else "zh"):
                wanted = 'lang="en", then lang="zh"'
                raise LessonError(f"{where}: prose comes in pairs, {wanted}; this cell has lang={spoken!r}")
            if waiting is None:
                waiting = cell.source
            else:
                cells.append({"kind": "prose", "text": Say(waiting, cell.source), "metadata": {}})
                waiting = None
            continue
        if waiting is not None:
            raise LessonError(f'{where}: the prose before it lacks its lang="zh"')
        if name := cell.metadata.get("exercise"):
            find_exercise(name)
            cells.append({"kind": "exercise", "exercise": name, "text": cell.source, "metadata": {}})
        else:
            cells.append({"kind": "code", "text": cell.source, "metadata": dict(cell.metadata)})
    if waiting is not None:
        raise LessonError(f'{path.name}: the last prose lacks its lang="zh"')
    return Lesson(
        path, Say(about["en"], about["zh"]), str(about.get("section", "")), int(about["minutes"]), cells
    )


def build(
    folder: str | os.PathLike[str],
    language: str = "en",
    solution: bool = False,
    *,
    keep: bool = True,
    run: bool = False,
    progress: bool = True,
) -> list[tuple[Path, str]]:
    """Write the notebooks of all lessons.

    Parameters
    ----------
    folder : path
        Made if missing.
    language : {"en", "zh"}
    solution : bool
        With the answers in place of the empty functions.
    keep : bool
        Leave files that are there and differ as they are: a student may have worked on them. Otherwise they
        are replaced.
    run : bool
        Run each, and write it with its outputs.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of (pathlib.Path, str)
        Each file, and whether it is ``"new"``, ``"same"``, ``"kept"`` or ``"replaced"``.

    Raises
    ------
    OSError
        If it cannot be written.
    nbclient.exceptions.CellExecutionError
        If a cell raises.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     {state for path, state in build(folder, "zh")}
    {'new'}
    """
    import nbformat
    from tqdm import tqdm

    Path(folder).mkdir(parents=True, exist_ok=True)
    done = []
    for lesson in tqdm(lessons(), unit="lesson", disable=not (progress and run)):
        path = Path(folder, f"{lesson.name}.ipynb")
        notebook = lesson.notebook(language, solution)
        if path.exists() and keep and not (_same_cells(path, notebook) and run):
            done.append((path, "same" if _same_cells(path, notebook) else "kept"))
            continue
        if run:
            execute(notebook, folder)
        text = nbformat.writes(notebook) + "\n"
        state = "replaced" if path.exists() else "new"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            state = "same"
        else:
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        done.append((path, state))
    return done


def _same_cells(path: Path, notebook: Any) -> bool:
    """Tell whether a file holds this notebook, whatever outputs it has."""
    import nbformat

    try:
        there = nbformat.read(path, as_version=4)
    except Exception:  # no notebook any more: it is not ours to replace
        return False
    return [c.source for c in there.cells] == [c.source for c in notebook.cells]


def execute(notebook: Any, folder: str | os.PathLike[str], seconds: float = 600) -> Any:
    """Run all cells of a notebook, in a folder, and return it with its outputs.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        As `Lesson.notebook` builds it; it is changed.
    folder : path
        Where it runs.
    seconds : float
        Most time for a cell.

    Returns
    -------
    nbformat.NotebookNode

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises.

    Examples
    --------
    >>> from nbformat import v4
    >>> notebook = v4.new_notebook(cells=[v4.new_code_cell("1 + 1")])
    >>> execute(notebook, ".").cells[0].outputs[0].data["text/plain"]
    '2'
    """
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}})
    return client.execute()
