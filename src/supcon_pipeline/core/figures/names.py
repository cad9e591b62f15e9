"""Names as they stand in figures: of any length, and of any letters."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

# For letters that the usual font of matplotlib has not, in this order and as far as they are installed.
_FAMILIES = (
    *(f"Noto Sans CJK {script}" for script in ("SC", "TC", "JP", "KR")),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Arial Unicode MS", "Noto Sans", "Noto Sans Thai", "Noto Sans Devanagari", "FreeSans"),
)


def short_name(name: str, num_letters: int) -> str:
    """The name where it has at most so many letters, or else its two ends: names differ in either."""
    if len(name) <= num_letters:
        return name
    end = num_letters // 3
    return f"{name[: num_letters - 1 - end]}…{name[-end:]}"


def drawn_name(name: str, num_letters: int) -> str:
    """The short name for a still picture, with a box for each letter that no installed font has."""
    short = short_name(name, num_letters)
    drawn = "".join(letter if letter.isspace() or _has_glyph(letter) else "□" for letter in short)
    if drawn != short:
        _warn_of_boxes()
    return drawn


@cache
def font_families() -> list[str]:
    """The usual fonts, and those for other scripts that are installed."""
    from matplotlib import rcParams
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return [*rcParams["font.family"], *(name for name in _FAMILIES if name in installed)]


@cache
def _has_glyph(letter: str) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = (findfont(FontProperties(family=[family])) for family in font_families())
    return any(get_font(file).get_char_index(ord(letter)) for file in files)


@cache
def _warn_of_boxes() -> None:
    """Once, however many pictures there are."""
    logger.warning(
        "Names have letters that no installed font has, and pictures show boxes for them; "
        "install a font of their script, such as Noto Sans CJK"
    )


def show_as_written(figure: Any) -> Any:
    """The figure with fonts for every script, in which no text is a formula: names may hold dollar signs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(font_families())
    return figure


def text_width(lines: Sequence[str], points: float) -> float:
    """Inches that the longest line takes at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=font_families())
    # Two dollar signs would be a formula.
    paths = [TextPath((0, 0), line.replace("$", "S"), size=points, prop=font) for line in lines if line]
    # On the grid of pixels letters stand somewhat wider.
    return 1.05 * max((float(path.get_extents().width) for path in paths), default=0.0) / 72
