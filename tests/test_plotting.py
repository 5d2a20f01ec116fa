import copy
import io
import itertools
import os
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager, style
from matplotlib.colors import to_rgba
from matplotlib.image import imread
from matplotlib.text import Text

import tinytransformer as tt
from tinytransformer.plotting import attention_map, dot_chart, heat_map, line_chart, loss_curve, mask_map
from tinytransformer.plotting import style as style_of_pictures

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
H, T_Q, T_K = 2, 3, 5

HISTORY = [
    {"step": 0, "loss": 4.7, "validation_loss": 4.6},
    {"step": 7, "loss": 3.1},
    {"step": 14, "loss": 2.2, "validation_loss": 2.4},
    {"step": 20, "loss": float("nan"), "validation_loss": None},
    {"step": 21, "loss": 1.7, "validation_loss": 1.9},
]


def attention_weights(*shape):
    return np.random.default_rng(3).dirichlet(np.ones(shape[-1]), size=shape[:-1])


def line(figure, label):
    (found,) = [line for line in figure.axes[0].lines if line.get_label() == label]
    return found


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def tick_labels(axis):
    axis.get_ticklabels()  # brings the ticks up to date
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1.get_text() for tick in ticks if tick.label1.get_visible()]


# --- loss curve


def test_loss_curve_draws_the_losses_in_the_unit():
    figure = loss_curve(HISTORY, unit="bits per character", scale=1.5)
    training, validation = line(figure, "training"), line(figure, "validation")
    np.testing.assert_array_equal(training.get_xdata(), [0, 7, 14, 21])
    np.testing.assert_allclose(training.get_ydata(), 1.5 * np.array([4.7, 3.1, 2.2, 1.7]))
    np.testing.assert_array_equal(validation.get_xdata(), [0, 14, 21])
    np.testing.assert_allclose(validation.get_ydata(), 1.5 * np.array([4.6, 2.4, 1.9]))
    assert texts(figure) == ["training", "validation 2.85"]
    assert figure.axes[0].get_title(loc="left") == "loss (bits per character)"
    assert figure.axes[0].get_xlabel() == "step"
    assert loss_curve(HISTORY).axes[0].get_title(loc="left") == "loss (nats per token)"


def test_loss_curve_draws_baselines_at_their_own_value():
    figure = loss_curve(HISTORY, baselines={"unigram": 4.671, "trigram": 2.477}, scale=1.5)
    for name, value in {"unigram": 4.671, "trigram": 2.477}.items():
        np.testing.assert_array_equal(line(figure, name).get_ydata(), [value, value])
        np.testing.assert_array_equal(line(figure, name).get_xdata(), [0, 1])  # the whole width of the axes
    assert texts(figure)[2:] == ["unigram 4.67", "trigram 2.48"]


def test_labels_of_loss_curve_have_the_colour_of_their_line_and_point_to_its_end():
    figure = loss_curve(HISTORY, baselines={"bigram": 3.3}, scale=1.5)
    ends = {"training": 2.55, "validation 2.85": 2.85, "bigram 3.30": 3.3}
    for text, drawn in zip(figure.axes[0].texts, figure.axes[0].lines, strict=True):
        assert text.get_color() == drawn.get_color()
        assert text.xy[1] == pytest.approx(ends[text.get_text()])


@pytest.mark.parametrize("values", [[2.0, 2.01, 2.02, 1.9], [4.7, 1.7, 1.69, 4.71], [3.0, 3.0, 3.0, 3.0]])
def test_labels_of_loss_curve_do_not_overlap(values):
    figure = loss_curve(HISTORY, baselines=dict(zip("abcd", values, strict=True)))
    figure.canvas.draw()
    labels = figure.axes[0].texts
    boxes = [Text.get_window_extent(label) for label in labels]  # without the line that leads there
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    heights = [label.xy[1] for label in labels]
    for i, j in itertools.permutations(range(len(labels)), 2):
        assert heights[i] >= heights[j] or boxes[i].y0 < boxes[j].y0  # in the order of the lines
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    # Labels with room keep their place.
    alone = loss_curve(HISTORY, baselines={"far": 3.4}).axes[0].texts[-1]
    assert alone.xyann[1] == pytest.approx(3.4)


