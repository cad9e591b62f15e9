"""The headline metrics."""

from typing import NamedTuple


class Headline(NamedTuple):
    """A metric and how it is presented.

    Args:
        group: the group of metrics it is in.
        metric: its name in the group.
        short: a name short enough for a terminal of 80 columns.
        meaning: an explanation for readers who do not know the name.
    """

    group: str
    metric: str
    short: str
    meaning: str


_NEAREST = "nearest neighbour among the training images has the same class"
HEADLINES = (
    Headline("embedding", "precision_at_1", "precision@1", _NEAREST),
    Headline(
        "embedding",
        "mean_average_precision_at_r",
        "mAP@R",
        "average precision within the first R neighbours, R being the training images of the class",
    ),
    Headline("embedding", "knn_accuracy", "k-NN accuracy", "weighted vote of the nearest training images"),
    Headline("projection", "precision_at_1", "precision@1", _NEAREST),
    Headline("classifier", "accuracy", "accuracy", "linear classifier"),
    Headline("classifier", "macro_f1", "macro F1", "linear classifier, mean over classes"),
    Headline(
        "classifier",
        "expected_calibration_error",
        "ECE",
        "gap between confidence and accuracy before temperature scaling, lower is better",
    ),
)
