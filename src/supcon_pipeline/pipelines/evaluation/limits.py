"""Searches of `evaluation` whose time grows with the square of the images, limited to some of them."""

import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.class_splits import Search, has_unseen_classes
from supcon_pipeline.core.data.images import rows_of
from supcon_pipeline.core.data.subsets import limit_paired_splits, limit_rows, limit_splits
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters

_WHAT = "are searched for"


def lacks_classes(samples: pd.DataFrame) -> bool:
    """Whether train has none of the classes that are held out."""
    return has_unseen_classes(samples["label"].to_numpy(), samples["split"].to_numpy())


def limit_warnings(samples: pd.DataFrame, params: EvaluationParameters, experiment: str) -> list[str]:
    """What to know of metrics that are not of all test images.

    Args:
        samples: of all splits.
        params: with the limits.
        experiment: whose images they are, for the command that scores all.
    """
    (name, limit), search = _limit_of(samples, params), Search.of(samples, "test")
    num_images = len(rows_of(samples, "test"))
    if num_images <= limit:
        return []
    # Queries may be few enough where the gallery, which is paired with them for verification, is not.
    what = _WHAT if name == "max_queries" or len(search.queries) > limit else "are paired for verification"
    env = "" if experiment == "base" else f"--env {shlex.quote(experiment)} "
    return [
        f"Of {num_images:,} test images, {limit:,} {what}, drawn by the seed. For all, type: "
        f"kedro run {env}--pipelines evaluation --params evaluation.{name}={num_images}"
    ]


def limit_queries(samples: pd.DataFrame, params: EvaluationParameters, *splits: str) -> pd.DataFrame:
    """The samples with no more of these splits than are searched for; the others are in no split."""
    name, limit = _limit_of(samples, params)
    return limit_splits(samples, splits, limit, params.bootstrap.seed, _WHAT, f"evaluation.{name}")


def limit_paired(samples: pd.DataFrame, params: EvaluationParameters, *splits: str) -> pd.DataFrame:
    """The samples with no more of these splits than are paired with one another, at least two of a class."""
    name, limit = _limit_of(samples, params)
    return limit_paired_splits(samples, splits, limit, params.bootstrap.seed, f"evaluation.{name}")


def _limit_of(samples: pd.DataFrame, params: EvaluationParameters) -> tuple[str, int]:
    """The name of the parameter that limits these samples, and its value."""
    name = "max_compared" if lacks_classes(samples) else "max_queries"
    return name, getattr(params, name)


def limited_search(samples: pd.DataFrame, params: EvaluationParameters) -> Search:
    """The search of test images of classes that train lacks, for no more than are compared, among all."""
    from supcon_pipeline.core.metrics.unseen import has_matches

    search, labels = Search.of(samples, "test"), samples["label"].to_numpy()
    if len(search.queries) <= params.max_compared:
        return search
    # A search that cannot be scored would be a draw for nothing.
    queries = search.queries[has_matches(labels, search)]
    limit, seed = params.max_compared, params.bootstrap.seed
    what, name = f"test images {_WHAT}", "evaluation.max_compared"
    return replace(search, queries=limit_rows(queries, labels[queries], limit, seed, what, name))


def limit_checked(samples: pd.DataFrame, params: EvaluationParameters) -> Int[np.ndarray, " m"]:
    """Where the samples are whose labels are checked, of each split and class in proportion."""
    strata = (samples["split"] + " " + samples["label"].astype(str)).to_numpy()
    what, name = "images are checked for wrong labels", "evaluation.max_compared"
    return limit_rows(np.arange(len(samples)), strata, params.max_compared, params.bootstrap.seed, what, name)
