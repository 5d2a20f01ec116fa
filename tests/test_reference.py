"""What the site is made of: every public name is in the reference, lessons show outputs and no answers."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="jupytext is not installed: pip install '.[notebooks]'")

import nbformat

import tinytransformer as tt
from tinytransformer.course import Say, all_exercises, notebooks
from tinytransformer.course import speaking as say
from tinytransformer.course.exercise import source_of

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

INSIDE = {"cli", "__main__", "course.exercises", "course.lessons", "kernels.cuda"}  # commands and contents


def public_modules():
    """Yield the package, its modules at the top, and all packages below."""
    yield tt
    for found in pkgutil.walk_packages(tt.__path__, "tinytransformer."):
        short = found.name.partition(".")[2]
        inside = any(short == name or short.startswith(f"{name}.") for name in INSIDE)
        if not inside and (found.ispkg or "." not in short):
            yield importlib.import_module(found.name)


def looked_up(name):
    """Return what a dotted name stands for, as a user would come to it."""
    value = tt
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


@pytest.fixture(scope="module")
def names():
    """The names in the written reference, by the id of what they stand for."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        generate.write_reference(Path(folder))
        text = "\n".join(page.read_text(encoding="utf-8") for page in Path(folder).glob("*.rst"))
    shown = re.findall(r"^\.\. (?:auto\w+|py:data):: (\S+)$", text, re.M)
    assert len(shown) == len(set(shown)), "a name has two entries"
    return {id(looked_up(name)): name for name in shown}


@pytest.mark.parametrize("module", list(public_modules()), ids=lambda m: m.__name__)
def test_every_public_name_is_in_the_reference(module, names):
    for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
        value = getattr(module, name)
        if not inspect.ismodule(value) and name not in ("annotations", "TYPE_CHECKING", "Any"):
            assert id(value) in names, f"{module.__name__}.{name} is missing from docs/generate.py, REFERENCE"


REVEALED = {
    "en": "You guessed 1; it is 2.5. Well guessed.\nYou guessed a; it is b.\n",
    "zh": "你猜 1；答案是 2.5。猜对了。\n你猜 甲；答案是 乙。\n",
}


def test_guesses_are_told_as_the_course_tells_them(capsys):
    before = say.language()
    for language, text in REVEALED.items():
        say.language(language)
        say.reveal(1.0, 2.5, tolerance=2)
        say.reveal(*("ab" if language == "en" else "甲乙"))
        assert capsys.readouterr().out == text
    say.language(before)


def with_outputs(lesson, language):
    """Return a solution as it is after a run: each cell has printed, and `reveal` has told the guess."""
    notebook = lesson.notebook(language, solution=True)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=REVEALED[language])]
    return notebook


@pytest.mark.parametrize("language", Say._fields)
def test_pages_show_outputs_and_no_answers(language):
    names = {id(looked_up(f"tinytransformer.{n}")): f"tinytransformer.{n}" for n in vars(tt) if n[0] != "_"}
    lesson = next(lesson for lesson in notebooks.lessons() if lesson.number == 3)
    page = generate.as_page(lesson, language, with_outputs(lesson, language), names)
    assert page.cells[0].source.count(f"/lessons/{'zh' if language == 'en' else 'en'}/03_attention>") == 1
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    body = source_of(next(e for e in all_exercises() if e.name == "attention").reference).splitlines()[1:]
    shown = "\n".join(cell.source for cell in code).splitlines()
    assert not {line.strip() for line in body} & {line.strip() for line in shown}
    for cell in code:
        hidden = "hide-output" in cell.metadata.get("tags", [])
        assert hidden == bool(re.search(r"\breveal\(", cell.source))
        if "nbgrader" in cell.metadata:
            assert not cell.outputs
            continue
        (output,) = cell.outputs
        assert output.text == ("2.5\nb\n" if language == "en" else "2.5\n乙\n")
        assert cell.metadata["mystnb"]["image"]["alt"] or cell is code[0] or cell is code[1]
    prose = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    assert "{py:obj}`attention <tinytransformer.attention>`" in prose
    assert "](tinytransformer" not in prose


def test_a_picture_is_described_by_its_title():
    source = 'bar_chart({}, title=label("loss", "损失"))\naxes.set_title("steps")'
    assert generate.alternative(source, "en") == "loss; steps"
    assert generate.alternative(source, "zh") == "损失; steps"


def test_lines_of_chinese_are_joined():
    """A browser would set a space where a line of the source ends."""
    source = "# 标题\n第一行，\n第二行。\n又一行\nQ 的\n\n- 一\n- 二"
    joined = notebooks.BROKEN_LINE.sub(r"\1", source)
    assert joined == "# 标题\n第一行，第二行。又一行\nQ 的\n\n- 一\n- 二"
