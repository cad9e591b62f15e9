"""Splits by class: validation and test hold classes that training never sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.messages import InputError, name_some

# With fewer, every image of a split would be of the class that is looked for.
_LEAST_CLASSES = 2


def split_classes(
    labels: np.ndarray,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    splits: Sequence[str] | None = None,
) -> np.ndarray:
    """`train`, `validation` or `test` for each sample, all samples of a class in the same.

    Existing splits are kept. Missing ones are held out of the classes of train: at least two for each, and
    train keeps at least two. A class of one image stays in train, because no image could be found for it.

    Args:
        labels: class index or class name of each sample, `[n]`.
        validation_fraction: share of the classes, in (0, 1).
        test_fraction: share of the classes, in (0, 1).
        seed: the same seed, labels and splits give the same result.
        splits: split of each sample, if the source has splits.

    Raises:
        InputError: where a class is in two splits, or there are too few classes.
    """
    given = np.full(len(labels), "train", dtype=object) if splits is None else np.array(splits, dtype=object)
    _require_one_split(labels, given)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    fractions = {name: share for name, share in fractions.items() if not (given == name).any()}
    names, counts = np.unique(labels[given == "train"], return_counts=True)
    order = np.random.default_rng(seed).permutation(names[counts > 1])
    least = _LEAST_CLASSES * (len(fractions) + 1)
    if len(order) < least:
        raise InputError(
            f"classes with at least 2 images must be at least {least} in train to hold out whole classes "
            f"(2 for each of {', '.join(['train', *reversed(fractions)])}), got {len(order)}; add classes"
            f"{_or_by_image(labels, given, ', or hold out images of each class with ')}"
        )
    chosen, spare = given.copy(), len(order) - least
    for name, share in fractions.items():
        extra = min(max(0, round(len(names) * share) - _LEAST_CLASSES), spare)
        held_out, order = np.split(order, [_LEAST_CLASSES + extra])
        chosen[pd.Series(labels).isin(held_out).to_numpy() & (given == "train")] = name
        spare -= extra
    return chosen


def split_by_class(
    samples: pd.DataFrame, validation_fraction: float, test_fraction: float, seed: int
) -> pd.DataFrame:
    """The samples with their split settled, whole classes held out, and the classes of train numbered first.

    The heads that are trained have an output for each class of train and none for the others.

    Args:
        samples: with `label`, `class_name`, and the `split` that the source gives.
        validation_fraction: as for `split_classes`.
        test_fraction: as for `split_classes`.
        seed: as for `split_classes`.

    Raises:
        InputError: as for `split_classes`.
    """
    labels, given = samples["class_name"].to_numpy(), samples["split"].tolist()
    samples = samples.assign(split=split_classes(labels, validation_fraction, test_fraction, seed, given))
    in_train = samples.groupby("label")["split"].agg(lambda splits: "train" in set(splits))
    order = [*in_train.index[in_train], *in_train.index[~in_train]]
    return samples.assign(label=samples["label"].map({label: number for number, label in enumerate(order)}))


def _require_one_split(labels: np.ndarray, splits: np.ndarray) -> None:
    """Refuse a source that has images of one class in two splits."""
    found = pd.Series(splits).groupby(labels).unique()
    shared = found[found.map(len) > 1]
    if len(shared):
        name = shared.index[0]
        raise InputError(
            f"every class must be in one split only with data_prep.split_by=class, got {len(shared)} in "
            f"several: {name} in {' and '.join(sorted(shared[name]))}; put all images into <class>/ folders "
            f"or a table without a split{_or_by_image(labels, splits, ', or add ')}"
        )


def _or_by_image(labels: np.ndarray, splits: np.ndarray, words: str) -> str:
    """The words and the parameter that holds out images, where every class has enough for that."""
    num_held_out = len({"validation", "test"} - set(splits))
    counts = pd.Series(splits == "train").groupby(labels).sum()
    return f"{words}--params data_prep.split_by=image" if (counts >= num_held_out + 2).all() else ""


def has_unseen_classes(labels: np.ndarray, splits: np.ndarray) -> bool:
    """Whether no class that is validated or tested is in train.

    Args:
        labels: class of each image.
        splits: `train`, `validation` or `test`; other words do not count.
    """
    # By hash: numpy compares each name with all others.
    train = set(pd.unique(labels[splits == "train"]))
    held_out = set(pd.unique(labels[np.isin(splits, ("validation", "test"))]))
    return bool(held_out) and train.isdisjoint(held_out)


@dataclass(frozen=True)
class Search:
    """Which rows are searched for, and which each may find.

    Args:
        queries: indices of the rows that are searched for.
        gallery: indices of the rows that are searched; the same, or others.
        copies: a number for each row, the same for duplicates, of which none finds the other.
        groups: a number for each row, the same for those of one class and one camera, shop or the like, of
            which none finds the other.
    """

    queries: Int[np.ndarray, " q"]
    gallery: Int[np.ndarray, " m"]
    copies: Int[np.ndarray, " n"] | None = None
    groups: Int[np.ndarray, " n"] | None = None

    @classmethod
    def of(cls, samples: pd.DataFrame, split: str) -> Self:
        """The images of a split among one another, or the queries among the gallery where those are marked.

        Args:
            samples: with `split` and `duplicate_group`, and `role` and `group` where the source has them.
            split: the split that is searched.
        """
        rows = np.flatnonzero(samples["split"] == split)
        queries, gallery = (
            rows[(samples["role"].iloc[rows] == role).to_numpy()] if "role" in samples else rows[:0]
            for role in ("query", "gallery")
        )
        is_marked = len(queries) and len(gallery)
        places = (queries, gallery) if is_marked else (rows, rows)
        return cls(*places, samples["duplicate_group"].to_numpy(), _number_groups(samples))

    @property
    def exclusions(self) -> tuple[Int[np.ndarray, " n"], ...]:
        """Numbers for each row: two rows that share one of them do not find each other."""
        return tuple(numbers for numbers in (self.copies, self.groups) if numbers is not None)


def _number_groups(samples: pd.DataFrame) -> Int[np.ndarray, " n"] | None:
    """A number for each class and group, and one of its own for each row without a group."""
    if "group" not in samples:
        return None
    numbers = samples.groupby(["label", "group"]).ngroup().to_numpy()
    has_none = (samples["group"] == "").to_numpy()
    return np.where(has_none, len(samples) + np.arange(len(samples)), numbers)


def describe_unseen(samples: pd.DataFrame) -> list[str]:
    """What to know of classes that were held out whole; nothing where train has them.

    Args:
        samples: with `class_name`, `label`, `split` and `duplicate_group`, and `role` and `group` where the
            source has them.
    """
    if not has_unseen_classes(samples["class_name"].to_numpy(), samples["split"].to_numpy()):
        return []
    classes = samples.groupby("split")["class_name"].unique()
    held_out = [f"{len(classes[name]):,} of {name}" for name in ("validation", "test") if name in classes]
    found = [
        f"train has none of the classes that are held out ({', '.join(held_out)}): images are searched among "
        "the other images of their split, and what needs known classes steps aside (stage 2, k-NN among "
        "train, confusion, calibration, the learning curve)"
    ]
    tested = samples[samples["split"].isin(["validation", "test"])]
    counts = tested["class_name"].value_counts()
    single = counts.index[counts == 1]
    if len(single):
        found.append(
            f"{len(single):,} held-out classes have one image, for which nothing can be found; others may be "
            f"mistaken for it: {name_some(sorted(single))}"
        )
    for split in ("validation", "test"):
        rows = rows_without_match(samples, split)
        names = samples["id"].iloc[rows[~samples["class_name"].iloc[rows].isin(single).to_numpy()]]
        if len(names):
            found.append(
                f"{len(names):,} images of {split} are searched for but not scored: all others of their "
                f"class are duplicates, of their group or not searched among: {name_some(names)}"
            )
    return found


def rows_without_match(samples: pd.DataFrame, split: str) -> Int[np.ndarray, " m"]:
    """The rows of a split that are searched for and may find no image of their class.

    Args:
        samples: as for `Search.of`, with `label`.
        split: the split that is searched.
    """
    search = Search.of(samples, split)
    numbers = pd.DataFrame({"label": samples["label"].to_numpy(), "copy": search.copies})
    numbers["group"] = np.arange(len(samples)) if search.groups is None else search.groups

    def count(*columns: str) -> Int[np.ndarray, " q"]:
        """How many that are searched among are like each query."""
        like = numbers.iloc[search.gallery].groupby(list(columns)).size().rename("count").reset_index()
        queries = numbers.iloc[search.queries][list(columns)]
        return queries.merge(like, how="left", on=list(columns))["count"].fillna(0).to_numpy(dtype=np.int64)

    excluded = count("label", "copy") + count("label", "group") - count("label", "copy", "group")
    without: np.ndarray = search.queries[count("label") == excluded]
    return without
