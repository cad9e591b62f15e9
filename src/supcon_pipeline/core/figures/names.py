"""Names as they stand in figures: of any length, and of any letters."""

from collections.abc import Sequence
from typing import Any


def short_name(name: str, num_letters: int) -> str:
    """The name where it has at most so many letters, or else its two ends: names differ in either."""
    if len(name) <= num_letters:
        return name
    end = num_letters // 3
    return f"{name[: num_letters - 1 - end]}…{name[-end:]}"


def show_as_written(figure: Any) -> Any:
    """The figure, in which no text is a formula: names may hold dollar signs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure


def text_width(lines: Sequence[str], points: float) -> float:
    """Inches that the longest line takes at a font size in points."""
    from matplotlib.textpath import TextPath

    # Two dollar signs would be a formula.
    paths = [TextPath((0, 0), line.replace("$", "S"), size=points) for line in lines if line]
    # On the grid of pixels letters stand somewhat wider.
    return 1.05 * max((float(path.get_extents().width) for path in paths), default=0.0) / 72
