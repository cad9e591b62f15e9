"""Colours and marks that tell classes apart, also for those who do not see all colours."""

from dataclasses import dataclass

# Okabe and Ito 2008, "Color Universal Design".
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, YELLOW, BLACK = "#56B4E9", "#D55E00", "#F0E442", "#000000"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILLION, YELLOW, BLACK)
RIGHT, WRONG = BLUE, VERMILLION

# Names of matplotlib and of plotly.
MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "*": "star",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "h": "hexagon",
    "d": "diamond-tall",
}
NUM_MARKS = len(COLORS) * len(MARKERS)


@dataclass(frozen=True)
class Mark:
    """How the points of a class look."""

    color: str
    marker: str

    @property
    def symbol(self) -> str:
        """The marker as plotly names it."""
        return MARKERS[self.marker]


def class_marks(num_classes: int) -> list[Mark]:
    """One mark per class: eight colours in one shape, then the same eight in the next.

    Colour alone tells eight classes apart; 104 have a mark of their own, and further ones begin again.
    """
    shapes = list(MARKERS)
    return [
        Mark(COLORS[index % len(COLORS)], shapes[index // len(COLORS) % len(shapes)])
        for index in range(num_classes)
    ]


def short_name(name: str, num_letters: int) -> str:
    """The name where it has at most so many letters, or else its two ends: names differ in either."""
    if len(name) <= num_letters:
        return name
    end = num_letters // 3
    return f"{name[: num_letters - 1 - end]}…{name[-end:]}"
