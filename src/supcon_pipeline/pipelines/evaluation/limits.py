"""Searches of `evaluation` whose time grows with the square of the images, limited to some of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.class_splits import Search, has_unseen_classes
from supcon_pipeline.core.data.subsets import limit_rows, limit_splits
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters

_WHAT = "are searched for"


def lacks_classes(samples: pd.DataFrame) -> bool:
    """Whether train has none of the classes that are held out."""
    return has_unseen_classes(samples["label"].to_numpy(), samples["split"].to_numpy())


def limit_warnings(num_images: int, is_unseen: bool, params: EvaluationParameters) -> list[str]:
    """What to know of metrics that are not of all test images.

    Args:
        num_images: test images.
        is_unseen: whether train lacks their classes.
        params: with the limits.
    """
    name = "max_compared" if is_unseen else "max_queries"
    limit = getattr(params, name)
    if num_images <= limit:
        return []
    return [
        f"Of {num_images:,} test images, {limit:,} are searched for, drawn by the seed. For all, type: "
        f"kedro run --pipelines evaluation --params evaluation.{name}={num_images}"
    ]


def limit_queries(samples: pd.DataFrame, params: EvaluationParameters, *splits: str) -> pd.DataFrame:
    """The samples with no more of these splits than are searched for; the others are in no split."""
    name = "max_compared" if lacks_classes(samples) else "max_queries"
    limit, seed = getattr(params, name), params.bootstrap.seed
    return limit_splits(samples, splits, limit, seed, _WHAT, f"evaluation.{name}")


def limited_search(samples: pd.DataFrame, params: EvaluationParameters) -> Search:
    """The search of test images of classes that train lacks, for no more than are compared, among all."""
    search = Search.of(samples, "test")
    labels, seed = samples["label"].to_numpy()[search.queries], params.bootstrap.seed
    what, name = f"test images {_WHAT}", "evaluation.max_compared"
    queries = limit_rows(search.queries, labels, params.max_compared, seed, what, name)
    return replace(search, queries=queries)


def limit_checked(samples: pd.DataFrame, params: EvaluationParameters) -> Int[np.ndarray, " m"]:
    """Where the samples are whose labels are checked, of each split and class in proportion."""
    strata = (samples["split"] + " " + samples["label"].astype(str)).to_numpy()
    what, name = "images are checked for wrong labels", "evaluation.max_compared"
    return limit_rows(np.arange(len(samples)), strata, params.max_compared, params.bootstrap.seed, what, name)