def test_one_step_is_visible():
    figure = loss_curve([{"step": 0, "loss": 4.7}])
    assert line(figure, "training").get_marker() == "o"
    assert line(figure, "training").get_markevery() == [-1]
    assert texts(figure) == ["training"]
    figure.canvas.draw()
    assert tick_labels(figure.axes[0].xaxis) == ["0"]


@pytest.mark.parametrize(
    "history", [[], [{"step": 3}], [{"step": 3, "loss": float("inf"), "validation_loss": None}]]
)
def test_loss_curve_without_losses(history):
    with pytest.raises(ValueError, match="no finite 'loss' or 'validation_loss'"):
        loss_curve(history)


def test_loss_curve_without_step():
    with pytest.raises(ValueError, match="row 1 of the history has no 'step'"):
        loss_curve([HISTORY[0], {"loss": 2.0}])


# --- attention map


@pytest.mark.parametrize(("heads", "grid"), [(1, (1, 1)), (2, (1, 2)), (5, (2, 3)), (11, (3, 4))])
def test_attention_map_has_one_panel_per_head(heads, grid):
    weights = attention_weights(heads, T_Q, T_K)
    *panels, bar = attention_map(weights).axes
    assert len(panels) == heads
    for head, panel in enumerate(panels):
        (image,) = panel.images
        np.testing.assert_array_equal(image.get_array(), weights[head])
        assert image.get_clim() == (0, 1)
        assert panel.get_title() == f"head {head}"
        assert panel.get_subplotspec().get_gridspec().get_geometry() == grid
        low, high = panel.get_ylim()
        assert low > high  # the first query stands at the top
    assert bar.get_ylabel() == "attention weight"
    assert bar.get_ylim() == (0, 1)


def test_attention_map_of_one_head():
    weights = attention_weights(T_Q, T_K)
    panel, _ = attention_map(weights).axes
    np.testing.assert_array_equal(panel.images[0].get_array(), weights)
    assert panel.get_title() == ""


def test_rows_are_queries_and_columns_are_keys():
    panel, _ = attention_map(attention_weights(T_Q, T_K), ["I", "am", "late"], list("abcde")).axes
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("query", "key")
    assert tick_labels(panel.yaxis) == ["I", "am", "late"]
    assert tick_labels(panel.xaxis) == list("abcde")
    np.testing.assert_array_equal(panel.get_yticks(), range(T_Q))
    np.testing.assert_array_equal(panel.get_xticks(), range(T_K))


def test_in_self_attention_the_keys_are_the_queries():
    panel, _ = attention_map(attention_weights(3, 3), ["I", "am", "late"]).axes
    assert tick_labels(panel.xaxis) == ["I", "am", "late"]
    # Words stand upright on the left and are turned below; single characters are never turned.
    assert [text.get_rotation() for text in panel.get_yticklabels()] == [0, 0, 0]
    assert [text.get_rotation() for text in panel.get_xticklabels()] == [0, 90, 90]


def test_only_panels_at_the_edge_are_labelled():
    *panels, _ = attention_map(attention_weights(5, 2, 2), ["a", "b"]).axes  # heads 0 1 2 above 3 4
    assert [bool(tick_labels(panel.yaxis)) for panel in panels] == [True, False, False, True, False]
    assert [bool(tick_labels(panel.xaxis)) for panel in panels] == [False, False, True, True, True]
    assert [panel.get_ylabel() for panel in panels] == ["query", "", "", "query", ""]
    assert [panel.get_xlabel() for panel in panels] == ["", "", "key", "key", "key"]


def test_positions_stand_for_tokens_that_cannot_be_read():
    panel, _ = attention_map(attention_weights(53, 53), ["x"] * 53).axes
    assert tick_labels(panel.xaxis) == ["x"] * 53
    assert min(text.get_fontsize() for text in panel.get_xticklabels()) >= 6
    panel, _ = attention_map(attention_weights(97, 97), ["x"] * 97).axes
    assert {"0"} < set(tick_labels(panel.xaxis)) <= set(map(str, range(97)))


