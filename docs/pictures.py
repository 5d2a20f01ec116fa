"""Draw the pictures of the README and the documentation: ``python docs/pictures.py``."""

import inspect
import re
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

import tinytransformer as tt
from tinytransformer.autograd import Formula
from tinytransformer.plotting import GraphDrawing, computation_graph

FOLDER = Path(__file__).parent
TITLE, GAP, LINE = 40, 60, 19  # heights of a title and a line of code, and the space between two parts


def attention_in_two_views() -> None:
    """Draw attention as its formula and as its kernel, with the code of the formula."""
    rng = np.random.default_rng(0)
    inputs = {name: tt.tensor(rng.normal(size=(2, 3, 5, 7)), requires_grad=True) for name in "QKV"}
    with tt.formulas():
        formula = computation_graph(tt.attention(*inputs.values()), inputs)
    kernel = computation_graph(tt.attention(*inputs.values()), inputs)
    code = [*code_of(tt.attention_weights), "", *code_of(tt.attention), "", *code_of(tt.softmax)]

    left, left_width, height = placed(formula, 0, "with tt.formulas():  every operation of the equations")
    right, right_width, top = placed(
        kernel, left_width + GAP, "by default:  one kernel, with the same gradients"
    )
    text = "".join(
        f'<text x="{left_width + GAP}" y="{top + 60 + LINE * i}" text-anchor="start" font-size="13" '
        f'font-family="DejaVu Sans Mono, monospace" xml:space="preserve">{escape(line)}</text>'
        for i, line in enumerate(["# the equations, as they are written in formulas/", "", *code])
    )
    width = left_width + GAP + max(right_width, 8 * max(map(len, code)))
    GraphDrawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" text-anchor="middle">'
        f'<path d="M0 0H{width:.0f}V{height:.0f}H0Z" fill="white"/>{left}{right}{text}</svg>\n'
    ).save(FOLDER / "attention.svg")


def code_of(formula: Formula) -> list[str]:
    """Return the lines of a formula without decorator, types and docstring."""
    source = inspect.getsource(formula.function)
    body = source[source.index('"""\n', source.index('r"""') + 4) + 4 :].rstrip("\n").split("\n")
    names = ", ".join(inspect.signature(formula.function).parameters)
    return [f"def {formula.name}({names}):", *body]


def placed(drawing: GraphDrawing, x: float, title: str) -> tuple[str, float, float]:
    """Return a drawing under its title at this place, its width, and the height down to its end."""
    found = re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing.svg)
    assert found
    width, height = max(float(found[1]), 7.5 * len(title)), float(found[2]) + TITLE
    left = x + (width - float(found[1])) / 2
    inner = drawing.svg.replace("<svg ", f'<svg x="{left}" y="{TITLE}" ')
    return f'<text x="{x + width / 2}" y="26" font-size="14">{title}</text>{inner}', width, height


attention_in_two_views()
