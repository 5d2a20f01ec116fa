"""Pictures of matrices: attention weights, masks, and numbers of either sign."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .style import (
    BLUE,
    FONT_SIZE,
    INK,
    LATIN_FONT,
    LINE_HEIGHT,
    PALE,
    SMALLEST_FONT_SIZE,
    WHITESPACE,
    add_axes,
    add_title,
    drawable,
    finished,
    fonts,
    label,
    new_figure,
    text_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

MOST_COLUMNS = 4  # heads side by side


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
    figure = new_figure(width + 0.3 * columns + 1.8, height + 0.4 * rows + 1.0)
    for head, panel in enumerate(panels):
        axes = add_axes(figure, rows, columns, head + 1)
        image = axes.imshow(panel, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        if array.ndim == 3:
            axes.set_title(label(f"head {head}", f"头 {head}"), **text_style())
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
    _style_bar(bar)
    bar.set_label(label("attention weight", "注意力权重"), **text_style())
    return finished(figure, path)


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
    figure = new_figure(cell * array.shape[1] + 1.8, cell * array.shape[0] + 1.4)
    axes = add_axes(figure)
    axes.imshow(array.astype(int), cmap=ListedColormap([PALE, BLUE]), vmin=0, vmax=1, interpolation="nearest")
    _label_tokens(axes, array.shape, tokens, key_tokens, cell)
    if cell > FONT_SIZE * LINE_HEIGHT:  # cells that can be counted
        axes.set_yticks(np.arange(0.5, array.shape[0] - 1), minor=True)
        axes.set_xticks(np.arange(0.5, array.shape[1] - 1), minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)
    axes.legend(
        handles=[
            Patch(color=BLUE, label=label("may attend", "可以看")),
            Patch(color=PALE, label=label("may not", "不可以看")),
        ],
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        ncols=2,
        frameon=False,
        labelcolor=INK,
        prop={"family": fonts(), "size": FONT_SIZE},
        handlelength=1,
        handleheight=1,
    )
    return finished(figure, path)


def heat_map(
    values: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    down: str = "",
    across: str = "",
) -> Figure:
    """Draw a matrix of numbers of either sign: red below 0, white at 0, blue above.

    Parameters
    ----------
    values : array_like of float, (M, N)
    path : path, optional
        Where to write the picture, a ``.png`` file. An older one is replaced, in one piece.
    title : str
        What the numbers are.
    down, across : str
        What the rows and the columns are.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If it is no matrix, a number is not finite, or the path does not end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> figure = heat_map([[0.5, -2.0, 0.0]], title="scores")
    >>> figure.axes[0].images[0].get_clim()
    (-2.0, 2.0)
    """
    from matplotlib.ticker import MaxNLocator

    array = np.asarray(values, dtype=float)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"heat_map: values must be (M, N) and finite, got shape {array.shape}")
    most = abs(array).max() or 1.0
    figure = new_figure(6.0, 4.2)
    axes = add_axes(figure)
    image = axes.imshow(array, cmap="RdBu", vmin=-most, vmax=most, interpolation="nearest")
    axes.set_aspect("equal" if array.shape[0] == array.shape[1] else "auto")
    for axis, what in ((axes.yaxis, down), (axes.xaxis, across)):
        axis.set_label_text(drawable(what, fonts()), **text_style())
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(length=0, labelcolor=INK, labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT)
    axes.spines[:].set_color(PALE)
    add_title(axes, title)
    _style_bar(figure.colorbar(image, ax=axes))
    return finished(figure, path)


def _style_bar(bar: Colorbar) -> None:
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=INK, labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT)


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
    family = fonts()
    font_size = min(cell / LINE_HEIGHT, FONT_SIZE)
    for axis, what, shown_as, labels, count in (
        (axes.yaxis, "query", label("query", "查询"), tokens, shape[0]),
        (axes.xaxis, "key", label("key", "键"), key_tokens, shape[1]),
    ):
        axis.set_label_text(shown_as, **text_style())
        if labels is not None and len(labels) != count:
            raise ValueError(f"{what} tokens: got {len(labels)} labels for {count} {what} positions")
        if labels is None or font_size < SMALLEST_FONT_SIZE:
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axis.set_tick_params(labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT)
            continue
        shown = [drawable(token.translate(WHITESPACE), family) for token in labels]
        axis.set_ticks(range(count), shown, **text_style() | {"fontsize": font_size})
        for text in axis.get_ticklabels():
            text.set_rotation(90 if what == "key" and len(text.get_text()) > 1 else 0)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_color(PALE)
