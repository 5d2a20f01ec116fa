"""The instructor's path by the command: build, plant five submissions, grade them, read what is written."""

import copy
import csv
import json
import os
import random
import re

import pytest
from matplotlib.image import imread

pytest.importorskip("jupytext", reason="jupytext is not installed: pip install '.[notebooks]'")

from tinytransformer import cli
from tinytransformer.course import find_exercise
from tinytransformer.course.exercise import source_of

LESSON = "02_softmax_and_cross_entropy.ipynb"
WRONG = {"softmax": "no_maximum_subtracted", "cross_entropy": "sum_for_mean"}
ASKED = ("softmax", "softmax_backward", "cross_entropy")
HOSTILE = {
    "softmax": "def softmax(x, axis=-1):\n    while True: pass",
    "softmax_backward": """
import __main__ as checker
checker.pack = checker.call = lambda *a, **k: 100
def softmax_backward(*given):
    checker.call = lambda *a, **k: 100
    np.isclose = np.allclose = lambda *a, **k: True
    print('{"score": 100}')
    return 100
""",
    "cross_entropy": "def cross_entropy(*given, **options):\n    import os; os._exit(0)",
}


def command(*words):
    """Run it as the shell does, in this process: it starts no faster in another."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return end.value.code or 0


def put(notebook, answers):
    """Replace the cells of answers."""
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name in answers:
            cell["source"] = f"import numpy as np\n\n\n{answers[name]}"
    return notebook


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    place = tmp_path_factory.mktemp("course")
    built = {}
    for kind, language in (("student", "en"), ("solution", "zh")):
        assert command("course", "build", f"--{kind}", "--lang", language, place / kind) == 0
        built[kind] = json.loads((place / kind / LESSON).read_text(encoding="utf-8"))
    mistakes = {
        name: source_of(next(m.function for m in find_exercise(name).mistakes if m.name == wrong)).replace(
            f"def {wrong}(", f"def {name}("
        )
        for name, wrong in WRONG.items()
    }
    renamed = copy.deepcopy(built["solution"])
    copies = [c for c in built["student"]["cells"] if "nbgrader" in c["metadata"]]
    renamed["cells"] += copy.deepcopy(copies + renamed["cells"][:7])  # stubs, too, below the answers
    random.Random(3).shuffle(renamed["cells"])
    for number, cell in enumerate(renamed["cells"]):
        cell |= {"id": f"x{number}", "metadata": {}}
    handed_in = place / "handed-in"
    handed_in.mkdir()
    for name, notebook in {
        "perfect": built["solution"],
        "empty": built["student"],
        "wrong": put(copy.deepcopy(built["solution"]), mistakes),
        "hostile": put(copy.deepcopy(built["solution"]), HOSTILE),
        "renamed": renamed,
    }.items():
        (handed_in / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    only = [word for name in ASKED for word in ("--only", name)]
    words = ["--json", place / "r.json", "--csv", place / "m.csv", "--plot", place / "p.png"]
    words += ["--gradescope", place / "gs", "--salt", "WORD", "--seconds", "1", *only]
    assert command("course", "grade", *sorted(handed_in.iterdir()), *words) == 0
    return place


def test_each_gets_its_score_and_the_mistakes_their_names(graded):
    found = json.loads((graded / "r.json").read_text(encoding="utf-8"))["submissions"]
    found = {submission["name"]: submission for submission in found}
    most = sum(find_exercise(name).points for name in ASKED)
    assert {name: s["max"] for name, s in found.items()} == dict.fromkeys(found, most)
    scores = {name: s["score"] for name, s in found.items()}
    wrong = found["wrong"]["exercises"]
    assert scores == {
        "empty": 0,
        "hostile": 0,
        "perfect": most,
        "renamed": most,
        "wrong": most - sum(wrong[name]["max"] - wrong[name]["score"] for name in WRONG),
    }
    for name, mistake in WRONG.items():
        says = next(m.says for m in find_exercise(name).mistakes if m.name == mistake)
        assert wrong[name]["misconception"] == mistake
        assert wrong[name]["message"].startswith(says.en)
        assert re.search(r"expected .*, got ", wrong[name]["message"])
        assert wrong[name]["score"] < wrong[name]["max"]
    messages = {name: e["message"] for name, e in found["hostile"]["exercises"].items()}
    assert "no answer within 1 s" in messages["softmax"]
    assert "expected shape (7,), got ()" in messages["softmax_backward"]
    assert "ended without an answer" in messages["cross_entropy"]
    assert {e["message"] for e in found["empty"]["exercises"].values()} == {"not answered yet"}


def test_the_table_and_the_picture_are_written(graded):
    with open(graded / "m.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "score", "max", *ASKED]
    assert [row[0] for row in rows[1:]] == ["empty", "hostile", "perfect", "renamed", "wrong"]
    assert all(int(row[1]) == sum(map(int, row[3:])) for row in rows[1:])
    assert imread(graded / "p.png").std() > 0.05


def test_gradescope_finds_what_it_asks_for(graded):
    """The form of results.json, as Gradescope's page on autograders describes it."""
    for name in ("perfect", "wrong", "hostile"):
        results = json.loads((graded / "gs" / name / "results.json").read_text(encoding="utf-8"))
        assert isinstance(results["score"], (int, float))
        assert isinstance(results["output"], str)
        assert results["score"] == sum(test["score"] for test in results["tests"])
        for test in results["tests"]:
            assert test.keys() == {"name", "score", "max_score", "output"}
            assert 0 <= test["score"] <= test["max_score"]
            assert test["name"] in ASKED
            assert isinstance(test["output"], str)


def test_a_student_is_led_to_the_first_lesson(tmp_path, monkeypatch):
    """Jupyter is not opened here: what counts is where its address leads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinytransformer.cli.course.find_spec", lambda name: object())
    called = []
    monkeypatch.setattr("subprocess.call", lambda words: called.append(words) or 0)
    assert command("course", "start", "--lang", "zh") == 0
    assert "# 0 · " in (tmp_path / "course" / "00_language_models.ipynb").read_text(encoding="utf-8")
    (words,) = called
    assert "--ServerApp.root_dir=course" in words
    assert "--LabApp.default_url=/lab/tree/00_language_models.ipynb" in words
    if hasattr(os, "geteuid"):
        assert ("--allow-root" in words) == (os.geteuid() == 0)


def test_what_is_refused_before_minutes_of_work(graded, capsys, monkeypatch):
    monkeypatch.setattr("tinytransformer.course.grader.grade", lambda *a, **k: pytest.fail("too late"))
    one = graded / "handed-in" / "empty.ipynb"
    for words, says in [
        (["--plot", graded / "p.pdf"], "end its name in .png"),
        (["--gradescope", one], "takes a folder"),
        (["--json", graded / "none" / "r.json"], "no such folder"),
    ]:
        assert command("course", "grade", one, *words) != 0
        assert says in capsys.readouterr().err
