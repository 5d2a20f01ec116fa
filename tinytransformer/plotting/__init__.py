"""Pictures: losses, lines, bars, attention maps, masks and computation graphs.

Each function returns a matplotlib Figure, which shows itself as the result of a notebook cell, and writes a
PNG file if a path is given. They need no display and leave matplotlib's settings alone. Their words are
English, or Chinese after ``tinytransformer.course.language("zh")``.
"""

from .charts import bar_chart, dot_chart, line_chart, loss_curve
from .graph import GraphDrawing, computation_graph
from .maps import attention_map, heat_map, mask_map
from .style import can_draw

__all__ = [
    "GraphDrawing",
    "attention_map",
    "bar_chart",
    "can_draw",
    "computation_graph",
    "dot_chart",
    "heat_map",
    "line_chart",
    "loss_curve",
    "mask_map",
]
