"""Colours and marks that tell classes apart, also for those who do not see all colours."""

from dataclasses import dataclass

# Okabe and Ito 2008, "Color Universal Design".
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, YELLOW, BLACK = "#56B4E9", "#D55E00", "#F0E442", "#000000"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILLION, YELLOW, BLACK)
RIGHT, WRONG = BLUE, VERMILLION
# Petroff 2021, arXiv:2107.02270, the set of ten: as far apart for everybody as eight of the others.
FEW_COLORS = (
    "#3F90DA",
    "#FFA90E",
    "#BD1F01",
    "#94A4A2",
    "#832DB6",
    "#A96B59",
    "#E76300",
    "#B9AC70",
    "#717581",
    "#92DADD",
)

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
    """One mark per class: up to ten classes a colour each, else eight colours in one shape after another.

    104 classes have a mark of their own, and further ones begin again.
    """
    shapes = list(MARKERS)
    if num_classes <= len(FEW_COLORS):
        return [Mark(color, shapes[0]) for color in FEW_COLORS[:num_classes]]
    return [
        Mark(COLORS[index % len(COLORS)], shapes[index // len(COLORS) % len(shapes)])
        for index in range(num_classes)
    ]
