"""Galleries: the nearest images of a query, and labels that are probably wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.figures.marks import RIGHT, WRONG
from supcon_pipeline.core.figures.names import drawn_name, show_as_written

MAX_LETTERS = 16
_PAIRS_PER_ROW = 3


def choose_queries(
    neighbours: pd.DataFrame, labels: Int[np.ndarray, " n"], num_right: int, num_wrong: int, seed: int
) -> dict[str, list[int]]:
    """Queries to show, by the title of their section: random correct ones, and the worst failures.

    A query is correct if its nearest reference has its label. The worst of the others are those with the
    fewest references of their label and, among equals, with the most similar nearest one.

    Args:
        neighbours: one row per query and rank, with `query`, `rank` (0 = nearest), `reference`, `similarity`.
        labels: labels of all images; `query` and `reference` index into them.
        num_right: most correct queries to show.
        num_wrong: most failures to show.
        seed: seed of the random choice.
    """
    is_same = labels[neighbours["query"]] == labels[neighbours["reference"]]
    shares = pd.Series(is_same).groupby(neighbours["query"].to_numpy()).mean()
    nearest = neighbours.assign(is_same=is_same)[neighbours["rank"] == 0].set_index("query")
    # Before rows are selected: assigned to an empty table, the column would bring its rows along.
    nearest = nearest.assign(share=shares)
    right = nearest.index[nearest["is_same"]].to_numpy()
    wrong = nearest[~nearest["is_same"]]
    worst = wrong.sort_values(["share", "similarity"], ascending=[True, False], kind="stable").index
    drawn = right[np.random.default_rng(seed).permutation(len(right))[:num_right]]
    right_title = f"{len(drawn)} of the {len(right):,} test images whose nearest neighbour is right"
    wrong_title = f"the worst of the {len(wrong):,} whose nearest neighbour is wrong"
    return {right_title: np.sort(drawn).tolist(), wrong_title: worst[:num_wrong].tolist()}


def draw_retrieval(
    images: StoredImages,
    samples: pd.DataFrame,
    neighbours: pd.DataFrame,
    queries: Mapping[str, Sequence[int]],
    num_references: int,
) -> Any:
    """A row per query: the query, then its nearest references, framed by whether they share its label.

    Args:
        images: all images.
        samples: one row per image, with `label` and `class_name`.
        neighbours: as for `choose_queries`.
        queries: rows of `samples` by the title of their section; empty sections are left out.
        num_references: most references shown per query.
    """
    from matplotlib.figure import Figure

    parts = {title: rows for title, rows in queries.items() if rows}
    shown = neighbours[neighbours["rank"] < num_references].sort_values("rank")
    num_columns = 1 + int(shown["rank"].max() + 1)
    heights = [1.45 * len(rows) + 0.5 for rows in parts.values()]
    # At least as wide as its title.
    figure = Figure(figsize=(max(1.3 * num_columns, 8.0), sum(heights) + 0.4), layout="constrained")
    figure.suptitle("Nearest images: blue ✓ for the label of the query, vermillion ✗ for another")
    folds = figure.subfigures(len(parts), squeeze=False, height_ratios=heights)
    for fold, (title, rows) in zip(folds[:, 0], parts.items(), strict=True):
        fold.suptitle(title, fontsize=10)
        for axes, query in zip(fold.subplots(len(rows), num_columns, squeeze=False), rows, strict=True):
            _draw_query(axes, images, samples, query, shown[shown["query"] == query])
    return show_as_written(figure)


def _draw_query(axes: Any, images: Any, samples: pd.DataFrame, query: int, found: pd.DataFrame) -> None:
    names = samples["class_name"]
    _show(axes[0], images[query], f"query\n{drawn_name(names.iloc[query], MAX_LETTERS)}")
    for axis in axes[1 + len(found) :]:
        axis.set_axis_off()
    for axis, reference, similarity in zip(axes[1:], found["reference"], found["similarity"], strict=False):
        is_right = samples["label"].iloc[reference] == samples["label"].iloc[query]
        title = (
            f"{'✓' if is_right else '✗'} {similarity:.3f}\n{drawn_name(names.iloc[reference], MAX_LETTERS)}"
        )
        _show(axis, images[reference], title, RIGHT if is_right else WRONG)


def draw_suspicious(
    images: StoredImages, suspicious: pd.DataFrame, num_shown: int, num_columns: int = 8
) -> Any:
    """The images whose label is most probably wrong, with the suggested class and the suspicion.

    Args:
        images: all images.
        suspicious: most suspicious first, with `sample` (row in `images`), `id`, `split`, `class_name`,
            `suggested_class` and `suspicion` in [0, 1].
        num_shown: most images to show.
        num_columns: columns of the grid.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = suspicious.head(num_shown)
    num_columns = max(1, min(num_columns, len(shown)))
    num_rows = max(1, -(-len(shown) // num_columns))
    # At least as wide as its title.
    figure = Figure(figsize=(max(1.6 * num_columns, 8.0), 2.3 * num_rows + 0.5))
    # Keeps a caption closer to its image than to the next row.
    figure.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.1))
    figure.suptitle(f"Labels to check: {_describe_number(len(shown))}")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for axis, (_, row) in zip(axes, shown.iterrows(), strict=False):
        label, suggested = (drawn_name(row[name], MAX_LETTERS) for name in ("class_name", "suggested_class"))
        _show(axis, images[row["sample"]], f"label {label}\nlike {suggested}")
        note = f"{row['suspicion']:.2f}, {row['split']}\n{_tail(str(row['id']))}"
        axis.set_xlabel(note, fontsize=7)
    return show_as_written(figure)


