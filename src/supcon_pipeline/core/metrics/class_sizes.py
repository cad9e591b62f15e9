"""Accuracy on frequent and rare classes."""

from collections.abc import Mapping

import numpy as np

# The largest class has so many times the images of the smallest, from which a tail is worth a look.
LEAST_RATIO = 10


def accuracy_by_size(
    per_class: Mapping[str, Mapping[str, float]], train_counts: Mapping[str, int]
) -> dict[str, float]:
    """Mean accuracy over the classes of the head, the middle and the tail of the class sizes.

    Classes are ordered by their training images, ties by name, and cut into thirds; classes without test
    images are left out before.

    Args:
        per_class: `recall` and `support` of each class on test, by name.
        train_counts: number of training images by class name.

    Returns:
        `head_accuracy`, `middle_accuracy` and `tail_accuracy` in [0, 1]. Empty where the largest class has
        less than ten times the images of the smallest, or fewer than three classes have test images.
    """
    scored = sorted(
        (name for name, scores in per_class.items() if scores["support"]),
        key=lambda name: (-train_counts[name], name),
    )
    if len(scored) < 3 or train_counts[scored[0]] < LEAST_RATIO * train_counts[scored[-1]]:
        return {}
    thirds = np.array_split(np.array([per_class[name]["recall"] for name in scored]), 3)
    names = ("head_accuracy", "middle_accuracy", "tail_accuracy")
    return {name: float(third.mean()) for name, third in zip(names, thirds, strict=True)}