def test_tensors_are_drawn():
    weights = attention_weights(H, T_Q, T_K)
    figure = attention_map(tt.tensor(weights, dtype="float64"))
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), weights[1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(T_K), r"\(heads, T_q, T_k\) or \(T_q, T_k\), got \(5,\)"),
        (np.zeros((2, H, T_Q, T_K)), r"got \(2, 2, 3, 5\); of a batch, choose one sequence: weights\[0\]"),
        (np.zeros((0, T_Q, T_K)), r"got \(0, 3, 5\)"),
        (np.array([[-0.2, 1.0]]), "between 0 and 1, got -0.2 to 1; give the output of the softmax"),
        (np.array([[0.1, 1.5]]), "between 0 and 1, got 0.1 to 1.5"),
        (np.array([[np.nan, 1.0]]), "between 0 and 1, got nan"),
    ],
)
def test_weights_that_are_no_attention(weights, message):
    with pytest.raises(ValueError, match=message):
        attention_map(weights)


def test_wrong_number_of_tokens():
    weights = attention_weights(T_Q, T_K)
    with pytest.raises(ValueError, match="query tokens: got 5 labels for 3 query positions"):
        attention_map(weights, list("abcde"))
    with pytest.raises(ValueError, match="key tokens: got 3 labels for 5 key positions"):
        attention_map(weights, list("abc"))
    with pytest.raises(ValueError, match="key tokens: got 4 labels for 5 key positions"):
        mask_map(weights > 0.1, list("abc"), list("abcd"))


# --- labels


def drawn_labels(tokens):
    figure = attention_map(np.eye(len(tokens)), tokens)
    figure.canvas.draw()  # a missing glyph is a warning here, and so an error
    return tick_labels(figure.axes[0].yaxis)


def test_whitespace_is_made_visible():
    assert drawn_labels([" ", "\n", "\t", " a b", "\x07", "\xa0"]) == [
        "␣",
        "⏎",
        "⇥",
        "␣a␣b",
        "U+0007",
        "U+00A0",
    ]


def test_dollar_signs_are_no_mathematics():
    assert drawn_labels(["$", "$x$", r"$\frac$"]) == ["$", "$x$", r"$\frac$"]
    figure = loss_curve(HISTORY, baselines={r"$\frac$": 2.5}, unit=r"$\frac$")
    figure.canvas.draw()
    assert texts(figure)[-1] == r"$\frac$ 2.50"


def test_characters_without_a_glyph_are_shown_as_code_points(monkeypatch):
    monkeypatch.setattr(style_of_pictures, "CHINESE_FONTS", ())
    assert drawn_labels(["中文", "a", "\ud800", "é"]) == ["U+4E2DU+6587", "a", "U+D800", "é"]
    figure = loss_curve(HISTORY, baselines={"三元 model": 2.5}, unit="比特")
    figure.canvas.draw()
    assert texts(figure)[-1] == "U+4E09U+5143 model 2.50"
    assert figure.axes[0].get_title(loc="left") == "loss (U+6BD4U+7279)"


def test_a_second_font_gives_its_glyphs(monkeypatch):
    # STIXGeneral comes with matplotlib. It stands for a Chinese font, which may not be installed.
    def characters(name):
        return set(font_manager.get_font(font_manager.findfont(name)).get_charmap())

    code = next(
        code
        for code in sorted(characters("STIXGeneral") - characters("DejaVu Sans"))
        if chr(code).isprintable()
    )
    monkeypatch.setattr(style_of_pictures, "CHINESE_FONTS", ("No Such Font", "STIXGeneral", "cmex10"))
    assert drawn_labels([chr(code), "a"]) == [chr(code), "a"]
    panel, _ = attention_map(np.eye(2), [chr(code), "a"]).axes
    assert panel.get_yticklabels()[0].get_fontfamily() == ["DejaVu Sans", "STIXGeneral"]
    monkeypatch.setattr(style_of_pictures, "CHINESE_FONTS", ("No Such Font",))
    assert drawn_labels([chr(code), "a"]) == [f"U+{code:04X}", "a"]


# --- mask map


