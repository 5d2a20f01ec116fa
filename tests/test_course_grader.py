"""Submissions: found by name, graded one by one, nothing counted twice."""

import ast
import csv
import json

import numpy as np
import pytest

from tinytransformer.course import all_exercises, find_exercise, grader
from tinytransformer.course.answers import SubmissionError, read_submission
from tinytransformer.course.checking import check, difference
from tinytransformer.course.exercise import source_of
from tinytransformer.course.sandbox import PARSING, Failure

SOFTMAX = find_exercise("softmax")
RIGHT = source_of(SOFTMAX.reference)
HOSTILE = {
    "loop": "while True: pass",
    "exit": "import os; os._exit(0)",
    "leave": "import sys; sys.exit()",
    "memory": "return np.ones(50 * 10**9 // 8)",
    "fork": "import os\n    while True: os.fork()",
    "print": "print('{\"score\": 100}')",
    "patch": "import numpy; numpy.isclose = lambda *a, **k: True; return x",
    "peek": "from tinytransformer.course.exercises.softmax import softmax; return softmax(x, axis)",
}


def notebook(*cells):
    made = [{"cell_type": "code", "source": cell.splitlines(keepends=True), "id": "x"} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "softmax"}, *made]})


def graded(tmp_path, files, **options):
    paths = []
    for name, text in files.items():
        paths.append(tmp_path / name)
        paths[-1].write_text(text, encoding="utf-8")
    options = {"asked": [SOFTMAX], "progress": False, **options}
    return {g.name: g for g in grader.grade(paths, **options)}


def test_five_submissions_get_what_they_deserve(tmp_path):
    stub = SOFTMAX.stub("en")
    wrong = source_of(SOFTMAX.mistakes[0].function).replace(SOFTMAX.mistakes[0].name, "softmax")
    found = graded(
        tmp_path,
        {
            "perfect.ipynb": notebook("%matplotlib inline\nimport numpy as np", RIGHT, "check(softmax)"),
            "empty.ipynb": notebook(stub, "check(softmax)"),
            "wrong.ipynb": notebook("import numpy as np\n" + wrong),
            "hostile.py": "def softmax(x, axis=-1):\n    import os\n    os._exit(0)\n",
            # the stub was copied below the answer, cells have other ids and orders, one is no Python
            "renamed.ipynb": notebook("x = (", RIGHT, "!pip list", stub, "%%bash\nls"),
        },
    )
    scores = {name: g.score for name, g in found.items()}
    assert scores == {"perfect": 5, "empty": 0, "wrong": 4, "hostile": 0, "renamed": 5}
    assert found["wrong"].results[0].misconception == "no_maximum_subtracted"
    assert found["wrong"].results[0].message.startswith(SOFTMAX.mistakes[0].says.en)
    assert found["empty"].results[0].message == "not answered yet"
    assert not found["empty"].results[0].is_answered
    assert "the process ended without an answer" in found["hostile"].results[0].message
    assert "code cell 1 is no Python" in found["renamed"].notes[0]


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_attempt_costs_its_own_exercise_alone(tmp_path, kind):
    neighbour = next(e for e in all_exercises() if e.name != "softmax" and not e.uses)
    text = f"def softmax(x, axis=-1):\n    {HOSTILE[kind]}\n\n{source_of(neighbour.reference)}"
    found = graded(tmp_path, {"x.py": text}, asked=[SOFTMAX, neighbour], seconds=1)["x"]
    assert [r.score for r in found.results] == [0, neighbour.points]


def test_what_an_answer_needs_comes_with_it(tmp_path):
    parts = [
        "from math import inf as ENDLESS\nimport numpy as np, sys",
        "raise ValueError('what a lesson does is not run')",
        "import tinytransformer as tt\nx = e = axis = tt.zeros(3)",  # not what the answers call so
        "def softmax(x, axis=-1):\n    return divided(powers(x, axis), axis)",
        "def powers(x, axis):\n    return np.exp(x - largest(x, axis))",
        "SMALLEST = -ENDLESS\ntotal, rest = np.sum, SMALLEST",
        "def largest(x, axis):\n    return x.max(axis=axis, keepdims=True, initial=SMALLEST)",
        "def divided(e, axis):\n    return e / total(e, axis=axis, keepdims=True)",
    ]
    assert graded(tmp_path, {"a.ipynb": notebook(*parts)})["a"].score == 5
    source = read_submission(tmp_path / "a.ipynb").source_for(SOFTMAX)
    assert "raise" not in source


