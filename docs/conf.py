"""The site: `sphinx-build -W --keep-going docs docs/_build/html`, with nothing fetched from a network.

Lessons, reference and equation table are written by ``generate.py`` before the build. Lessons run once for each
language named in ``execute_lessons`` and are kept in ``docs/_build`` until they or the library change;
``-D execute_lessons=`` shows them without outputs.
"""

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

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
html_sidebars = {"index": [], "instructors": []}
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


def setup(app) -> None:
    """Connect the above."""
    app.add_config_value("execute_lessons", "en zh", "env", [str])
    app.connect("builder-inited", write_pages)
    app.connect("html-page-context", language_of_page)
