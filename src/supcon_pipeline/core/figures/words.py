"""A figure of words alone."""

from typing import Any


def draw_words(words: str) -> Any:
    """A small figure with a sentence in the middle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.2), layout="constrained")
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return figure