def test_the_last_answer_that_was_worked_on_counts(tmp_path):
    wrong = "def softmax(x, axis=-1):\n    return x"
    assert graded(tmp_path, {"a.ipynb": notebook("import numpy as np", wrong, RIGHT)})["a"].score == 5
    assert graded(tmp_path, {"b.ipynb": notebook("import numpy as np", RIGHT, wrong)})["b"].score == 0


@pytest.mark.parametrize(
    "body", ["pass", "...", "return None", "return", "raise NotImplementedError()", '"hm"']
)
def test_what_counts_as_not_worked_on(tmp_path, body):
    text = f'def softmax(x, axis=-1):\n    """Doc."""\n    {body}\n'
    assert not graded(tmp_path, {"a.py": RIGHT + "\n\n" + text}).get("a").notes
    assert graded(tmp_path, {"b.py": "import numpy as np\n" + RIGHT + "\n\n" + text})["b"].score == 5
    assert not graded(tmp_path, {"c.py": text})["c"].results[0].is_answered


def test_a_function_may_be_a_lambda(tmp_path):
    text = "import numpy as np\nsoftmax = lambda x, axis=-1: (lambda e: e / e.sum(axis, keepdims=True))"
    text += "(np.exp(x - x.max(axis, keepdims=True)))"
    assert graded(tmp_path, {"a.py": text})["a"].score == 5


def test_a_folder_is_one_submission(tmp_path):
    (tmp_path / "ada" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "ada" / "1.ipynb").write_text(notebook("import numpy as np"))
    (tmp_path / "ada" / "2.py").write_text(RIGHT)
    (tmp_path / "ada" / ".ipynb_checkpoints" / "3.ipynb").write_text(notebook("def softmax(x): return x"))
    (found,) = grader.grade([tmp_path / "ada"], asked=[SOFTMAX], progress=False)
    assert (found.name, found.score) == ("ada", 5)


def test_a_folder_of_several_students_is_noticed(tmp_path):
    wrong = "def softmax(x, axis=-1):\n    return x"
    for name, text in {"ada.py": RIGHT, "bo.py": wrong, "cy.py": SOFTMAX.stub("en")}.items():
        (tmp_path / name).write_text(text)
    (found,) = grader.grade([tmp_path], asked=[SOFTMAX], progress=False)
    (note,) = found.notes
    assert note.startswith("softmax is answered in ada and in bo: the last counts")
    (tmp_path / "bo.py").unlink()
    assert not grader.grade([tmp_path], asked=[SOFTMAX], progress=False)[0].notes


def test_no_two_threads_parse_at_once(tmp_path, monkeypatch):
    """In Python 3.11 that raises SystemError, or takes points away."""
    alone, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda *a, **k: alone.append(PARSING.locked()) or parse(*a, **k))
    graded(tmp_path, {"a.py": RIGHT, "b.py": "import numpy as np\n" + RIGHT})
    assert len(alone) > 10
    assert all(alone)


def test_what_cannot_be_read_gets_no_points_and_a_reason(tmp_path):
    found = graded(
        tmp_path, {"a.ipynb": "{", "b.ipynb": '{"cells": 3}', "c.txt": "x", "d.ipynb": "[" * 10**5}
    )
    assert {g.score for g in found.values()} == {0}
    assert all(g.notes for g in found.values())
    with pytest.raises(SubmissionError, match="no notebook"):
        read_submission(tmp_path / "c.txt")


def test_two_submissions_of_one_name_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    for path in (tmp_path / "a.py", tmp_path / "x" / "a.py"):
        path.write_text(RIGHT)
    with pytest.raises(ValueError, match="two submissions are named 'a'"):
        grader.grade([tmp_path / "a.py", tmp_path / "x" / "a.py"], asked=[SOFTMAX], progress=False)


def test_earlier_exercises_come_from_the_references(tmp_path):
    """Who has softmax wrong loses its points once, not again with attention."""
    later = next(e for e in all_exercises() if "softmax" in e.uses)
    text = (
        "import numpy as np\n"
        + source_of(later.reference)
        + "\n\ndef softmax(x, axis=-1):\n    return 0 * x\n"
    )
    found = graded(tmp_path, {"a.py": text}, asked=[SOFTMAX, later])["a"]
    assert [r.score for r in found.results] == [0, later.points]
    # and no exercise gets its own reference
    cheat = f"def {later.name}(*a, **k):\n    return softmax.__globals__[{later.name!r}](*a, **k)\n"
    assert graded(tmp_path, {"b.py": cheat}, asked=[later])["b"].score == 0


