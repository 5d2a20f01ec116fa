"""Pictures: loss curves, attention maps, masks and computation graphs.

Each function returns a matplotlib Figure, which shows itself as the result of a notebook cell, and writes a
PNG file if a path is given. They need no display and leave matplotlib's global state alone.
"""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .autograd import ordered
from .nn import Module
from .tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GraphDrawing",
    "attention_map",
    "bar_chart",
    "can_draw",
    "computation_graph",
    "loss_curve",
    "mask_map",
]

INK, GREY, PALE = "#222222", "#666666", "#e8e8e8"
BLUE, VERMILION = "#0072b2", "#d55e00"  # told apart with every kind of colour vision
FONT_SIZE, SMALLEST_FONT_SIZE = 10, 6  # points
LINE_HEIGHT = 1.3 / 72  # inches per point of font size
PIXELS_PER_INCH = 160
MOST_COLUMNS = 4  # heads side by side
MOST_POINTS = 250  # of the training loss: single batches of a long run would only be noise

LATIN_FONT = "DejaVu Sans"  # comes with matplotlib
CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",  # under this name matplotlib finds the file with all of Noto Sans CJK
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
    "Droid Sans Fallback",
)
WHITESPACE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


def loss_curve(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str] | None = None,
    baselines: Mapping[str, float] | None = None,
    *,
    unit: str = "nats per token",
    scale: float = 1.0,
) -> Figure:
    """Draw the training and validation loss over the steps, with baselines to compare them with.

    Parameters
    ----------
    history : sequence of mappings
        One per logged step: ``step``, and in nats per token ``loss`` and ``validation_loss``, of which
        either may be missing or None at some steps.
    path : path, optional
        Where to write the picture, a ``.png`` file. An older one is replaced, in one piece.
    baselines : mapping of str to float, optional
        Losses of other models by name, drawn as horizontal lines. They are given in `unit`, since the
        tokens of another model may be others.
    unit : str
        What the vertical axis shows, for example "bits per character".
    scale : float
        How many `unit` one nat per token is. For bits per character: tokens per character, divided by ln 2.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    A training loss of more than 250 rows is drawn as means of as many rows as it takes to have fewer.

    Raises
    ------
    ValueError
        If the history holds no loss, a row has no step, or the path does not end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> history = [
    ...     {"step": 0, "loss": 4.6, "validation_loss": 4.6},
    ...     {"step": 10, "loss": 2.1},
    ...     {"step": 20, "loss": 1.5, "validation_loss": 1.6},
    ... ]
    >>> per_bit = 1 / np.log(2)
    >>> figure = loss_curve(history, baselines={"trigram": 2.5}, unit="bits per character", scale=per_bit)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['training', 'validation 2.31', 'trigram 2.50']
    """
    from matplotlib.ticker import MaxNLocator

    width, height = 7.2, 4.2
    figure = _new_figure(width, height)
    fonts = _fonts()
    axes = _add_axes(figure)
    labels = []  # (height, text, colour)
    steps, losses, together = _averaged(*_series(history, "loss"))
    if len(steps):
        training = "training" if together == 1 else f"training ({together} steps)"
        axes.plot(
            steps,
            scale * losses,
            "o-",
            color=BLUE,
            linewidth=1,
            markersize=4,
            markevery=[-1],
            label="training",
        )
        labels.append((scale * losses[-1], training, BLUE))  # of few batches: its value would say little
    steps, losses = _series(history, "validation_loss")
    if len(steps):
        axes.plot(steps, scale * losses, "o-", color=VERMILION, linewidth=2, markersize=4, label="validation")
        labels.append((scale * losses[-1], f"validation {scale * losses[-1]:.2f}", VERMILION))
    if not labels:
        raise ValueError("loss_curve: the history holds no finite 'loss' or 'validation_loss'; train first")
    for name, value in (baselines or {}).items():
        axes.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label=name, zorder=1)
        labels.append((value, f"{name} {value:.2f}", GREY))
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _label_at_the_right(axes, labels, FONT_SIZE * LINE_HEIGHT / (0.8 * height))
    title = _drawable(f"loss ({unit})", fonts)
    axes.set_title(
        title, loc="left", fontsize=FONT_SIZE, color=INK, pad=10, fontfamily=fonts, parse_math=False
    )
    axes.set_xlabel("step", fontsize=FONT_SIZE, color=INK, fontfamily=LATIN_FONT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT)
    return _finished(figure, path)


