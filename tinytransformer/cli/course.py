"""``tinytransformer course``: the lessons, the exercises, and the grader."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from .app import UsageError, app, one_of

course = typer.Typer(
    rich_markup_mode=None, help="Lessons and exercises, and a grader that names the mistake."
)
app.add_typer(course, name="course")

MOST_BARS = 40  # mistakes in the picture: as many as a screen shows
LanguageOption = Annotated[str, typer.Option("--lang", help="en or zh.")]


@course.command(
    epilog="""\b
    Examples:
      tinytransformer course start
      tinytransformer course start my-course --lang zh
    """
)
def start(
    folder: Annotated[Path, typer.Argument(help="Where your copy of the lessons lies.")] = Path("course"),
    lang: LanguageOption = "en",
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the lessons in Jupyter, or write them only.")
    ] = True,
) -> None:
    """Write your own copy of the lessons and open it in Jupyter; what you have written stays."""
    from ..course import notebooks

    one_of("--lang", lang, "en", "zh")
    _needs_notebooks()
    done = notebooks.build(folder, lang)
    new = sum(state == "new" for _, state in done)
    typer.echo(f"{folder}: {new} new lessons, {len(done) - new} that were there stay as they are")
    first = done[0][0]
    if not open_:
        typer.echo(f"open them with:  jupyter lab {shlex.quote(str(first))}")
        return
    if find_spec("jupyterlab") is None:
        raise UsageError("JupyterLab is not installed: pip install 'tinytransformer[notebooks]'")
    typer.echo("opening them in Jupyter; Ctrl-C here ends it")
    # the address it prints must lead to the first lesson, for those whose browser does not open by itself
    words = [
        "--log-level=ERROR",
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.default_url=/lab/tree/{first.name}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--allow-root")  # as in most containers
    code = subprocess.call([sys.executable, "-m", "jupyter", "lab", *words])
    raise typer.Exit(code)


@course.command(
    epilog="""\b
    Examples:
      tinytransformer course build --student --lang zh handout
      tinytransformer course build --solution solutions
    """
)
def build(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Where the notebooks go.")],
    solution: Annotated[
        bool, typer.Option("--solution/--student", help="With the answers, or with empty functions.")
    ] = False,
    lang: LanguageOption = "en",
    force: Annotated[bool, typer.Option("--force", help="Replace notebooks that were changed.")] = False,
    run: Annotated[bool, typer.Option("--execute", help="Run them, and keep the outputs.")] = False,
) -> None:
    """Build the notebooks of all lessons, to hand out or to look things up."""
    from ..course import notebooks

    one_of("--lang", lang, "en", "zh")
    _needs_notebooks()
    done = notebooks.build(folder, lang, solution, keep=not force, run=run)
    for path, state in done:
        typer.echo(f"{state:<9} {path}")
    if any(state == "kept" for _, state in done):
        typer.echo("kept are those that were changed after they were built; --force replaces them")


def _needs_notebooks() -> None:
    for package in ("jupytext", "nbformat", "nbclient"):
        if find_spec(package) is None:
            raise UsageError(f"{package} is not installed: pip install 'tinytransformer[notebooks]'")


@course.command(
    epilog="""\b
    Examples:
      tinytransformer course exercises
      tinytransformer course exercises --lang zh
    """
)
def exercises(lang: LanguageOption = "en") -> None:
    """List every exercise: lesson, points, the function to write."""
    from ..course import all_exercises

    one_of("--lang", lang, "en", "zh")
    found = all_exercises()
    typer.echo(f"{'lesson':>6}  {'points':>6}  function")
    for e in found:
        typer.echo(f"{e.lesson:>6}  {e.points:>6}  {e.signature:<60} {e.title(lang)}")
    typer.echo(f"{len(found)} exercises, {sum(e.points for e in found)} points")


@course.command(
    epilog="""\b
    Examples:
      tinytransformer course grade handed-in/*
      tinytransformer course grade handed-in/* --csv marks.csv --json results.json --plot mistakes.png
      tinytransformer course grade ada.ipynb --only softmax --only attention --lang zh
    """
)
def grade(
    submissions: Annotated[
        list[Path], typer.Argument(help="Notebooks, Python files, or folders; a folder is one submission.")
    ],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write scores and messages.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table of scores.")] = None,
    gradescope: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write results.json as Gradescope reads it.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw how many fell into which mistake.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Grade this exercise; may be given again.")
    ] = None,
    lesson: Annotated[
        list[int] | None, typer.Option(metavar="NUMBER", help="Grade this lesson; may be given again.")
    ] = None,
    lang: LanguageOption = "en",
    salt: Annotated[
        str, typer.Option(metavar="WORD", help="A secret that draws the arguments, together with the name.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="Most time for an exercise.")] = 10.0,
    memory: Annotated[int, typer.Option(min=64, help="Most memory for an exercise, in MB.")] = 2048,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Exercises at once; one for each core by default.")
    ] = None,
) -> None:
    """Grade submissions, each exercise in a process of its own, and say who made which mistake."""
    from .. import plotting
    from ..course import all_exercises, find_exercise, grader

    one_of("--lang", lang, "en", "zh")
    for path in submissions:
        if not path.exists():
            raise UsageError(f"there is no {str(path)!r}")
    for file in (json, csv, plot):  # before minutes of work
        if file is not None and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise UsageError(f"cannot write {str(file)!r}: there is no such folder, or it may not be written")
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"a picture is written as PNG; end its name in .png, not {plot.name!r}")
    if gradescope is not None and gradescope.exists() and not gradescope.is_dir():
        raise UsageError(f"--gradescope takes a folder, and {str(gradescope)!r} is a file")
    asked = [find_exercise(name) for name in only or ()]
    lessons = {e.lesson for e in all_exercises()}
    if unknown := sorted(set(lesson or ()) - lessons):
        raise UsageError(f"lesson {unknown[0]} has no exercises; those that have are {sorted(lessons)}")
    asked += [e for e in all_exercises() if e.lesson in (lesson or ()) and e not in asked]
    grades = grader.grade(
        submissions,
        asked=asked or None,
        speak=lang,
        salt=salt,
        seconds=seconds,
        memory=memory << 20,
        workers=workers,
    )
    if json is not None:
        grader.write_json(grades, json)
    if csv is not None:
        grader.write_csv(grades, csv)
    if gradescope is not None:
        grader.write_gradescope(grades, gradescope)
    width = max(len(g.name) for g in grades)
    for g in grades:
        typer.echo(f"{g.name:<{width}}  {g.score:>4}/{g.max}")
        for note in g.notes:
            typer.echo(f"  {note}")
        if len(grades) == 1:
            for result in g.results:
                typer.echo(f"\n{result}")
    rows = grader.summary(grades)
    if len(grades) > 1:
        typer.echo("\nexercise                 mean   mistakes")
        for name, mean, mistakes in rows:
            told = ", ".join(f"{mistake} {number}" for mistake, number in mistakes)
            typer.echo(f"{name:<24} {mean:>4.0%}   {told}")
    if plot is not None:
        plotting.style.language(lang)
        counts = {
            f"{name}: {mistake}": number
            for name, _, told in rows
            for mistake, number in told
            if mistake != "unanswered"  # of which the table tells; here it would hide the mistakes
        }
        most = dict(sorted(counts.items(), key=lambda item: -item[1])[:MOST_BARS])
        title = plotting.style.label(
            f"most frequent mistakes in {len(grades)} submissions", f"{len(grades)} 份作业中最常见的错误"
        )
        plotting.bar_chart(most or {plotting.style.label("no mistakes", "没有错误"): 0}, plot, title=title)
