"""Charts: losses over steps, lines, bars and dots."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .style import (
    BLUE,
    FONT_SIZE,
    GREEN,
    GREY,
    INK,
    LATIN_FONT,
    LINE_HEIGHT,
    PURPLE,
    VERMILION,
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
    from matplotlib.figure import Figure

MOST_POINTS = 250  # of the training loss: single batches of a long run would only be noise
LINES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"))  # colour and dashes


def loss_curve(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str] | None = None,
    baselines: Mapping[str, float] | None = None,
    *,
    unit: str | None = None,
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
    unit : str, optional
        What the vertical axis shows, for example "bits per character"; by default nats per token.
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

    height = 4.2
    figure = new_figure(7.2, height)
    axes = add_axes(figure)
    labels = []  # (height, text, colour)
    steps, losses, together = _averaged(*_series(history, "loss"))
    if len(steps):
        training = label("training", "训练")
        if together > 1:
            training += label(f" ({together} steps)", f"（{together} 步）")
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
        validation = label("validation", "验证")
        labels.append((scale * losses[-1], f"{validation} {scale * losses[-1]:.2f}", VERMILION))
    if not labels:
        raise ValueError("loss_curve: the history holds no finite 'loss' or 'validation_loss'; train first")
    for name, value in (baselines or {}).items():
        axes.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label=name, zorder=1)
        labels.append((value, f"{name} {value:.2f}", GREY))
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _label_at_the_right(axes, labels, FONT_SIZE * LINE_HEIGHT / (0.8 * height))
    unit = unit or label("nats per token", "纳特每词元")
    add_title(axes, label(f"loss ({unit})", f"损失（{unit}）"))
    axes.set_xlabel(label("step", "步"), **text_style())
    _open_frame(axes)
    return finished(figure, path)


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
    family = fonts()
    figure = new_figure(7.2, 0.28 * numbers.size + 0.8)
    axes = add_axes(figure)
    axes.barh(np.arange(numbers.size), numbers, color=BLUE, height=0.7)
    axes.invert_yaxis()
    names = [drawable(name.translate(WHITESPACE) if name.isspace() else name, family) for name in values]
    axes.set_yticks(np.arange(numbers.size), names, **text_style())
    for place, number in enumerate(numbers):
        axes.annotate(
            f"{number:.3g}",
            (max(number, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            **text_style(),
        )
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.margins(x=0.12, y=0.02)
    if numbers.min() >= 0:
        axes.set_xlim(left=0)
    add_title(axes, title)
    return finished(figure, path)


def line_chart(
    x: ArrayLike,
    lines: Mapping[str, ArrayLike],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    across: str = "",
    logarithmic: str = "",
) -> Figure:
    """Draw lines over one axis, each with its name at its end.

    Lines differ in colour and in dashes. One may lie on another: the dashes show both.

    Parameters
    ----------
    x : array_like of float, (N,)
        Where they have values, from the left to the right.
    lines : mapping of str to array_like of float, (N,)
        The values of each; at most four.
    path : path, optional
        Where to write the picture, a ``.png`` file. An older one is replaced, in one piece.
    title : str
        What the values are.
    across : str
        What `x` is.
    logarithmic : {"", "x", "y", "xy"}
        Which axes have powers of ten at equal distances.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no line, or more than four, one is not as long as x, a number is not finite, an axis that
        is logarithmic holds a number that is not positive, or the path does not end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> x = np.linspace(-2, 2, 41)
    >>> figure = line_chart(x, {"x²": x**2, "x³": x**3}, title="powers", across="x")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['x²', 'x³']
    """
    values = {name: np.asarray(line, dtype=float) for name, line in lines.items()}
    places = np.asarray(x, dtype=float)
    if not 1 <= len(values) <= len(LINES):
        raise ValueError(f"line_chart: give 1 to {len(LINES)} lines, got {len(values)}")
    if logarithmic not in ("", "x", "y", "xy"):
        raise ValueError(f"line_chart: logarithmic must be '', 'x', 'y' or 'xy', got {logarithmic!r}")
    for name, line in {"x": places, **values}.items():
        if line.shape != places.shape or line.ndim != 1 or not line.size:
            raise ValueError(f"line_chart: {name!r} has shape {line.shape}; x and all lines must be (N,)")
        least = np.nextafter(0, 1) if ("x" if line is places else "y") in logarithmic else -np.inf
        if not (np.isfinite(line) & (line >= least)).all():
            wanted = "finite" if least < 0 else "positive on a logarithmic axis"
            raise ValueError(f"line_chart: {name!r} holds numbers that are not {wanted}")
    height = 3.6
    figure = new_figure(7.2, height)
    axes = add_axes(figure)
    for letter in logarithmic:
        axes.set(**{f"{letter}scale": "log"})
    labels = []
    for (name, line), (colour, dashes) in zip(values.items(), LINES, strict=False):
        axes.plot(places, line, linestyle=dashes, color=colour, linewidth=1.8, label=name)
        labels.append((line[-1], name, colour))
    axes.margins(x=0.01)
    _label_at_the_right(axes, labels, FONT_SIZE * LINE_HEIGHT / (0.8 * height))
    add_title(axes, title)
    axes.set_xlabel(drawable(across, fonts()), **text_style())
    _open_frame(axes)
    return finished(figure, path)


def dot_chart(groups: Mapping[str, ArrayLike], path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw points of a plane, the same length in both directions, each group in a panel of its own.

    Parameters
    ----------
    groups : mapping of str to array_like of float, (N, 2)
        The points under each name. All panels show the same part of the plane.
    path : path, optional
        Where to write the picture, a ``.png`` file. An older one is replaced, in one piece.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no group, one is not (N, 2), or the path does not end in ``.png``.
    FileNotFoundError
        If the folder of the path does not exist.

    Examples
    --------
    >>> figure = dot_chart({"before": [[0, 0], [3, 4]], "after": [[0, 0], [0.6, 0.8]]})
    >>> [panel.get_title(loc="left") for panel in figure.axes]
    ['before', 'after']
    """
    points = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    for name, group in points.items():
        if group.ndim != 2 or group.shape[1] != 2 or not len(group):
            raise ValueError(f"dot_chart: {name!r} must hold points, (N, 2), got {group.shape}")
    if not points:
        raise ValueError("dot_chart: give at least one group of points")
    everything = np.concatenate(list(points.values()))
    low, high = everything.min(axis=0), everything.max(axis=0)
    edge = 0.05 * max(high - low)
    figure = new_figure(3.4 * len(points) + 0.6, 3.6)
    for place, (name, group) in enumerate(points.items(), 1):
        axes = add_axes(figure, 1, len(points), place)
        axes.plot(*group.T, ".", color=BLUE, markersize=4, alpha=0.5)
        axes.set(
            aspect="equal",
            xlim=(low[0] - edge, high[0] + edge),
            ylim=(low[1] - edge, high[1] + edge),
        )
        add_title(axes, name)
        _open_frame(axes)
    return finished(figure, path)


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
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # writing must not move it
    scale = axes.yaxis.get_transform()  # to where equal distances look equal, also on a logarithmic axis
    low, high = scale.transform([low, high])
    gap = gap * (high - low)
    heights = scale.transform(np.array([height for height, _, _ in labels]))
    order = np.argsort(heights, kind="stable")
    room = gap * np.arange(len(labels))
    wanted = heights[order] - room
    pushed_up = np.maximum.accumulate(wanted)
    pushed_down = np.minimum.accumulate(wanted[::-1])[::-1]
    placed = np.empty_like(heights)
    placed[order] = (pushed_up + pushed_down) / 2 + room  # both keep the gap, so their mean does
    for y, (height, text, colour) in zip(scale.inverted().transform(placed), labels, strict=True):
        axes.annotate(
            drawable(text, fonts()),
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
            verticalalignment="center",
            **text_style() | {"color": colour},
        )


def _open_frame(axes: Axes) -> None:
    """Leave the two lines of the frame that carry numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(
        which="both", color=GREY, labelcolor=INK, labelsize=FONT_SIZE, labelfontfamily=LATIN_FONT
    )
