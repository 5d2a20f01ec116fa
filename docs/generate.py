"""Write the pages of the site that come from the code: the lessons, the reference, the table of equations."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import inspect
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import tinytransformer as tt
from tinytransformer.autograd import FORMULAS
from tinytransformer.course import Say, notebooks

ROOT = Path(__file__).parents[1]

# page -> title, what it holds, and the modules whose public names it shows
REFERENCE = {
    "tensors": ("Tensors and gradients", ["tensor", "autograd", "gradcheck", "backend"]),
    "operations": (
        "Array operations",
        ["ops.elementwise", "ops.reductions", "ops.shapes", "ops.indexing", "ops.linalg"],
    ),
    "formulas": (
        "Formulas",
        [
            "formulas.attention",
            "formulas.masks",
            "formulas.activations",
            "formulas.normalization",
            "formulas.layers",
            "formulas.positions",
            "formulas.losses",
        ],
    ),
    "nn": ("Layers", ["nn", "nn.lora"]),
    "models": ("Models", ["models", "models.listings"]),
    "optim": ("Optimizers", ["optim"]),
    "text": ("Text", ["text"]),
    "training": ("Training", ["training"]),
    "generation": ("Generation", ["generation"]),
    "pretrained": ("Published weights", ["pretrained"]),
    "tasks": ("Tasks", ["tasks"]),
    "plotting": ("Pictures", ["plotting"]),
    "course": ("Course", ["course", "course.notebooks", "course.grader"]),
    "kernels": ("Kernels", ["kernels"]),
}


def write(folder: Path, run: list[str]) -> None:
    """Write all pages below a folder, and run the lessons in these languages."""
    names = write_reference(folder / "reference")
    write_equations(folder / "reference/equations.md", names)
    write_lessons(folder / "lessons", folder / "_build/lessons", names, run)


def put(path: Path, text: str) -> None:
    """Write a file if that changes it, so that Sphinx reads again only what is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# --- the reference --------------------------------------------------------------------------------------


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public names of a module that are no modules, and what they stand for."""
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.ismodule(value):
            yield name, value


def write_reference(folder: Path) -> dict[int, str]:
    """Write a page for each entry of `REFERENCE`; return the name under which each object is shown, by its id."""
    names: dict[int, str] = {}
    for page, (title, modules) in REFERENCE.items():
        parts = [f"{title}\n{'=' * len(title)}\n"]
        for module in (importlib.import_module(f"tinytransformer.{m}") for m in modules):
            shown = []
            for name, value in public(module):
                if id(value) not in names:
                    at_top = getattr(tt, name, None) is value
                    names[id(value)] = f"{'tinytransformer' if at_top else module.__name__}.{name}"
                    shown.append((names[id(value)], value))
            if shown:
                parts.append(section(module, shown))
        put(folder / f"{page}.rst", "\n".join(parts))
    pages = "\n".join(["equations", *REFERENCE])
    put(
        folder / "index.md",
        "# Reference\n\nEvery public name of the library, by package, and the table of equations.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{pages}\n```\n",
    )
    return names


def section(module: ModuleType, shown: list[tuple[str, Any]]) -> str:
    """Return the entries of a module: a table of all, then each."""
    first = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
    table = "\n".join(f"   ~{name}" for name, value in shown if not is_data(value))
    entries = "\n".join(entry(name, value) for name, value in shown)
    title = module.__name__.partition(".")[2]
    return f"{title}\n{'-' * len(title)}\n\n{first}\n\n.. autosummary::\n   :nosignatures:\n\n{table}\n\n{entries}"


def is_data(value: Any) -> bool:
    """Tell a table or a name for a type from what has a docstring of its own."""
    return not inspect.isclass(value) and not inspect.isroutine(inspect.unwrap(value))


def entry(name: str, value: Any) -> str:
    """Return the directive for a name."""
    if is_data(value):
        return f".. py:data:: {name}\n\n   ``{value!r}``\n"
    return (
        f".. autoclass:: {name}\n   :members:\n" if inspect.isclass(value) else f".. autofunction:: {name}\n"
    )


# --- the equations --------------------------------------------------------------------------------------


def oracles() -> dict[str, str]:
    """Return for each formula the module of the tests in which its oracle stands."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "tests").glob("formula_cases*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in FORMULAS:
                found.setdefault(node.value, path.stem)
    return found


def write_equations(path: Path, names: dict[int, str]) -> None:
    """Write the table of equations: id, equation, source, code, lesson, oracle."""
    places: dict[str, list[str]] = {}
    for lesson in notebooks.lessons():
        for cell in lesson.cells:
            for name in cell["metadata"].get("equation", "").split():
                places.setdefault(name, []).append(lesson.name)
    checked = oracles()
    rows = []
    for name, formula in FORMULAS.items():
        lessons = ", ".join(
            f"{{doc}}`{int(lesson[:2])} </lessons/en/{lesson}>` {{doc}}`中文 </lessons/zh/{lesson}>`"
            for lesson in places.get(name, [])
        )
        equation = formula.equation.replace("|", r"\vert ")
        rows.append(
            f"| {{py:obj}}`{name} <{names[id(formula)]}>` | ${equation}$ | {formula.source} | {lessons} "
            f"| {checked.get(name, '')} |"
        )
    put(
        path,
        "---\nhtml_theme.sidebar_secondary.remove: true\n---\n\n# Equations\n\n"
        "Each formula has an id, the name of its function, which leads to the code. The lesson's cell, the oracle and "
        "the property test share it; a test fails where one of them is missing. The oracle is the equation in plain "
        "NumPy, entry by entry, in `tests/`; `test_formula_equals_its_equation` in `tests/test_formulas.py` holds "
        "formula and kernel to it on generated inputs, and `test_gradcheck` the gradients to finite differences.\n\n"
        "| id and code | equation | source | lesson | oracle |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n",
    )


