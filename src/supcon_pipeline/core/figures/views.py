"""A figure of training images and their views."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from supcon_pipeline.core.figures.names import drawn_name, show_as_written

# A column has no room for more.
MAX_LETTERS = 20


def draw_views(
    images: UInt8[np.ndarray, "n h w c"],
    views: UInt8[np.ndarray, "n views size size c"],
    labels: Int[np.ndarray, " n"] | Float[np.ndarray, "n classes"],
    class_names: Sequence[str],
) -> Any:
    """A column per image: its classes, the image, and its views below it.

    Args:
        images: the stored images.
        views: views of each image.
        labels: class indices, or class probabilities of mixed images.
        class_names: one per class.
    """
    from matplotlib.figure import Figure

    num_images, num_views = views.shape[:2]
    figure = Figure(figsize=(1.5 * num_images, 1.5 * (num_views + 1) + 0.6), layout="constrained")
    axes = figure.subplots(num_views + 1, num_images, squeeze=False)
    for column, (image, views_of_image, label) in enumerate(zip(images, views, labels, strict=True)):
        axes[0, column].set_title(_label_text(label, class_names), fontsize=8)
        for axis, picture in zip(axes[:, column], (image, *views_of_image), strict=True):
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for row, title in enumerate(["image", *(f"view {number + 1}" for number in range(num_views))]):
        axes[row, 0].set_ylabel(title)
    figure.suptitle("Training images and the views that the loss compares")
    return show_as_written(figure)


def _label_text(label: Any, class_names: Sequence[str]) -> str:
    if np.ndim(label) == 0:
        return drawn_name(class_names[label], MAX_LETTERS)
    largest_first = [index for index in np.argsort(-label, kind="stable") if label[index] > 0]
    return "\n".join(
        f"{drawn_name(class_names[index], MAX_LETTERS)} {label[index]:.0%}" for index in largest_first
    )
