"""Draw the pictures of the README and the documentation: ``python docs/pictures.py``."""

import re
from pathlib import Path

import numpy as np

import tinytransformer as tt
from tinytransformer.plotting import GraphDrawing, computation_graph

FOLDER = Path(__file__).parent


def attention_in_two_views() -> None:
    """Draw attention under a causal mask as its formula and as its kernel, side by side."""
    rng = np.random.default_rng(0)
    inputs = {name: tt.tensor(rng.normal(size=(2, 3, 5, 7)), requires_grad=True) for name in "QKV"}
    mask = tt.Mask.causal(5)
    with tt.formulas():
        formula = computation_graph(tt.attention(*inputs.values(), mask), inputs)
    kernel = computation_graph(tt.attention(*inputs.values(), mask), inputs)
    beside([("with tt.formulas():  the equation", formula), ("by default:  its kernel", kernel)]).save(
        FOLDER / "attention.svg"
    )


def beside(parts: list[tuple[str, GraphDrawing]]) -> GraphDrawing:
    """Put drawings side by side, each under its title."""
    title_height, gap, x, height, body = 40, 60, 0.0, 0.0, ""
    for title, drawing in parts:
        found = re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing.svg)
        assert found
        part_width = max(float(found[1]), 9.0 * len(title))
        left = x + (part_width - float(found[1])) / 2
        inner = drawing.svg.replace("<svg ", f'<svg x="{left}" y="{title_height}" ')
        body += f'<text x="{x + part_width / 2}" y="26" font-size="14">{title}</text>{inner}'
        x += part_width + gap
        height = max(height, float(found[2]) + title_height)
    return GraphDrawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x - gap:.0f} {height:.0f}" '
        f'width="{x - gap:.0f}" height="{height:.0f}" font-family="sans-serif" text-anchor="middle">'
        f'<path d="M0 0H{x:.0f}V{height:.0f}H0Z" fill="white"/>{body}</svg>\n'
    )


attention_in_two_views()
