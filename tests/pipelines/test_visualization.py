import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.figures.interactive import draw_interactive_tsne
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.visualization import VisualizationParameters
from supcon_pipeline.pipelines.visualization.nodes import (
    draw_embedding_map,
    draw_interactive_map,
    draw_retrieval_gallery,
    map_embeddings,
)

PARAMS = VisualizationParameters.model_validate(
    {
        "tsne": {"perplexity": 5, "num_iterations": 500, "seeds": [0], "max_points": 40, "num_jobs": 1},
        "gallery": {
            "num_right": 1,
            "num_wrong": 1,
            "num_references": 1,
            "num_suspicious": 1,
            "num_near_duplicates": 1,
            "seed": 0,
        },
    }
)


def test_images_that_were_removed_from_all_splits_are_on_no_map():
    splits = np.array(["removed", "train", "validation", "test"] * 15)
    samples = pd.DataFrame({"id": [f"i{row}" for row in range(60)], "split": splits, "label": [0, 1] * 30})
    samples["class_name"] = np.array(["a", "b"])[samples["label"]]
    embeddings = NamedTensors({"embedding": torch.randn(60, 4)}, {"sample_ids": samples["id"].tolist()})
    predictions = pd.DataFrame({"id": ["i3"], "predicted_class": ["a"]})
    points = map_embeddings(embeddings, embeddings, samples, predictions, predictions, PARAMS)
    assert sorted(points["split"].unique()) == ["test", "train", "validation"]
    assert len(points) == 2 * 40
    assert points.loc[points["id"] == "i3", "predicted_class"].eq("a").all()
    assert draw_interactive_tsne(points, ["a", "b"], {"train": 15, "validation": 15, "test": 15}).data


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_maps_of_an_encoder_that_has_collapsed_are_drawn(value):
    splits = np.array(["train", "validation", "test"] * 20)
    samples = pd.DataFrame({"id": [f"i{row}" for row in range(60)], "split": splits, "label": [0, 1] * 30})
    samples["class_name"] = np.array(["a", "b"])[samples["label"]]
    origin = {"sample_ids": samples["id"].tolist()}
    embeddings = NamedTensors({"embedding": torch.full((60, 4), value)}, origin)
    predictions = pd.DataFrame({"id": ["i2"], "predicted_class": ["a"]})
    points = map_embeddings(embeddings, embeddings, samples, predictions, predictions, PARAMS)
    assert (points[["x", "y"]] == 0).all(axis=None)
    card = {"class_names": ["a", "b"], "counts": {split: {"a": 10, "b": 10} for split in np.unique(splits)}}
    draw_embedding_map(points, card).draw_without_rendering()
    assert draw_interactive_map(points, card).data


def test_every_seed_has_a_map_of_its_own_of_the_same_images_in_the_menu():
    splits = np.array(["train", "validation", "test"] * 20)
    samples = pd.DataFrame({"id": [f"i{row}" for row in range(60)], "split": splits, "label": [0, 1] * 30})
    samples["class_name"] = np.array(["a", "b"])[samples["label"]]
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    embeddings = NamedTensors({"embedding": rows}, {"sample_ids": samples["id"].tolist()})
    predictions = pd.DataFrame({"id": ["i2"], "predicted_class": ["a"]})
    params = PARAMS.model_copy(update={"tsne": PARAMS.tsne.model_copy(update={"seeds": [3, 5]})})
    points = map_embeddings(embeddings, embeddings, samples, predictions, predictions, params)
    first, second = (points[points["seed"] == seed].reset_index(drop=True) for seed in (3, 5))
    assert len(first) == 2 * 40
    assert first["id"].equals(second["id"])
    assert not np.allclose(first[["x", "y"]], second[["x", "y"]])
    figure = draw_interactive_tsne(points, ["a", "b"], {"train": 20, "validation": 20, "test": 20})
    labels = [button.label for button in figure.layout.updatemenus[0].buttons]
    assert [label for label in labels if label.startswith("test")] == ["test, seed 3", "test, seed 5"]


@pytest.mark.parametrize(
    ("group", "num_wrong"),
    # Images of one class and group do not find each other.
    [("", 4), ("x", 2)],
)
def test_images_for_which_nothing_can_be_found_are_no_failures_of_the_gallery(group, num_wrong):
    samples = pd.DataFrame({"class_name": list("aabbcc"), "label": [0, 0, 1, 1, 2, 2]})
    samples = samples.assign(split=["train"] * 2 + ["test"] * 4, duplicate_group=range(6))
    samples["group"] = ["", "", "", "", group, group]
    neighbours = pd.DataFrame(
        {"query": [2, 3, 4, 5], "reference": [4, 4, 2, 2], "rank": 0, "similarity": 0.5}
    )
    images = np.zeros((6, 4, 4, 3), dtype=np.uint8)
    (fold,) = draw_retrieval_gallery(neighbours, samples, images, PARAMS).subfigs
    assert fold.get_suptitle() == f"the worst of the {num_wrong} whose nearest neighbour is wrong"
    alone = neighbours.iloc[2:]
    assert draw_retrieval_gallery(alone, samples, images, PARAMS).subfigs
