"""The code in the README and the documentation runs as it is printed, and links lead somewhere."""

import re
from pathlib import Path

import pytest

import tinytransformer as tt
from tinytransformer.backend import xp

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md"), *DOCS.glob("how_to/*.md")])


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for table in ("_modules", "_names", "_module_of"):  # a backend that a page registers is gone after it
        monkeypatch.setattr(tt.backend, table, dict(getattr(tt.backend, table)))
    # docs/core.md shows lines of the library itself, which have these names at hand
    names = {
        "__name__": "__main__",
        "xp": xp,
        **{name: getattr(tt, name) for name in ("primitive", "formula", "attention_weights")},
    }
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), names)
    if page.name == "README.md":
        assert (tmp_path / "attention.svg").stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_the_readme_has_the_two_commands_that_ci_runs():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    commands = re.findall(
        r"^```\n(pip install .*)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert len(commands) == 3  # the last one opens Jupyter
    for command in commands[:2]:
        assert f'echo "== {command}"' in ci