def draw_pairs(images: StoredImages, samples: pd.DataFrame, pairs: pd.DataFrame, num_shown: int) -> Any:
    """Pairs of images side by side, those in two splits or classes first and framed.

    Args:
        images: all images.
        samples: one row per image, with `id`, `class_name` and `split`.
        pairs: most similar first, with `first` and `second` (rows in `images`) and `similarity`.
        num_shown: most pairs to show.
    """
    from matplotlib.figure import Figure

    first, second = (samples.iloc[pairs[side].to_numpy(dtype=np.int64)] for side in ("first", "second"))
    is_apart = np.zeros(len(pairs), dtype=bool)
    for column in ("split", "class_name"):
        is_apart |= first[column].to_numpy() != second[column].to_numpy()
    order = np.argsort(~is_apart, kind="stable")[:num_shown]
    num_rows = max(1, -(-len(order) // _PAIRS_PER_ROW))
    figure = Figure(figsize=(3.4 * _PAIRS_PER_ROW, 2.4 * num_rows + 0.5), layout="constrained")
    figure.suptitle(_describe_pairs(len(order), len(pairs)))
    axes = figure.subplots(num_rows, 2 * _PAIRS_PER_ROW, squeeze=False).reshape(-1, 2)
    for cells in axes[len(order) :]:
        for axis in cells:
            axis.set_axis_off()
    for cells, place in zip(axes, order, strict=False):
        color, similarity = WRONG if is_apart[place] else None, pairs["similarity"].iloc[place]
        for axis, row in zip(cells, (first.iloc[place], second.iloc[place]), strict=True):
            _show(axis, images[row.name], f"{similarity:.3f}, {row['split']}", color)
            axis.set_xlabel(
                f"{drawn_name(row['class_name'], MAX_LETTERS)}\n{_tail(str(row['id']))}", fontsize=7
            )
    return show_as_written(figure)


def _describe_pairs(num_shown: int, num_pairs: int) -> str:
    if num_pairs == 0:
        return "No near-duplicates were found or looked for (data_prep.near_duplicate_similarity)"
    return f"Near-duplicates: {num_shown:,} of {num_pairs:,} pairs, framed if in two splits or classes"


def _describe_number(num_images: int) -> str:
    if num_images == 0:
        return "no image looks more like another class than like its own"
    if num_images == 1:
        return "the image that looks most like another class"
    return f"the {num_images} images that look most like another class"


def _show(axis: Any, image: Any, title: str, color: str | None = None) -> None:
    """Draw an image, framed if a colour is given."""
    axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=8)
    for spine in axis.spines.values():
        spine.set(visible=color is not None, color=color, linewidth=3)


def _tail(identity: str, length: int = 22) -> str:
    """The end of an id, in which files of one folder differ."""
    end = identity if len(identity) <= length else f"…{identity[1 - length :]}"
    return drawn_name(end, length)
