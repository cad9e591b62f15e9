"""The headline metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple


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
_NEAREST_OTHER = "nearest of the other test images that are searched has the same class, which train lacks"
_MAP_AT_R = Headline(
    "embedding",
    "mean_average_precision_at_r",
    "mAP@R",
    "average precision within the first R neighbours, R being the images of the class that are searched",
)
# Of classes that train has.
_KNOWN = (
    Headline("embedding", "precision_at_1", "precision@1", _NEAREST),
    _MAP_AT_R,
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


# Of classes that train lacks.
_UNSEEN = (
    Headline("embedding", "recall_at_1", "recall@1", _NEAREST_OTHER),
    Headline("embedding", "recall_at_10", "recall@10", "one of the ten nearest others has the same class"),
    _MAP_AT_R,
    Headline("projection", "recall_at_1", "recall@1", _NEAREST_OTHER),
    Headline("verification", "auc", "AUC", "a pair of one class is more similar than a pair of two"),
    Headline(
        "verification",
        "equal_error_rate",
        "EER",
        "where as many pairs of one class are missed as pairs of two are taken for one, lower is better",
    ),
)
HEADLINES = tuple(dict.fromkeys((*_KNOWN, *_UNSEEN)))


def headlines_of(metrics: Mapping[str, Any]) -> list[Headline]:
    """The headline metrics of a run, in their order.

    Args:
        metrics: as `evaluation` gives them.
    """
    headlines = _UNSEEN if "recall_at_1" in metrics.get("embedding", {}) else _KNOWN
    return [headline for headline in headlines if headline.metric in metrics.get(headline.group, {})]


def describe_images(metrics: Mapping[str, Any]) -> str:
    """How many images the metrics are of.

    Args:
        metrics: as `evaluation` gives them; those of earlier versions do not say how many are queries.
    """
    total = metrics["num_images"]
    num_queries = metrics.get("num_queries", total)
    queries = "" if num_queries == total else f", of which {num_queries:,} are scored as queries"
    return f"{total:,} test images{queries}"


def describe_without_near_duplicates(metrics: Mapping[str, Any]) -> str:
    """Headline metrics on the test images of which train has no copy, in a sentence; empty if that is all.

    Args:
        metrics: as `evaluation` gives them.
    """
    scores = metrics.get("without_near_duplicates")
    if not scores:
        return ""
    names = [("embedding", "precision_at_1"), ("embedding", "knn_accuracy"), ("classifier", "accuracy")]
    numbers = ", ".join(
        f"{group} {short} {scores[group][metric]:.4f} ({metrics[group][metric]:.4f} with them)"
        for group, metric, short, _ in HEADLINES
        if (group, metric) in names
    )
    return (
        f"Without the {scores['num_left_out']:,} test images that have a duplicate in train, on the other "
        f"{scores['num_images']:,}: {numbers}"
    )


def describe_gains(metrics: Mapping[str, Any]) -> list[str]:
    """What the embedding gains over each other model, a sentence for each headline metric.

    Args:
        metrics: as `evaluation` gives them; those of earlier versions have no gains.
    """
    return [
        f"{headline.short}: {', '.join(over)}"
        for headline in headlines_of(metrics)
        if headline.group == "embedding" and (over := _gains_in(headline.metric, metrics.get("gains", {})))
    ]


def _gains_in(metric: str, gains: Mapping[str, Any]) -> list[str]:
    with_it = {name: gain for name, gain in gains.items() if metric in gain}
    ends = {name: gain["intervals"][metric] for name, gain in with_it.items()}
    return [
        f"{gain[metric]:+.4f} ({ends[name][0]:+.4f} to {ends[name][1]:+.4f}) over {name}"
        for name, gain in with_it.items()
    ]