def attention_map(
    weights: ArrayLike,
    tokens: Sequence[str] | None = None,
    key_tokens: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw attention weights (document 4.1), one panel per head: rows look at columns.

    The palest blue is 0 and the darkest is 1 in every panel. Whitespace in tokens is shown as ␣, ⏎ and ⇥,
    and a character for which no font is installed as its code point, such as U+4E2D. Positions stand in
    the place of tokens that are too many to be read: draw fewer of them, or one head.

    Parameters
    ----------
    weights : array_like of float, (heads, T_q, T_k) or (T_q, T_k)
        Probabilities, as they come out of the softmax: row t holds how much query t takes from each key.
    tokens : sequence of str, optional
        T_q labels of the queries. Positions are shown if there are none.
    key_tokens : sequence of str, optional
        T_k labels of the keys. Those of the queries if not given, as in self-attention.
    path : path, optional
        Where to write the picture, a ``.png`` file. An older one is replaced, in one piece.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the shapes do not fit, a weight is not between 0 and 1, or the path does not end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> weights = [[[1.0, 0.0], [0.3, 0.7]], [[1.0, 0.0], [0.5, 0.5]]]
    >>> figure = attention_map(weights, tokens=["I", "am"])
    >>> [panel.get_title() for panel in figure.axes[:2]]
    ['head 0', 'head 1']
    """
    array = np.asarray(weights)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            f"attention_map: weights must be (heads, T_q, T_k) or (T_q, T_k), got {array.shape}; "
            "of a batch, choose one sequence: weights[0]"
        )
    if not (array.min() >= 0 and array.max() <= 1 + 1e-3):
        raise ValueError(
            f"attention_map: weights must lie between 0 and 1, got {array.min():.3g} to {array.max():.3g}; "
            "give the output of the softmax, not the scores"
        )
    panels = array.reshape(-1, *array.shape[-2:])  # (heads, T_q, T_k)
    rows = math.ceil(len(panels) / MOST_COLUMNS)
    columns = math.ceil(len(panels) / rows)
    cell = _cell_size(panels.shape[1:], limit=7 if len(panels) == 1 else 4.5)
    width, height = columns * cell * panels.shape[2], rows * cell * panels.shape[1]
    figure = _new_figure(width + 0.3 * columns + 1.8, height + 0.4 * rows + 1.0)
    for head, panel in enumerate(panels):
        axes = _add_axes(figure, rows, columns, head + 1)
        image = axes.imshow(panel, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        if array.ndim == 3:
            axes.set_title(f"head {head}", fontsize=FONT_SIZE, color=INK, fontfamily=LATIN_FONT)
        _label_tokens(axes, panel.shape, tokens, key_tokens, cell)
        # Labels stand at the left edge and under the lowest panel of each column only.
        axes.tick_params(labelleft=head % columns == 0, labelbottom=head + columns >= len(panels))
        if head % columns:
            axes.set_ylabel("")
        if head + columns < len(panels):
            axes.set_xlabel("")
    bar = figure.colorbar(
        image, ax=figure.axes, ticks=[0, 0.5, 1], pad=0.1 / width, shrink=min(1, 2 / height)
    )
    bar.outline.set_visible(False)
    bar.set_label("attention weight", fontsize=FONT_SIZE, color=INK, fontfamily=LATIN_FONT)
    bar.ax.tick_params(length=0, labelcolor=INK, labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT)
    return _finished(figure, path)


def mask_map(
    mask: ArrayLike,
    tokens: Sequence[str] | None = None,
    key_tokens: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw a mask (document 3.2): which query (row) may attend to which key (column).

    Parameters
    ----------
    mask : array_like of bool, (T_q, T_k)
        True means *may attend*.
    tokens, key_tokens, path
        As in `attention_map`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the mask is not a 2-D array of booleans, the numbers of tokens do not fit, or the path does not
        end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> figure = mask_map(np.tri(5, dtype=bool))
    >>> figure.axes[0].images[0].get_array()[1].tolist()
    [1, 1, 0, 0, 0]
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"mask_map: the mask must be (T_q, T_k), got {array.shape}; choose one, such as mask[0, 0]"
        )
    if array.dtype != bool:
        raise ValueError(
            f"mask_map: the mask must be boolean, True where a query may attend, got {array.dtype}"
        )
    cell = _cell_size(array.shape, limit=7)
    figure = _new_figure(cell * array.shape[1] + 1.8, cell * array.shape[0] + 1.4)
    axes = _add_axes(figure)
    axes.imshow(array.astype(int), cmap=ListedColormap([PALE, BLUE]), vmin=0, vmax=1, interpolation="nearest")
    _label_tokens(axes, array.shape, tokens, key_tokens, cell)
    if cell > FONT_SIZE * LINE_HEIGHT:  # cells that can be counted
        axes.set_yticks(np.arange(0.5, array.shape[0] - 1), minor=True)
        axes.set_xticks(np.arange(0.5, array.shape[1] - 1), minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)
    axes.legend(
        handles=[Patch(color=BLUE, label="may attend"), Patch(color=PALE, label="may not")],
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        ncols=2,
        frameon=False,
        labelcolor=INK,
        prop={"family": LATIN_FONT, "size": FONT_SIZE},
        handlelength=1,
        handleheight=1,
    )
    return _finished(figure, path)


def bar_chart(
    values: Mapping[str, float],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw a number for each of some names, as bars from the top down.

    Parameters
    ----------
    values : mapping of str to float
        For example tokens and their probabilities, or mistakes and how often they were made.
    path : path, optional
        Where to write the picture, a ``.png`` file. An older one is replaced, in one piece.
    title : str
        What the numbers are.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no value, one is not finite, or the path does not end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> figure = bar_chart({"cat": 0.7, "dog": 0.2, "猫": 0.1}, title="probability of the next word")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0.7', '0.2', '0.1']
    """
    numbers = np.array(list(values.values()), dtype=float)
    if not numbers.size or not np.isfinite(numbers).all():
        raise ValueError("bar_chart: give at least one name, and a finite number for each")
    fonts = _fonts()
    figure = _new_figure(7.2, 0.28 * numbers.size + 0.8)
    axes = _add_axes(figure)
    axes.barh(np.arange(numbers.size), numbers, color=BLUE, height=0.7)
    axes.invert_yaxis()
    names = [_drawable(name.translate(WHITESPACE) if name.isspace() else name, fonts) for name in values]
    axes.set_yticks(np.arange(numbers.size), names, fontfamily=fonts, fontsize=FONT_SIZE, parse_math=False)
    for place, number in enumerate(numbers):
        axes.annotate(
            f"{number:.3g}",
            (max(number, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE,
            color=INK,
            fontfamily=LATIN_FONT,
        )
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.margins(x=0.12, y=0.02)
    if numbers.min() >= 0:
        axes.set_xlim(left=0)
    axes.set_title(
        _drawable(title, fonts), loc="left", fontsize=FONT_SIZE, color=INK, fontfamily=fonts, parse_math=False
    )
    return _finished(figure, path)


def can_draw(text: str) -> bool:
    """Tell whether the fonts that are installed have all characters of a text.

    Examples
    --------
    >>> can_draw("loss")
    True
    """
    return _drawable(text, _fonts()) == text


def _series(
    history: Sequence[Mapping[str, Any]], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps and values of the rows that hold a finite value, (rows,) each."""
    steps, values = [], []
    for index, row in enumerate(history):
        if "step" not in row:
            raise ValueError(f"loss_curve: row {index} of the history has no 'step'")
        if row.get(key) is not None and math.isfinite(row[key]):
            steps.append(row["step"])
            values.append(row[key])
    return np.array(steps, dtype=np.float64), np.array(values, dtype=np.float64)


def _averaged(steps: NDArray, losses: NDArray) -> tuple[NDArray, NDArray, int]:
    """Mean of every so many losses, so that at most `MOST_POINTS` remain, each at its last step."""
    together = math.ceil(len(losses) / MOST_POINTS) or 1
    starts = np.arange(0, len(losses), together)
    ends = np.minimum(starts + together, len(losses))
    if not len(losses):
        return steps, losses, 1
    return steps[ends - 1], np.add.reduceat(losses, starts) / (ends - starts), together


def _label_at_the_right(axes: Axes, labels: Sequence[tuple[float, str, str]], gap: float) -> None:
    """Write each label (height, text, colour) beside the axes at its height, moved apart if too close.

    The gap is the least distance of two labels, as a fraction of the height of the axes.
    """
    fonts = _fonts()
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # writing must not move it
    gap = gap * (high - low)
    heights = np.array([height for height, _, _ in labels])
    order = np.argsort(heights, kind="stable")
    room = gap * np.arange(len(labels))
    wanted = heights[order] - room
    pushed_up = np.maximum.accumulate(wanted)
    pushed_down = np.minimum.accumulate(wanted[::-1])[::-1]
    placed = np.empty_like(heights)
    placed[order] = (pushed_up + pushed_down) / 2 + room  # both keep the gap, so their mean does
    for y, (height, text, colour) in zip(placed, labels, strict=True):
        axes.annotate(
            _drawable(text, fonts),
            xy=(1.01, height),
            xytext=(1.04, y),
            xycoords=axes.get_yaxis_transform(),  # across: 0 to 1 over the axes; up: the loss
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
            color=colour,
            fontsize=FONT_SIZE,
            verticalalignment="center",
            fontfamily=fonts,
            parse_math=False,
        )


def _cell_size(shape: tuple[int, ...], limit: float) -> float:
    """Return the edge in inches of one cell: room for a label, but no edge of the panel above the limit."""
    longest = max(shape)
    return min(max(1.3 * FONT_SIZE * LINE_HEIGHT, 1.2 / longest), limit / longest)


def _label_tokens(
    axes: Axes,
    shape: tuple[int, ...],
    tokens: Sequence[str] | None,
    key_tokens: Sequence[str] | None,
    cell: float,
) -> None:
    """Label the rows of an image of shape (T_q, T_k) with the queries, the columns with the keys."""
    from matplotlib.ticker import MaxNLocator

    if key_tokens is None:
        key_tokens = tokens
    fonts = _fonts()
    font_size = min(cell / LINE_HEIGHT, FONT_SIZE)
    for axis, what, labels, count in (
        (axes.yaxis, "query", tokens, shape[0]),
        (axes.xaxis, "key", key_tokens, shape[1]),
    ):
        axis.set_label_text(what, fontsize=FONT_SIZE, color=INK, fontfamily=LATIN_FONT)
        if labels is not None and len(labels) != count:
            raise ValueError(f"{what} tokens: got {len(labels)} labels for {count} {what} positions")
        if labels is None or font_size < SMALLEST_FONT_SIZE:
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axis.set_tick_params(labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT)
            continue
        shown = [_drawable(label.translate(WHITESPACE), fonts) for label in labels]
        axis.set_ticks(range(count), shown, fontsize=font_size, fontfamily=fonts, parse_math=False)
        for text in axis.get_ticklabels():
            text.set_rotation(90 if what == "key" and len(text.get_text()) > 1 else 0)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_color(PALE)


def _fonts() -> list[str]:
    """Return the names of the fonts to take glyphs from: matplotlib's own and a Chinese one if installed."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [LATIN_FONT, *[name for name in CHINESE_FONTS if name in installed][:1]]


def _drawable(text: str, fonts: Sequence[str]) -> str:
    """Return the text with code points, such as U+4E2D, for characters that no font has."""
    from matplotlib import font_manager

    faces = [font_manager.get_font(font_manager.findfont(name)) for name in fonts]

    def has_glyph(character: str) -> bool:
        return character.isprintable() and any(face.get_char_index(ord(character)) for face in faces)

    return "".join(character if has_glyph(character) else f"U+{ord(character):04X}" for character in text)


def _new_figure(width: float, height: float) -> Figure:
    """Return an empty Figure of a size in inches, which belongs to no window and is unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            """Return the picture for a notebook, which shows plain Figures only once pyplot is set up."""
            png = _png(self)
            # Bytes 16 to 24 of a PNG are its width and height in pixels; a notebook counts 96 per inch.
            sizes = (int.from_bytes(png[start : start + 4]) * 96 // PIXELS_PER_INCH for start in (16, 20))
            return png, dict(zip(("width", "height"), sizes, strict=True))

    figure = NotebookFigure(figsize=(width, height), layout="compressed", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _add_axes(figure: Figure, *position: int) -> Axes:
    axes = figure.add_subplot(*position, facecolor="white")
    axes.grid(False)
    return axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def _finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Write the Figure to the path, if any, so that no half-written file is ever seen there."""
    if path is None:
        return figure
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"a picture is written as PNG; end its name in .png, not {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(path.parent)!r} to write {path.name!r} to; create it first"
        )
    _write(path, _png(figure))
    return figure


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only once it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
        _write(Path(path), self.svg.encode())


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