def test_mask_map_colours_what_may_be_attended_to():
    mask = np.tri(T_Q, T_K, k=1, dtype=bool)
    (axes,) = mask_map(mask, list("abc"), list("vwxyz")).axes
    (image,) = axes.images
    legend = dict(
        zip(
            (t.get_text() for t in axes.get_legend().get_texts()),
            axes.get_legend().get_patches(),
            strict=True,
        )
    )
    np.testing.assert_array_equal(image.get_array(), mask)
    drawn = image.to_rgba(image.get_array())
    assert set(map(tuple, drawn[mask])) == {legend["may attend"].get_facecolor()}
    assert set(map(tuple, drawn[~mask])) == {legend["may not"].get_facecolor()}
    assert tick_labels(axes.yaxis) == list("abc")
    assert tick_labels(axes.xaxis) == list("vwxyz")


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_of_one_kind_keeps_its_colour(value):
    (image,) = mask_map(np.full((T_Q, T_K), value)).axes[0].images
    colour = style_of_pictures.BLUE if value else style_of_pictures.PALE
    assert tuple(image.to_rgba(image.get_array())[1, 2]) == to_rgba(colour)


def test_masks_that_are_none():
    with pytest.raises(ValueError, match="must be boolean, True where a query may attend, got float64"):
        mask_map(np.tri(3))
    with pytest.raises(ValueError, match=r"must be \(T_q, T_k\), got \(2, 1, 3, 5\)"):
        mask_map(np.ones((2, 1, T_Q, T_K), dtype=bool))


# --- lines, dots, numbers of either sign

X = np.array([0.5, 1.0, 4.0, 16.0, 32.0])
LINES = {"root": np.sqrt(X), "square": X**2, "$x$": X}


def test_line_chart_draws_each_line_under_its_name():
    figure = line_chart(X, LINES, title="powers", across="how far")
    (axes,) = figure.axes
    for name, values in LINES.items():
        np.testing.assert_array_equal(line(figure, name).get_xdata(), X)
        np.testing.assert_array_equal(line(figure, name).get_ydata(), values)
    assert texts(figure) == ["root", "square", "$x$"]
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("powers", "how far")
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    looks = {(drawn.get_color(), drawn.get_linestyle()) for drawn in axes.lines}
    assert len({colour for colour, _ in looks}) == len({dashes for _, dashes in looks}) == 3


@pytest.mark.parametrize("logarithmic", ["", "x", "y", "xy"])
def test_labels_of_line_chart_stand_at_their_line_on_any_scale(logarithmic):
    near = {"a": X, "b": 1.01 * X, "c": 1000 * X, "d": 1.02 * X}
    figure = line_chart(X, near, logarithmic=logarithmic)
    (axes,) = figure.axes
    scales = [axes.get_xscale() == "log", axes.get_yscale() == "log"]
    assert scales == ["x" in logarithmic, "y" in logarithmic]
    figure.canvas.draw()
    boxes = [Text.get_window_extent(label) for label in axes.texts]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    assert np.argsort([box.y0 for box in boxes]).tolist() == [0, 1, 3, 2]
    far = axes.texts[2]
    assert far.xy[1] == 32_000
    assert far.xyann[1] == pytest.approx(32_000)  # it has room
    for drawn, label in zip(axes.lines, axes.texts, strict=True):
        assert drawn.get_color() == label.get_color()


@pytest.mark.parametrize(
    ("x", "lines", "logarithmic", "says"),
    [
        (X, {}, "", "give 1 to 4 lines, got 0"),
        (X, dict.fromkeys("abcde", X), "", "got 5"),
        (X, {"a": X[1:]}, "", r"'a' has shape \(4,\)"),
        (X[None], {"a": X[None]}, "", r"'x' has shape \(1, 5\)"),
        (X, {"a": X * np.nan}, "", "'a' holds numbers that are not finite"),
        (X - 0.5, {"a": X}, "x", "'x' holds numbers that are not positive on a logarithmic axis"),
        (X, {"a": X - 0.5}, "y", "'a' holds numbers that are not positive"),
        (X, {"a": X}, "z", "logarithmic must be"),
    ],
)
def test_lines_that_cannot_be_drawn(x, lines, logarithmic, says):
    with pytest.raises(ValueError, match=says):
        line_chart(x, lines, logarithmic=logarithmic)


def test_a_logarithmic_axis_asks_the_other_for_nothing():
    line_chart(X - 1, {"a": X}, logarithmic="y")
    line_chart(X, {"a": X - 1}, logarithmic="x")


