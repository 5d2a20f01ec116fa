"""The site: `sphinx-build -W --keep-going docs docs/_build/html`, with nothing fetched from a network.

Lessons, reference and equation table are written by ``generate.py`` before the build. Lessons run once
for each language named in ``execute_lessons``. Their outputs are kept in ``docs/_build`` until they or the
library change; ``-D execute_lessons=`` shows them without outputs.
"""

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate
from sphinx.errors import ExtensionError
from sphinx.util.nodes import make_refnode

import tinytransformer
from tinytransformer.autograd import Formula, Primitive

project = "tinytransformer"
copyright = "the tinytransformer contributors"
version = release = tinytransformer.__version__
exclude_patterns = ["_build"]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # MathJax and its fonts, as files
    "numpydoc",
    "myst_nb",
]
default_role = "py:obj"

autosummary_generate = False  # each package is one page
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more: shapes
numpydoc_show_class_members = False  # autodoc does
numpydoc_xref_param_type = False

myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # generate.py has run them
nb_merge_streams = True

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {page: [] for page in ("index", "instructors", "reference/equations")}
html_theme_options = {
    "logo": {"text": project},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def functions_of_formulas() -> None:
    """Put the function in place of each formula and primitive, so that autodoc shows its signature."""
    for module in [m for name, m in sys.modules.items() if name.split(".")[0] == "tinytransformer"]:
        for name, value in list(vars(module).items()):
            if isinstance(value, (Formula, Primitive)):
                setattr(module, name, inspect.unwrap(value))


def write_pages(app) -> None:
    """Write what is generated, while formulas still are formulas."""
    generate.write(Path(app.srcdir), app.config.execute_lessons.split())
    functions_of_formulas()


def language_of_page(app, pagename, templatename, context, doctree) -> None:
    """Say in the page's head that it is Chinese."""
    if pagename.startswith("lessons/zh/"):
        context["language"] = "zh"


def by_its_last_name(app, env, node, contnode):
    """Resolve `Mask` in a docstring of another package: there is one public thing of that name."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or "py:module" not in node:
        return None
    known = env.domains["py"].objects
    found = [name for name, entry in known.items() if name.endswith("." + target) and not entry.aliased]
    if len(found) > 1:
        found = [name for name in found if name == f"tinytransformer.{target}"]
    if not found:
        return None
    return make_refnode(app.builder, node["refdoc"], known[found[0]].docname, found[0], contnode, found[0])


def check_pages(app, exception) -> None:
    """Refuse pages that would ask a network for something, and pictures without a text."""
    for page in sorted(Path(app.outdir).rglob("*.html")) if exception is None else ():
        text = page.read_text(encoding="utf-8")
        if found := re.search(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//', text):
            raise ExtensionError(f"{page} asks the network: {found[0]}")
        if found := re.search(r'<img\b(?![^>]*\balt="[^"]*[^"/]")[^>]*>', text):
            raise ExtensionError(f"{page} has a picture without a text: {found[0]}")


def setup(app) -> None:
    """Connect the above."""
    app.add_config_value("execute_lessons", "en zh", "env", [str])
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", by_its_last_name)
    app.connect("build-finished", check_pages)
    app.connect("html-page-context", language_of_page)
