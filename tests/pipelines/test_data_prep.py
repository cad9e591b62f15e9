import numpy as np
import pandas as pd

from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.pipelines.data_prep.nodes import describe_dataset

PARAMS = DataPrepParameters(
    image_size=8, num_channels=1, validation_fraction=0.2, test_fraction=0.2, seed=0, crop="pad",
    num_workers=0, max_rejected=0, on_leakage="refuse", near_duplicate_similarity=None,
)  # fmt: skip
NO_PAIRS = pd.DataFrame({"first": [0], "second": [0]}).iloc[:0]


def hash_of(**columns: list[str]) -> str:
    samples = pd.DataFrame({
        "id": list("abcdef"), "split": ["train", "validation", "test"] * 2, "label": [0] * 3 + [1] * 3,
        "class_name": ["cat"] * 3 + ["dog"] * 3, "source": "x", "pixel_hash": list("abcdef"),
        "duplicate_group": range(6), **columns,
    })  # fmt: skip
    images = np.full((6, 8, 8, 1), 99, np.uint8)
    card = describe_dataset(images, samples, pd.DataFrame(), {}, NO_PAIRS, PARAMS)
    return str(card["data_hash"])


def test_other_categories_are_other_data_and_other_groups_are_not() -> None:
    kinds = hash_of(category=["pet"] * 6)
    assert len({kinds, hash_of(), hash_of(category=["pet"] * 3 + ["wild"] * 3)}) == 3
    assert hash_of(group=["a"] * 6) == hash_of()
