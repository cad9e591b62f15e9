"""Names in figures, of any length and in any script."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

# Fallbacks for letters missing from the default font of matplotlib, in order, if they are installed.
_FAMILIES = (
    *(f"Noto Sans CJK {script}" for script in ("SC", "TC", "JP", "KR")),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Arial Unicode MS", "Noto Sans", "Noto Sans Thai", "Noto Sans Devanagari", "FreeSans"),
)


def short_name(name: str, num_letters: int) -> str:
    """The name, shortened in the middle if it is too long, because names differ at either end."""
    if len(name) <= num_letters:
        return name
    end = num_letters // 3
    return f"{name[: num_letters - 1 - end]}…{name[-end:]}"


def drawn_name(name: str, num_letters: int) -> str:
    """The short name for a static figure, with a box for each letter that no installed font has."""
    short = short_name(name, num_letters)
    drawn = "".join(letter if letter.isspace() or _has_glyph(letter) else "□" for letter in short)
    if drawn != short:
        _warn_of_boxes()
    return drawn


@cache
def font_families() -> list[str]:
    """The default fonts, and installed fonts for other scripts."""
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
    """Warn once, however many figures there are."""
    logger.warning(
        "Some class names have letters that no installed font has, and figures show boxes for them; "
        "install a font for their script, such as Noto Sans CJK"
    )


def show_as_written(figure: Any) -> Any:
    """The figure with fonts for every script and without math text, as names may hold dollar signs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(font_families())
    return figure


def text_width(lines: Sequence[str], points: float) -> float:
    """Width in inches of the longest line at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=font_families())
    # Text between dollar signs would be read as a formula.
    paths = [TextPath((0, 0), line.replace("$", "S"), size=points, prop=font) for line in lines if line]
    # Rendered to pixels, letters are somewhat wider.
    return 1.05 * max((float(path.get_extents().width) for path in paths), default=0.0) / 72
