"""Find answers in what a student hands in: by the function's name, in a notebook or a Python file."""

from __future__ import annotations

import ast
import builtins
import json
import symtable
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .exercise import Exercise, all_exercises, find_exercise, source_of

__all__ = ["Submission", "SubmissionError", "read_submission", "references"]


class SubmissionError(ValueError):
    """A file that is no notebook and no Python file."""


class Submission(NamedTuple):
    """What a student handed in.

    Attributes
    ----------
    name : str
        Of the file or folder.
    definitions : list of (set of str, ast.stmt)
        The statements at the top level of all cells that bind names, in their order, with these names.
    broken : list of str
        What the instructor should know: cells that are no Python, and why; answers in two files.
    """

    name: str
    definitions: list[tuple[set[str], ast.stmt]]
    broken: list[str]

    def answers(self, asked: Exercise) -> list[ast.stmt]:
        """Return the definitions of an answer that have been worked on."""
        return [s for names, s in self.definitions if names == {asked.name} and not _is_stub(s)]

    def source_for(self, asked: Exercise) -> str | None:
        """Return what defines an answer: the function and what it needs of the rest; None without one.

        Of several definitions the last counts that has been worked on: a copied cell takes nothing away.
        Exercises named in ``uses`` come from the references.
        """
        answers = self.answers(asked)
        if not answers:
            return None
        answer = answers[-1]
        bound: dict[str, list[ast.stmt]] = {}
        for names, statement in self.definitions:
            for name in names - {asked.name, *asked.uses}:
                bound.setdefault(name, []).append(statement)
        wanted, needed, injected = [answer], {id(answer)}, set()
        while wanted:
            for name in _uses(wanted.pop()):
                if name in asked.uses:
                    injected.add(name)
                for statement in bound.get(name, ()):
                    if id(statement) not in needed:
                        needed.add(id(statement))
                        wanted.append(statement)
        own = [ast.unparse(s) for _, s in self.definitions if id(s) in needed and s is not answer]
        # what an answer needs may stand below it in a notebook; the answer itself comes last
        return "\n\n".join([*references(injected), *own, ast.unparse(answer)]) + "\n"


def references(names: Iterable[str]) -> list[str]:
    """Return the sources of references, with those that they use themselves."""
    wanted, found = sorted(names), {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            known = find_exercise(name)
            found[name] = f"{source_of(known.reference)}\n{name} = {known.reference.__name__}"
            wanted += known.uses
    return list(found.values())


def read_submission(path: Path) -> Submission:
    r"""Read a notebook, a Python file, or all of these in a folder.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    Submission

    Raises
    ------
    SubmissionError
        If it is none of these, or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "ada.py")
    ...     _ = path.write_text("def softmax(x, axis=-1): return TWO * x\nTWO = 2")
    ...     read_submission(path).source_for(find_exercise("softmax")).splitlines()[0]
    'TWO = 2'
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix in (".ipynb", ".py") and _is_visible(f, path))
        if not files:
            raise SubmissionError(f"{str(path)!r} holds no notebook (.ipynb) and no Python file (.py)")
        parts = [read_submission(file) for file in files]
        broken = [f"{part.name}: {b}" for part in parts for b in part.broken]
        for exercise in all_exercises():
            holding = [part.name for part in parts if part.answers(exercise)]
            if len(holding) > 1:
                broken.append(
                    f"{exercise.name} is answered in {' and in '.join(holding)}: the last counts; if these "
                    "are of several students, name their files, not the folder"
                )
                break
        return Submission(path.name, [d for part in parts for d in part.definitions], broken)
    if path.suffix not in (".ipynb", ".py"):
        raise SubmissionError(f"{str(path)!r} is no notebook (.ipynb) and no Python file (.py)")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SubmissionError(f"cannot read {str(path)!r}: {error}") from None
    cells = [text] if path.suffix == ".py" else _code_cells(path, text)
    statements: list[ast.stmt] = []
    broken = []
    for number, cell in enumerate(cells, 1):
        try:
            statements += _parsed(cell)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            place = f"code cell {number}" if path.suffix == ".ipynb" else "the file"
            broken.append(f"{place} is no Python: {' '.join(str(error).split())}")
    return Submission(path.stem, [(names, s) for s in statements if (names := _defines(s))], broken)


def _is_visible(file: Path, folder: Path) -> bool:
    return not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)


def _code_cells(path: Path, text: str) -> list[str]:
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return ["".join(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SubmissionError(f"{str(path)!r} is no notebook: it may be damaged") from None


def _parsed(cell: str) -> list[ast.stmt]:
    """Parse a cell without the lines that are for IPython."""
    lines = cell.splitlines()
    if lines and lines[0].startswith("%%"):
        return []
    return ast.parse("\n".join("" if line.lstrip()[:1] in ("%", "!", "?") else line for line in lines)).body


def _defines(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()  # loops, calls and the like belong to the lesson, not to an answer


def _uses(statement: ast.stmt) -> set[str]:
    """Return the names a statement takes from the level of the notebook, at any depth."""
    tables = [symtable.symtable(ast.unparse(statement), "<answer>", "exec")]
    names: set[str] = set()
    for table in tables:  # which grows
        tables += table.get_children()
        is_top = table.get_type() == "module"
        names |= {
            s.get_name() for s in table.get_symbols() if s.is_referenced() and (is_top or s.is_global())
        }
    if isinstance(statement, ast.AugAssign):
        names |= _defines(statement)
    return names - set(dir(builtins))


def _is_stub(statement: ast.stmt) -> bool:
    """Tell whether a function is as the student found it."""
    if not isinstance(statement, ast.FunctionDef):
        return False
    body = statement.body
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]  # its docstring
    return all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.Return) and (s.value is None or ast.unparse(s.value) == "None"))
        or (isinstance(s, ast.Raise) and "NotImplementedError" in ast.unparse(s))
        for s in body
    )
