"""Computation graphs, drawn as SVG."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ..autograd import ordered
from ..nn import Module
from ..tensor import Tensor
from .style import write


class GraphDrawing:
    """A drawing of a computation graph; notebooks show it by themselves.

    Attributes
    ----------
    svg : str
        The picture, as a complete SVG document.
    """

    def __init__(self, svg: str):
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the SVG file."""
        write(Path(path), self.svg.encode())


def computation_graph(
    output: Tensor,
    names: Mapping[str, Tensor] | Module | None = None,
    path: str | os.PathLike[str] | None = None,
) -> GraphDrawing:
    """Draw how a Tensor was computed: inputs at the top, a box for each operation, the output at the bottom.

    Built as usual, a graph shows one box for each kernel. Built inside ``with tt.formulas():`` it shows every
    primitive of the equations.

    Parameters
    ----------
    output : Tensor
        The end of a graph that was not freed yet.
    names : Module or mapping of str to Tensor, optional
        Names to write on the inputs; of a Module its parameters.
    path : path, optional
        Write the SVG file there too.

    Returns
    -------
    GraphDrawing

    Raises
    ------
    ValueError
        If the Tensor has no graph.
    RuntimeError
        If the graph was freed by ``backward``.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x = tt.ones((2, 3), requires_grad=True)
    >>> drawing = computation_graph(tt.softmax(x), {"x": x})
    >>> drawing.svg.count("<rect")
    2
    """
    if not output.requires_grad:
        raise ValueError("computation_graph: this Tensor has no graph; make an input with requires_grad=True")
    labels = _labels(names)
    tensors = ordered([output])  # parents before children
    place = {id(t): i for i, t in enumerate(tensors)}
    parents = [list(dict.fromkeys(place[id(p)] for p in (t.node.parents if t.node else []))) for t in tensors]
    rows = _rows(parents)
    texts = []
    for t in tensors:
        name = t.node.operation.name if t.node else labels.get(id(t), "input")
        texts.append((name, "×".join(map(str, t.shape)) or "number", t.node is None))
    drawing = GraphDrawing(_svg(texts, parents, rows))
    if path is not None:
        drawing.save(path)
    return drawing


def _labels(names: Any) -> dict[int, str]:
    if names is None:
        return {}
    pairs = names.named_parameters() if hasattr(names, "named_parameters") else names.items()
    return {id(t): name for name, t in pairs}


def _rows(parents: list[list[int]]) -> list[int]:
    """Row of each box: one below its lowest parent; an input stands right above its first use."""
    rows = [0] * len(parents)
    for i, above in enumerate(parents):  # parents come first
        rows[i] = 1 + max((rows[p] for p in above), default=-1)
    first_use: dict[int, int] = {}
    for i, above in enumerate(parents):
        for p in above:
            first_use[p] = min(first_use.get(p, rows[i]), rows[i])
    return [first_use[i] - 1 if not above and i in first_use else rows[i] for i, above in enumerate(parents)]


def _columns(rows: list[int], edges: list[tuple[int, int]]) -> list[float]:
    """Horizontal place of each box: near the mean of its neighbours, without overlap in its row."""
    height = 1 + max(rows)
    members: list[list[int]] = [[] for _ in range(height)]
    for i, row in enumerate(rows):
        members[row].append(i)
    neighbours: dict[int, list[int]] = {i: [] for i in range(len(rows))}
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    x = [0.0] * len(rows)
    for boxes in members:
        for column, i in enumerate(boxes):
            x[i] = column - (len(boxes) - 1) / 2
    for sweep in range(24):
        order = members if sweep % 2 else members[::-1]
        for boxes in order:
            wanted = {i: sum(x[n] for n in neighbours[i]) / max(len(neighbours[i]), 1) for i in boxes}
            boxes.sort(key=lambda i: (wanted[i], i))
            for k, i in enumerate(boxes):
                x[i] = wanted[i] if k == 0 else max(wanted[i], x[boxes[k - 1]] + 1)
            shift = sum(wanted[i] - x[i] for i in boxes) / len(boxes)
            for i in boxes:
                x[i] += shift
    return x


def _svg(texts: list[tuple[str, str, bool]], parents: list[list[int]], rows: list[int]) -> str:
    # an edge over several rows passes a point in each row between, so that it does not cross boxes
    boxes = len(texts)
    rows = list(rows)
    pieces: list[tuple[int, int]] = []
    paths: list[list[int]] = []
    for child in range(boxes):
        for parent in parents[child]:
            points = [parent]
            for row in range(rows[parent] + 1, rows[child]):
                rows.append(row)
                points.append(len(rows) - 1)
            points.append(child)
            paths.append(points)
            pieces.extend(itertools.pairwise(points))
    x = _columns(rows, pieces)
    widest = max(max(len(name), len(shape)) for name, shape, _ in texts)
    box_width, box_height, across, down = 16 + 7.4 * widest, 38, 30 + 7.4 * widest, 66
    left = min(x)
    px = [20 + box_width / 2 + (v - left) * across for v in x]
    py = [20 + row * down for row in rows]
    width, height = max(px) + box_width / 2 + 20, max(py) + box_height + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="DejaVu Sans Mono, monospace" '
        'font-size="12" text-anchor="middle">',
        f'<path d="M0 0H{width:.0f}V{height:.0f}H0Z" fill="white"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8Z" fill="#555"/></marker></defs>',
    ]
    for points in paths:
        start = (px[points[0]], py[points[0]] + box_height)
        curve = f"M{start[0]:.1f} {start[1]:.1f}"
        for i in points[1:]:
            end = (px[i], py[i] + (0 if i < boxes else box_height // 2))
            middle = (start[1] + end[1]) / 2
            curve += f"C{start[0]:.1f} {middle:.1f} {end[0]:.1f} {middle:.1f} {end[0]:.1f} {end[1]:.1f}"
            start = end
        out.append(f'<path d="{curve}" fill="none" stroke="#555" marker-end="url(#tip)"/>')
    for i, (name, shape, is_input) in enumerate(texts):
        fill, line, corner = ("#fff3d6", "#b07d00", 3) if is_input else ("#dcebfa", "#2b6ca3", 14)
        out.append(
            f'<rect x="{px[i] - box_width / 2:.1f}" y="{py[i]}" width="{box_width:.1f}" '
            f'height="{box_height}" rx="{corner}" fill="{fill}" stroke="{line}"/>'
            f'<text x="{px[i]:.1f}" y="{py[i] + 16}" font-weight="bold">{escape(name)}</text>'
            f'<text x="{px[i]:.1f}" y="{py[i] + 31}" fill="#555">{shape}</text>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"