def test_arguments_depend_on_name_and_salt(tmp_path):
    """An answer that knows the values of one student's arguments is of no use to another."""
    seen = set()
    for name, salt in [("a", ""), ("b", ""), ("a", "secret")]:
        text = "def softmax(x, axis=-1):\n    raise ValueError(repr(x.ravel()[0]))\n"
        seen.add(graded(tmp_path, {f"{name}.py": text}, salt=salt)[name].results[0].message)
    assert len(seen) == 3


def test_what_is_written(tmp_path):
    found = list(graded(tmp_path, {"=1+1.py": RIGHT, "b.py": "def softmax(x, axis=-1): return x"}).values())
    grader.write_json(found, tmp_path / "x.json")
    data = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert [(s["name"], s["score"], s["max"]) for s in data["submissions"]] == [("=1+1", 5, 5), ("b", 0, 5)]
    told = data["submissions"][1]["exercises"]["softmax"]
    assert told.keys() == {"score", "max", "misconception", "message"}
    grader.write_csv(found, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "score", "max", "softmax"], ["'=1+1", "5", "5", "5"], ["b", "0", "5", "0"]]
    grader.write_gradescope(found, tmp_path / "many")
    results = json.loads((tmp_path / "many" / "b" / "results.json").read_text(encoding="utf-8"))
    assert results["tests"][0]["name"] == "softmax"
    assert results["tests"][0]["max_score"] == 5
    grader.write_gradescope(found[:1], tmp_path / "one")
    assert json.loads((tmp_path / "one" / "results.json").read_text(encoding="utf-8"))["score"] == 5


def test_the_summary_counts_mistakes(tmp_path):
    def named(mistake):
        return f"import numpy as np\n{source_of(mistake.function)}\nsoftmax = {mistake.name}\n"

    first, second = SOFTMAX.mistakes[:2]
    files = {"a.py": named(first), "b.py": named(second), "c.py": named(first), "d.py": "", "e.py": RIGHT}
    files["f.py"] = "def softmax(x, axis=-1): return 3"
    (row,) = grader.summary(list(graded(tmp_path, files).values()))
    assert row[0] == "softmax"
    assert dict(row[2]) == {first.name: 2, second.name: 1, "unanswered": 1, "other": 1}


def test_check_speaks_at_once_and_refuses_what_is_no_exercise():
    result = check(SOFTMAX.reference)
    assert result.score == 5
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"] == "5"  # what nbgrader reads
    assert "<script" not in bundle["text/html"]

    def sofmax(x):
        return x

    with pytest.raises(ValueError, match="did you mean softmax"):
        check(sofmax)
    with pytest.raises(ValueError, match=r"as in check\(softmax\)"):
        check(3)


@pytest.mark.parametrize(
    ("got", "expected", "says"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), "expected shape (3, 2), got (2, 3)"),
        (np.array([1, np.nan]), np.array([1.0, 2.0]), "at [1] expected 2.0, got nan"),
        ("a", np.ones(2), "expected [1.0, 1.0], got 'a'"),
        (Failure("Died", "the end"), 1, "the end: it left Python, or took more memory than there is"),
        (Failure("TooDeep", "…"), 1, "it calls itself without end"),
        (Failure("NotImplementedError", ""), 1, "the function is not written yet"),
        (None, 3.5, "expected 3.5, got None"),
        ((1, 2), (1, [2, 3], "x"), "expected (1, [2, 3], 'x'), got (1, 2)"),
        ((1, [2, 4], "x"), (1, [2, 3], "x"), "in [1]: at [1] expected 3, got 4"),
        ({"a": 1}, {"b": 1}, "expected {'b': 1}, got {'a': 1}"),
        (np.array([1.0, 1.0002]), np.array([1, 1]), "at [1] expected 1, got 1.0002"),
        ("b", "a", "expected 'a', got 'b'"),
        ([1, [2, 3]], np.ones((2, 2)), "expected [[1.0, 1.0], [1.0, 1.0]], got [1, [2, 3]]"),
    ],
)
def test_a_difference_is_told(got, expected, says):
    told = difference(got, expected)
    assert told.en == says
    assert told.zh != told.en


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ([1, 2], np.array([1.0, 2.0])),
        (np.array([1, 0]), np.array([True, False])),
        (1 + 1e-7, 1.0),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf])),
        ([1, (2, 3)], (1, [2, 3])),
        (np.float32(2), 2),
        (["a", "b"], ("a", "b")),
    ],
)
def test_what_is_the_same(got, expected):
    assert difference(got, expected) is None