def test_dot_chart_shows_all_groups_at_one_scale():
    rng = np.random.default_rng(0)
    wide, small = 10 * rng.normal(size=(7, 2)), rng.normal(size=(5, 2))
    figure = dot_chart({"wide": wide, "small": small})
    for axes, points in zip(figure.axes, (wide, small), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), points)
        assert axes.get_aspect() == 1
    one, other = figure.axes
    assert (one.get_xlim(), one.get_ylim()) == (other.get_xlim(), other.get_ylim())
    low, high = one.get_xlim()
    assert low < wide[:, 0].min() < wide[:, 0].max() < high
    for groups, says in [({}, "at least one group"), ({"a": np.zeros((2, 3))}, r"'a' must hold points")]:
        with pytest.raises(ValueError, match=says):
            dot_chart(groups)


def test_heat_map_is_white_at_0_and_as_dark_on_both_sides():
    values = np.array([[0.0, 3.0, -1.0], [1.0, 0.5, -0.5]])
    figure = heat_map(values, title="scores", down="rows", across="columns")
    axes, _ = figure.axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.get_clim() == (-3, 3)
    red, _, blue, _ = image.to_rgba(np.array([[3.0]]))[0, 0]
    assert blue > red
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("columns", "rows")
    assert axes.get_title(loc="left") == "scores"
    for wrong in (np.zeros(3), np.array([[np.inf]])):
        with pytest.raises(ValueError, match="finite"):
            heat_map(wrong)


# --- the language of a picture's words


@pytest.fixture
def chinese(monkeypatch):
    """In Chinese, with a font that stands for a Chinese one where there is none."""
    before = style_of_pictures.language()
    style_of_pictures.language("zh")
    monkeypatch.setattr(style_of_pictures, "can_draw", lambda text: True)
    yield
    style_of_pictures.language(before)


def words(figure):
    """All words of a picture but those the caller gave."""
    found = set()
    for axes in figure.axes:
        legend = axes.get_legend()
        found |= {axes.get_xlabel(), axes.get_ylabel(), axes.get_title(), axes.get_title(loc="left")}
        found |= {text.get_text() for text in [*axes.texts, *(legend.get_texts() if legend else ())]}
    return found - {""}


def test_words_of_pictures_are_chinese_in_chinese_lessons(chinese, monkeypatch):
    monkeypatch.setattr(style_of_pictures, "drawable", lambda text, fonts: text)
    monkeypatch.setattr("tinytransformer.plotting.charts.drawable", lambda text, fonts: text)
    assert words(attention_map(attention_weights(H, T_Q, T_K))) == {
        "头 0",
        "头 1",
        "查询",
        "键",
        "注意力权重",
    }
    assert words(mask_map(np.tri(3, dtype=bool))) == {"查询", "键", "可以看", "不可以看"}
    assert words(loss_curve(HISTORY)) == {"训练", "验证 1.90", "损失（纳特每词元）", "步"}
    many = [{"step": i, "loss": 1.0} for i in range(300)]
    assert "训练（2 步）" in words(loss_curve(many, unit="比特"))


def test_words_are_english_where_no_font_has_chinese(chinese, monkeypatch):
    monkeypatch.setattr(style_of_pictures, "can_draw", str.isascii)
    assert words(mask_map(np.tri(3, dtype=bool))) == {"query", "key", "may attend", "may not"}


def test_a_font_that_came_after_matplotlib_wrote_its_list_is_found(monkeypatch, tmp_path):
    """The list is kept from run to run; the font manager here is one that read an old list."""
    new = shutil.copy(font_manager.findfont("STIXGeneral"), tmp_path)
    old = copy.copy(font_manager.fontManager)
    old.ttflist = [font for font in old.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager, "fontManager", old)
    monkeypatch.setattr(font_manager, "findfont", old.findfont)
    monkeypatch.setattr(font_manager, "get_font_names", old.get_font_names)
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(new), str(damaged)])
    monkeypatch.setattr(style_of_pictures, "CHINESE_FONTS", ("No Such Font", "STIXGeneral"))
    style_of_pictures._add_new_fonts.cache_clear()
    assert style_of_pictures.fonts() == ["DejaVu Sans", "STIXGeneral"]
    style_of_pictures._add_new_fonts.cache_clear()


# --- files and notebooks

