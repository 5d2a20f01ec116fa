"""The drawing of a graph: a box for each Tensor in it, none over another, an arrow for each dependence."""

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.autograd import ordered
from tinytransformer.plotting import computation_graph

SVG = "{http://www.w3.org/2000/svg}"


def boxes(drawing):
    """Return the (x, y, width, height) of each box and its two texts."""
    root = ET.fromstring(drawing.svg)
    places = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in root.iter(SVG + "rect")]
    texts = [t.text for t in root.iter(SVG + "text")]
    return dict(zip(zip(texts[::2], texts[1::2], places, strict=True), places, strict=True))


def arrows(drawing):
    return [p for p in ET.fromstring(drawing.svg).iter(SVG + "path") if p.get("marker-end")]


def inputs():
    rng = np.random.default_rng(0)
    return {name: tt.tensor(rng.normal(size=(2, 3, 5, 7)), requires_grad=True) for name in "QKV"}


def test_one_box_for_each_tensor_and_one_arrow_for_each_dependence():
    named = inputs()
    with tt.formulas():
        y = tt.attention(*named.values(), tt.Mask.causal(5))
    drawing = computation_graph(y, named)
    tensors = ordered([y])
    assert len(boxes(drawing)) == len(tensors)
    assert len(arrows(drawing)) == sum(len({id(p) for p in t.node.parents}) for t in tensors if t.node)
    labels = [name for name, _, _ in boxes(drawing)]
    assert sorted(labels) == sorted(["Q", "K", "V", *(t.node.operation.name for t in tensors if t.node)])
    shapes = {name: shape for name, shape, _ in boxes(drawing)}
    assert shapes["Q"] == "2×3×5×7"
    assert shapes["exp"] == "2×3×5×5"


def test_the_kernel_view_is_one_box():
    named = inputs()
    drawing = computation_graph(tt.attention(*named.values()), named)
    assert sorted(name for name, _, _ in boxes(drawing)) == ["K", "Q", "V", "attention"]


def test_no_box_lies_over_another_and_arrows_point_down():
    layer = tt.nn.TransformerEncoderLayer(12, 3, 23, dropout=0.0, norm_first=True, rng=0)
    x = tt.ones((2, 5, 12), requires_grad=True)
    with tt.formulas():
        drawing = computation_graph(layer(x), layer)
    for (x1, y1, w1, h1), (x2, y2, w2, h2) in itertools.combinations(boxes(drawing).values(), 2):
        assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
    for path in arrows(drawing):
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d"))]
        assert numbers[1] < numbers[-1]
    width, height = (float(n) for n in ET.fromstring(drawing.svg).get("viewBox").split()[2:])
    for x1, y1, w1, h1 in boxes(drawing).values():
        assert x1 >= 0
        assert y1 >= 0
        assert x1 + w1 <= width
        assert y1 + h1 <= height
    assert {name for name, _ in layer.named_parameters()} <= {name for name, _, _ in boxes(drawing)}


def test_names_are_escaped_and_the_file_is_the_picture(tmp_path):
    x = tt.ones((2,), requires_grad=True)
    drawing = computation_graph(tt.exp(x), {"<&>": x}, tmp_path / "graph.svg")
    assert next(name for name, _, _ in boxes(drawing)) == "<&>"
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == drawing.svg == drawing._repr_svg_()
    assert [p.name for p in tmp_path.iterdir()] == ["graph.svg"]


def test_what_has_no_graph_is_refused():
    with pytest.raises(ValueError, match="has no graph"):
        computation_graph(tt.ones((2, 3)))
    y = tt.exp(tt.ones((), requires_grad=True))
    y.backward()
    with pytest.raises(RuntimeError, match="freed"):
        computation_graph(y)


def test_a_tensor_used_twice_by_one_operation_has_one_arrow():
    x = tt.ones((2,), requires_grad=True)
    assert len(arrows(computation_graph(x * x))) == 1