# --- the lessons ----------------------------------------------------------------------------------------

ABOVE = Say(
    "{{doc}}`中文 </lessons/zh/{name}>` · Made by running the lesson. To run it yourself and to do the exercises: "
    "`tinytransformer course start`.",
    "{{doc}}`English </lessons/en/{name}>` · 本页由实际运行得出。想自己运行并做练习：`tinytransformer course start --lang zh`。",
)
SHOW = Say("Guess first, then look", "先猜，再看")
HEADS = {
    "en": "# Lessons\n\nEach page is a notebook that was run. `tinytransformer course start` opens them in Jupyter, with "
    "exercises that are checked as you write them.\n\n{{doc}}`中文 </lessons/zh/index>`\n",
    "zh": "# 课程\n\n每一页都是运行过的笔记本。`tinytransformer course start --lang zh` 在 Jupyter 中打开它们，练习写完即可检查。\n\n"
    "{{doc}}`English </lessons/en/index>`\n",
}
GUESSED = re.compile(
    r"^(?:You guessed .*?; it is |你猜 .*?；答案是 )(.*?)(?:\. Well guessed\.|。猜对了。|[.。])$", re.M
)


def write_lessons(folder: Path, cache: Path, names: dict[int, str], run: list[str]) -> None:
    """Write each lesson in each language: what students get, with the outputs of the solution's cells."""
    lessons = notebooks.lessons()
    code = hashlib.sha256()
    for path in sorted(Path(tt.__file__).parent.rglob("*.py")):
        if notebooks.lessons_folder() not in path.parents:
            code.update(path.read_bytes())
    jobs = [(lesson, language) for language in Say._fields for lesson in lessons]
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // 2)))  # two run at a time
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda job: executed(*job, cache, code.hexdigest()) if job[1] in run else None, jobs)
        )
    import nbformat

    for (lesson, language), solution in zip(jobs, done, strict=True):
        page = as_page(lesson, language, solution, names)
        put(folder / language / f"{lesson.name}.ipynb", nbformat.writes(page) + "\n")
    for language in Say._fields:
        pages = "\n".join(lesson.name for lesson in lessons)
        head = HEADS[language].format()
        put(folder / language / "index.md", f"{head}\n```{{toctree}}\n:maxdepth: 1\n\n{pages}\n```\n")


def executed(lesson: notebooks.Lesson, language: str, cache: Path, code: str) -> Any:
    """Return the solution of a lesson with its outputs: from the cache, or by running it."""
    import time

    import nbformat

    notebook = lesson.notebook(language, solution=True)
    key = hashlib.sha256((code + nbformat.writes(notebook)).encode()).hexdigest()[:24]
    path = cache / f"{lesson.name}.{language}.{key}.ipynb"
    if path.exists():
        return nbformat.read(path, as_version=4)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        notebooks.execute(notebook, folder)
    print(f"ran {lesson.name} ({language}) in {time.perf_counter() - start:.0f} s", flush=True)
    for old in cache.glob(f"{lesson.name}.{language}.*.ipynb"):
        old.unlink()
    put(path, nbformat.writes(notebook))
    return notebook


def as_page(lesson: notebooks.Lesson, language: str, solution: Any, names: dict[int, str]) -> Any:
    """Return the student's notebook with links and alternative texts, and with outputs where there are any."""
    cells = [
        {**c, "text": Say(*(linked(text, names) for text in c["text"]))} if c["kind"] == "prose" else c
        for c in lesson.cells
    ]
    page = dataclasses.replace(lesson, cells=cells).notebook(language)
    page.metadata.language_info.pygments_lexer = "python"
    page.cells[0].source += "\n\n" + ABOVE(language).format(name=lesson.name)
    heading = ""
    for place, cell in enumerate(page.cells):
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.*)$", cell.source, re.M) or [heading])[-1]
            continue
        if "nbgrader" in cell.metadata:
            continue  # what the solution scored is not the reader's
        if solution is not None:
            cell.outputs = [without_guess(output) for output in solution.cells[place].outputs]
        cell.metadata["mystnb"] = {"image": {"alt": alternative(cell.source, language) or heading}}
        if re.search(r"^\s*reveal\(|= reveal\(", cell.source, re.M):
            cell.metadata["tags"] = ["hide-output"]
            cell.metadata["mystnb"]["code_prompt_show"] = SHOW(language)
    return page


def linked(text: str, names: dict[int, str]) -> str:
    """Turn links to code into references to its place on the site."""

    def reference(found: re.Match) -> str:
        return f"{{py:obj}}`{found[1]} <{names[id(notebooks.resolve(found[2]))]}>`"

    return notebooks.CODE_LINK.sub(reference, text)


def without_guess(output: Any) -> Any:
    """Take the author's guess out of what `reveal` printed."""
    if output.output_type == "stream":
        output.text = GUESSED.sub(r"\1", output.text)
    return output


def alternative(source: str, language: str) -> str:
    """Return the titles of the pictures that a cell draws, to be read where they cannot be seen."""
    titles = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            asked = [k.value for k in node.keywords if k.arg == "title"]
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("set_title", "suptitle"):
                asked += node.args[:1]
            for value in asked:
                words = value.args if isinstance(value, ast.Call) else [value]
                texts = [w.value for w in words if isinstance(w, ast.Constant) and isinstance(w.value, str)]
                titles += [texts[-1] if language == "zh" else texts[0]] if texts else []
    return "; ".join(titles)
