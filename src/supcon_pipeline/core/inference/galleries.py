"""The images that new ones are searched among: of a run, and enrolled after it."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import searched_rows
from supcon_pipeline.core.messages import name_some

logger = logging.getLogger(__name__)


def gallery_of(samples: pd.DataFrame) -> pd.DataFrame:
    """The images of a run that new ones are searched among, in the order of the index.

    Args:
        samples: of the run, with `id`, `class_name`, `label` and `split`.

    Returns:
        These columns, and `row`, the place in the samples.
    """
    rows = searched_rows(samples)
    chosen = samples.iloc[rows][["id", "class_name", "label", "split"]].reset_index(drop=True)
    return chosen.assign(row=rows)


def extend_gallery(gallery: pd.DataFrame, enrolled: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """The gallery of a run followed by enrolled images.

    Args:
        gallery: as `gallery_of` gives it.
        enrolled: `id` and `class_name` of images that came after training.
        class_names: of the run, by label.

    Returns:
        The columns of the gallery. A class that the run lacks has the next free label; the split of what was
        enrolled is `enrolled`, and its `row` the place among the enrolled images.
    """
    new = sorted(set(enrolled["class_name"]) - set(class_names))
    labels = {name: label for label, name in enumerate([*class_names, *new])}
    added = pd.DataFrame(
        {
            "id": enrolled["id"],
            "class_name": enrolled["class_name"],
            "label": enrolled["class_name"].map(labels),
            "split": "enrolled",
            "row": np.arange(len(enrolled)),
        }
    )
    return pd.concat([gallery, added], ignore_index=True)


def class_names_of(gallery: pd.DataFrame, class_names: Sequence[str]) -> list[str]:
    """The class names of a run, followed by those that only the gallery has, by label."""
    others = gallery[gallery["label"] >= len(class_names)].drop_duplicates("label").sort_values("label")
    return [*class_names, *others["class_name"]]


def warn_of_few_enrolled(gallery: pd.DataFrame, class_names: Sequence[str], distance_k: int) -> None:
    """Name the classes that only the gallery has, and with so few images that they do not make one known.

    Args:
        gallery: as `extend_gallery` gives it.
        class_names: of the run.
        distance_k: the rank of the image, distance to which decides whether one is unknown.
    """
    counts = gallery.loc[~gallery["class_name"].isin(class_names), "class_name"].value_counts()
    few = sorted(counts.index[counts < distance_k])
    if few:
        logger.warning(
            "%s: fewer enrolled images than inference.distance_k (%d), so the distance of an image of such a "
            "class is to one of another class, and is_unknown may be true; enrol more, or add --params "
            "inference.distance_k=%d",
            *(name_some(few), distance_k, counts.min()),
        )
