"""Lessons and the notebooks built from them."""

import ast
import json
import re

import pytest

pytest.importorskip("jupytext", reason="jupytext is not installed: pip install '.[notebooks]'")
pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[notebooks]'")

import nbformat

from tinytransformer.course import all_exercises, notebooks
from tinytransformer.course.exercise import source_of
from tinytransformer.course.grader import grade

LESSONS = notebooks.lessons()
CHINESE = re.compile("[\u4e00-\u9fff]")


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_exercise_stands_in_its_lesson_once():
    found = [(e.name, lesson.number) for lesson in LESSONS for e in lesson.exercises]
    assert sorted(found) == sorted((e.name, e.lesson) for e in all_exercises())


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_is_in_both_languages(lesson):
    for cell in lesson.cells:
        if cell["kind"] == "prose":
            en, zh = cell["text"]
            prose = re.sub(r"\$[^$]*\$|`[^`]*`|\[[^]]*\]\([^)]*\)|\W", "", zh)
            assert CHINESE.search(zh) or not prose.strip("0123456789"), f"no Chinese in {zh!r}"
            assert not CHINESE.search(re.sub(r"`[^`]*`|[“\"][^”\"]*[”\"]", "", en)), f"Chinese in {en!r}"
            assert len(re.findall(r"^#+ ", en, re.M)) == len(re.findall(r"^#+ ", zh, re.M)), en[:60]
            assert re.findall(r"\$\$.*?\$\$", en, re.S) == re.findall(r"\$\$.*?\$\$", zh, re.S), en[:60]
    assert lesson.title.en != lesson.title.zh


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_no_line_of_a_solution_is_in_a_student_copy(lesson):
    for language in ("en", "zh"):
        text = "\n".join(code(lesson.notebook(language)))
        lines = {line.strip() for line in text.splitlines()}
        for e in all_exercises():
            body = source_of(e.reference).splitlines()[1:]
            own = {line.strip() for line in body if len(line.strip()) > 16} - {"for i in range(len(ids)):"}
            assert not own & lines, e.name


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_students_guess_before_they_see(lesson):
    guesses = [c for c in lesson.cells if "guess" in c["metadata"]]
    assert len(guesses) >= 3
    for cell in guesses:
        assert "= ..." in cell["text"]
        assert re.search(r"\breveal\(", "\n".join(c["text"] for c in lesson.cells if c["kind"] == "code"))
    for language, solution in (("en", False), ("zh", True)):
        for text in code(lesson.notebook(language, solution)):
            ast.parse(text)
    assert all("= ..." not in text for text in code(lesson.notebook("en", True)))


def test_student_copies_score_nothing_and_solutions_everything(tmp_path):
    asked = [
        e for lesson in LESSONS[:4] for e in lesson.exercises
    ]  # the others differ in nothing that counts
    for solution in (False, True):
        notebooks.build(tmp_path / str(solution), "zh", solution)
    empty, full = grade([tmp_path / "False", tmp_path / "True"], asked=asked, progress=False)
    assert (empty.score, full.score) == (0, full.max)
    assert not any(result.is_answered for result in empty.results)


def test_building_again_changes_nothing(tmp_path):
    first = notebooks.build(tmp_path / "a", "en")
    assert {state for _, state in first} == {"new"}
    before = {path.name: path.read_bytes() for path, _ in first}
    assert {state for _, state in notebooks.build(tmp_path / "a", "en")} == {"same"}
    notebooks.build(tmp_path / "b", "en")
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before


def test_what_a_student_wrote_stays(tmp_path):
    ((path, _), *_) = notebooks.build(tmp_path, "en")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "\nmine = 1"
    nbformat.write(notebook, path)
    states = dict(notebooks.build(tmp_path, "zh"))
    assert states[path] == "kept"
    assert "mine = 1" in path.read_text()
    damaged = sorted(tmp_path.glob("*.ipynb"))[-1]
    damaged.write_text("{")
    assert dict(notebooks.build(tmp_path, "en"))[damaged] == "kept"
    assert dict(notebooks.build(tmp_path, "en", keep=False))[path] == "replaced"
    assert "mine = 1" not in path.read_text()


def lesson_of(tmp_path, *cells, head="en: T\n#     zh: 题\n#     minutes: 5"):
    path = tmp_path / "03_x.py"
    path.write_text(
        f"# ---\n# jupyter:\n#   lesson:\n#     {head}\n# ---\n\n" + "\n\n".join(cells) + "\n",
        encoding="utf-8",
    )
    return notebooks.read_lesson(path)


def test_what_a_lesson_must_have(tmp_path):
    en, zh = '# %% [markdown] lang="en"\n# hello', '# %% [markdown] lang="zh"\n# 你好'
    assert lesson_of(tmp_path, en, zh).cells[0]["text"] == ("hello", "你好")
    with pytest.raises(notebooks.LessonError, match=r"03_x.py, cell 2 .*lang='en'"):
        lesson_of(tmp_path, en, en)
    with pytest.raises(notebooks.LessonError, match='lacks its lang="zh"'):
        lesson_of(tmp_path, en, "# %%\nx = 1")
    with pytest.raises(notebooks.LessonError, match='last prose lacks its lang="zh"'):
        lesson_of(tmp_path, en)
    with pytest.raises(notebooks.LessonError, match="must hold lesson: en"):
        lesson_of(tmp_path, en, zh, head="en: T")
    with pytest.raises(ValueError, match="no exercise 'sofmax'; did you mean softmax"):
        lesson_of(tmp_path, '# %% exercise="sofmax"\ncheck(sofmax)')


def test_guesses_are_in_the_solution_alone(tmp_path):
    lesson = lesson_of(tmp_path, '# %% guess="1/2"\nrows = ...  # how many?', "# %%\nreveal(rows, 0.5)")
    assert "rows = ...  # how many?" in code(lesson.notebook("en"))[1]
    assert "rows = 1/2  # how many?" in code(lesson.notebook("en", solution=True))[1]


def test_a_notebook_runs_and_keeps_its_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(notebooks.lessons_folder().parent))
    cells = ['# %% exercise="softmax"\ncheck(softmax)', '# %%\nsay("one", "一")', "# %%\n1 / 1"]
    built = lesson_of(tmp_path, *cells).notebook("zh", solution=True)
    done = notebooks.execute(built, tmp_path)
    outputs = [
        o.data["text/plain"] for c in done.cells if c.cell_type == "code" for o in c.outputs if "data" in o
    ]
    assert outputs == ["5", "'一'", "1.0"]
    broken = lesson_of(tmp_path, "# %%\n1 / 0").notebook("en")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.execute(broken, tmp_path)


def test_the_notebook_carries_what_nbgrader_needs():
    lesson = next(lesson for lesson in LESSONS if lesson.exercises)
    for solution in (False, True):
        made = json.loads(nbformat.writes(lesson.notebook("en", solution)))
        marks = [c["metadata"]["nbgrader"] for c in made["cells"] if "nbgrader" in c["metadata"]]
        graded = [m for m in marks if m["grade"]]
        assert [m["grade_id"] for m in graded] == [f"check-{e.name}" for e in lesson.exercises]
        assert [m["points"] for m in graded] == [e.points for e in lesson.exercises]
        assert all(m["locked"] and not m["solution"] for m in graded)
        assert sum(m["solution"] for m in marks) == len(graded)
        assert len({m["grade_id"] for m in marks}) == len(marks)
