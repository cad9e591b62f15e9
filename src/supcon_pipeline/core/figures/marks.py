"""Colours and markers that tell classes apart, also for colour-blind readers."""

from dataclasses import dataclass

# Okabe and Ito 2008, "Color Universal Design".
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, YELLOW, BLACK = "#56B4E9", "#D55E00", "#F0E442", "#000000"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILLION, YELLOW, BLACK)
RIGHT, WRONG = BLUE, VERMILLION
# Petroff 2021, arXiv:2107.02270, the set of ten; as distinguishable as eight of the above.
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

# Names in matplotlib, and in plotly.
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
    """Colour and marker of a class."""

    color: str
    marker: str

    @property
    def symbol(self) -> str:
        """The name of the marker in plotly."""
        return MARKERS[self.marker]


def class_marks(num_classes: int) -> list[Mark]:
    """One mark per class: up to ten classes differ in colour, more in eight colours and in shape.

    The first 104 classes have different marks; then marks repeat.
    """
    shapes = list(MARKERS)
    if num_classes <= len(FEW_COLORS):
        return [Mark(color, shapes[0]) for color in FEW_COLORS[:num_classes]]
    return [
        Mark(COLORS[index % len(COLORS)], shapes[index // len(COLORS) % len(shapes)])
        for index in range(num_classes)
    ]
