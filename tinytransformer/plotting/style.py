"""What all pictures share: fonts, colours, the language of their words, and files."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, PALE = "#222222", "#666666", "#e8e8e8"
BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa4499"  # for every kind of colour vision
FONT_SIZE, SMALLEST_FONT_SIZE = 10, 6  # points
LINE_HEIGHT = 1.3 / 72  # inches per point of font size
PIXELS_PER_INCH = 160

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


_language = "en"


def language(choose: str | None = None) -> str:
    """Return the language of the course and of the words in pictures; with an argument, choose it first.

    At the start it is English. The course begins in Chinese where the system's ``LANG`` is.

    Parameters
    ----------
    choose : {"en", "zh"}, optional

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it speaks no such language.

    Examples
    --------
    >>> before = language()
    >>> language("zh")
    'zh'
    >>> language(before) == before
    True
    """
    global _language
    if choose is not None:
        if choose not in ("en", "zh"):
            raise ValueError(f"the course speaks en and zh, not {choose!r}")
        _language = choose
    return _language


def label(en: str, zh: str) -> str:
    """Return a text for a picture: Chinese if that is the language and a font with its characters is there.

    Parameters
    ----------
    en, zh : str
        The text in English and in Chinese.

    Returns
    -------
    str

    Examples
    --------
    >>> before = language()
    >>> _ = language("en")
    >>> label("loss", "损失")
    'loss'
    >>> _ = language(before)
    """
    return zh if _language == "zh" and can_draw(zh) else en


def can_draw(text: str) -> bool:
    """Tell whether the fonts that are installed have all characters of a text.

    Examples
    --------
    >>> can_draw("loss")
    True
    """
    return drawable(text, fonts()) == text


def fonts() -> list[str]:
    """Return the names of the fonts to take glyphs from: matplotlib's own and a Chinese one if installed."""
    from matplotlib import font_manager

    for _ in range(2):
        known = set(font_manager.get_font_names())
        if found := [name for name in CHINESE_FONTS if name in known]:
            return [LATIN_FONT, found[0]]
        _add_new_fonts()
    return [LATIN_FONT]


@cache
def _add_new_fonts() -> None:
    """Tell matplotlib of fonts that were installed after it wrote its list, which it keeps for good."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(OSError, RuntimeError):  # of a kind it cannot read, such as bitmaps
            font_manager.fontManager.addfont(path)


def text_style() -> dict[str, Any]:
    """Return how words look; a dollar sign in them is no mathematics."""
    return {"fontsize": FONT_SIZE, "color": INK, "fontfamily": fonts(), "parse_math": False}


def add_title(axes: Axes, title: str) -> None:
    """Write a title over the left end of the axes."""
    axes.set_title(drawable(title, fonts()), loc="left", pad=10, **text_style())


def drawable(text: str, fonts: Sequence[str]) -> str:
    """Return the text with code points, such as U+4E2D, for characters that no font has."""
    from matplotlib import font_manager

    faces = [font_manager.get_font(font_manager.findfont(name)) for name in fonts]

    def has_glyph(character: str) -> bool:
        return character.isprintable() and any(face.get_char_index(ord(character)) for face in faces)

    return "".join(character if has_glyph(character) else f"U+{ord(character):04X}" for character in text)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty Figure of a size in inches, which belongs to no window and is unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            """Return the picture for a notebook, which shows plain Figures only once pyplot is set up."""
            png = png_of(self)
            # Bytes 16 to 24 of a PNG are its width and height in pixels; a notebook counts 96 per inch.
            sizes = (int.from_bytes(png[start : start + 4]) * 96 // PIXELS_PER_INCH for start in (16, 20))
            return png, dict(zip(("width", "height"), sizes, strict=True))

    figure = NotebookFigure(figsize=(width, height), layout="compressed", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, *position: int) -> Axes:
    """Add white axes without a grid, whatever matplotlib's settings are."""
    axes = figure.add_subplot(*position, facecolor="white")
    axes.grid(False)
    return axes


def png_of(figure: Figure) -> bytes:
    """Return the picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
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
    write(path, png_of(figure))
    return figure


def write(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only once it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
