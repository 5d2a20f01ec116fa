"""Real nbgrader releases a built lesson, grades what comes back, and its gradebook holds partial points."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader", reason="nbgrader is not installed: pip install '.[notebooks,nbgrader]'")
pytest.importorskip("jupytext", reason="jupytext is not installed: pip install '.[notebooks,nbgrader]'")

import nbformat

from tinytransformer.course import find_exercise, notebooks
from tinytransformer.course.exercise import source_of

LESSON = """# ---
# jupyter:
#   lesson:
#     en: T
#     zh: 题
#     minutes: 5
# ---

# %% exercise="softmax"
check(softmax)

# %% exercise="softmax_backward"
check(softmax_backward)
"""
READ = """
from nbgrader.api import Gradebook

with Gradebook("sqlite:///gradebook.db") as book:
    for handed_in in book.assignment_submissions("lessons"):
        marks = [(grade.name, grade.score) for notebook in handed_in.notebooks for grade in notebook.grades]
        print(handed_in.max_score, sorted(marks))
"""


def python(folder, *words):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls alembic
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(notebooks.lessons_folder().parent)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_partial_points_reach_its_gradebook(tmp_path):
    (tmp_path / "03_x.py").write_text(LESSON, encoding="utf-8")
    built = notebooks.read_lesson(tmp_path / "03_x.py").notebook("en")
    (tmp_path / "source" / "lessons").mkdir(parents=True)
    nbformat.write(built, tmp_path / "source" / "lessons" / "x.ipynb")
    words = ["-m", "nbgrader", "generate_assignment", "lessons", "--create", "--ClearSolutions.enabled=False"]
    python(tmp_path, *words)

    released = nbformat.read(tmp_path / "release" / "lessons" / "x.ipynb", as_version=4)
    assert [cell.source for cell in released.cells] == [cell.source for cell in built.cells]
    softmax, backward = find_exercise("softmax"), find_exercise("softmax_backward")
    mistake = next(m for m in softmax.mistakes if m.name == "no_maximum_subtracted")
    answers = {
        "softmax": source_of(mistake.function).replace(mistake.name, "softmax"),
        "softmax_backward": source_of(backward.reference),
    }
    for cell in released.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in answers:
            cell.source = f"import numpy as np\n\n\n{answers[name]}"
    (tmp_path / "submitted" / "bo" / "lessons").mkdir(parents=True)
    nbformat.write(released, tmp_path / "submitted" / "bo" / "lessons" / "x.ipynb")
    python(tmp_path, "-m", "nbgrader", "autograde", "lessons", "--create")

    marks = [("check-softmax", softmax.points - 1.0), ("check-softmax_backward", float(backward.points))]
    told = python(tmp_path, "-c", READ)
    assert told.split(maxsplit=1) == [f"{softmax.points + backward.points:.1f}", f"{marks}\n"]