DRAWINGS = {
    "loss_curve": lambda path: loss_curve(HISTORY, path),
    "attention_map": lambda path: attention_map(attention_weights(H, T_Q, T_K), path=path),
    "mask_map": lambda path: mask_map(np.tri(5, dtype=bool), path=path),
    "line_chart": lambda path: line_chart(X, LINES, path),
    "dot_chart": lambda path: dot_chart({"a": attention_weights(7, 2)}, path),
    "heat_map": lambda path: heat_map(attention_weights(T_Q, T_K) - 0.2, path),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_the_picture_is_written(draw, tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("an older picture")
    draw(path)
    assert path.read_bytes().startswith(PNG_SIGNATURE)
    pixels = imread(path)
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 200
    np.testing.assert_array_equal(pixels[0, 0, :3], 1)  # a white margin
    assert pixels.std() > 0.03  # with something in it
    assert os.listdir(tmp_path) == ["picture.png"]
    draw(str(tmp_path / "other.PNG"))
    assert (tmp_path / "other.PNG").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_a_failed_write_leaves_the_older_picture(method, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"an older picture")

    def fail(self, *args):
        if method == "write_bytes":
            with open(self, "wb") as file:
                file.write(args[0][:100])
        raise OSError("the disk is full")

    monkeypatch.setattr(type(path), method, fail)
    with pytest.raises(OSError, match="disk is full"):
        mask_map(np.tri(5, dtype=bool), path=path)
    assert os.listdir(tmp_path) == ["picture.png"]
    assert path.read_bytes() == b"an older picture"


def test_a_picture_may_be_read_by_whom_other_files_may(tmp_path):
    (tmp_path / "other").touch()
    mask_map(np.tri(5, dtype=bool), path=tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_impossible_paths(tmp_path):
    with pytest.raises(ValueError, match=r"end its name in .png, not 'picture.svg'"):
        loss_curve(HISTORY, tmp_path / "picture.svg")
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing.* create it first"):
        loss_curve(HISTORY, tmp_path / "missing" / "picture.png")


def test_a_notebook_can_show_the_figure():
    figure = mask_map(np.tri(5, dtype=bool))
    png, size = figure._repr_png_()
    assert png.startswith(PNG_SIGNATURE)
    height, width = imread(io.BytesIO(png)).shape[:2]
    assert size == {"width": width * 96 // 160, "height": height * 96 // 160}


def test_matplotlib_settings_are_left_alone_and_do_not_hide_anything(tmp_path):
    with style.context(["dark_background", {"savefig.facecolor": "black"}]):
        before = dict(matplotlib.rcParams)
        for name, draw in DRAWINGS.items():
            figure = draw(tmp_path / f"{name}.png")
            assert figure.get_facecolor() == to_rgba("white")
            pixels = imread(tmp_path / f"{name}.png")[..., :3]
            np.testing.assert_array_equal(pixels[0, 0], 1)
            if name == "loss_curve":
                np.testing.assert_array_equal(np.median(pixels, axis=(0, 1)), 1)
            assert (pixels.max(axis=2) < 0.2).any()  # ink on white
        assert dict(matplotlib.rcParams) == before


def test_no_display_and_no_pyplot_are_needed(tmp_path):
    script = (
        "import sys\n"
        "from tinytransformer import plotting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plotting.loss_curve([{'step': 0, 'loss': 1.0}], 'loss.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    root = os.path.dirname(os.path.dirname(tt.__file__))
    environment |= {"MPLBACKEND": "tkagg", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG_SIGNATURE)


def test_a_long_training_loss_is_averaged():
    """1,003 rows are more than four times 250: means of five, the last of three."""
    rng = np.random.default_rng(0)
    losses = rng.normal(3, 1, 1003)
    figure = loss_curve([{"step": 10 * i, "loss": loss} for i, loss in enumerate(losses)])
    drawn = line(figure, "training")
    np.testing.assert_allclose(drawn.get_ydata()[:-1], losses[:1000].reshape(200, 5).mean(axis=1))
    assert drawn.get_ydata()[-1] == pytest.approx(losses[1000:].mean())
    np.testing.assert_array_equal(drawn.get_xdata()[[0, -1]], [40, 10020])
    assert figure.axes[0].texts[0].get_text() == "training (5 steps)"
