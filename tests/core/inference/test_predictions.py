import math

import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.inference.galleries import gallery_of
from supcon_pipeline.core.inference.predictions import (
    add_classes,
    classify_embeddings,
    find_neighbours,
    neighbour_distances,
    percentiles,
    search_report,
    tabulate_neighbours,
    tabulate_predictions,
)
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.inference import InferenceParameters
from supcon_pipeline.core.search.expansion import expand_queries
from supcon_pipeline.core.search.index import build_index
from supcon_pipeline.core.search.reranking import Reranker


def parameters(**changes):
    knn = {"k": 5, "temperature": 0.1}
    shared = {"path": None, "num_workers": 0, "batch_size": 8, "max_gallery_images": 9}
    return InferenceParameters(**{"num_neighbours": 3, "knn": knn, "distance_k": 4, **shared, **changes})


@pytest.fixture
def samples():
    return pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "split": ["test", "train", "validation", "train"],
            "label": [0, 0, 1, 1],
            "class_name": ["cat", "cat", "dog", "dog"],
        }
    )


def test_the_distance_is_that_to_the_kth_nearest_as_by_hand():
    distances = neighbour_distances(np.array([[1.0, 0.0, -1.0], [1.0000001, 0.5, 0.0]]), 2)
    assert distances == pytest.approx([math.sqrt(2), 1.0])
    assert neighbour_distances(np.array([[1.0000001]]), 1).tolist() == [0]


def test_the_distance_is_that_of_rows_of_length_one_by_a_slow_loop(rng):
    rows = rng.normal(size=(5, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = np.argsort(-(rows[1:] @ rows[0]))
    expected = sorted(math.dist(rows[0], row) for row in rows[1:])[2]
    similarities = (rows[1:] @ rows[0])[order][None]
    assert neighbour_distances(similarities, 3) == pytest.approx([expected])


@pytest.mark.parametrize("k", [0, 3])
def test_a_neighbour_that_was_not_searched_is_refused(k):
    with pytest.raises(ValueError, match=r"k must be from 1 to the number of neighbours \(2\), got"):
        neighbour_distances(np.ones((1, 2)), k)


def test_a_percentile_is_the_share_at_most_as_high_by_a_slow_loop(rng):
    values, known = rng.integers(0, 9, 7), rng.integers(0, 9, 20)
    expected = [100 * sum(other <= value for other in known) / 20 for value in values]
    assert percentiles(values, known) == pytest.approx(expected)
    assert percentiles(np.array([-1, 99]), known).tolist() == [0, 100]


def test_percentiles_among_nothing_are_refused():
    with pytest.raises(ValueError, match="known values must be at least one, got none"):
        percentiles(np.ones(1), np.ones(0))


def test_neighbours_are_rows_of_the_samples_and_training_images_alone(samples):
    rows = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    index = build_index(rows, 10, 2, 1, 1)
    gallery = gallery_of(samples)
    assert gallery["row"].tolist() == [1, 3]
    similarities, found = find_neighbours(index, np.array([[1.0, 0.1]], np.float32), gallery, 2)
    assert found.tolist() == [[1, 0]]
    table = tabulate_neighbours(similarities, found, gallery, 1)
    assert table.columns.tolist() == ["nearest_1_id", "nearest_1_class", "nearest_1_similarity"]
    assert table.iloc[0, :2].tolist() == ["d", "dog"]


def test_an_approximate_index_that_looks_at_all_says_what_an_exact_one_says(rng):
    labels = rng.integers(0, 2, 120)
    samples = pd.DataFrame({"id": [f"image {row}" for row in range(120)], "label": labels})
    samples["split"] = rng.permutation(["train"] * 80 + ["validation"] * 20 + ["test"] * 20)
    samples["class_name"] = np.array(["cat", "dog"])[labels]
    rows = (np.eye(2, 6)[labels] + 0.5 * rng.normal(size=(120, 6))).astype(np.float32)
    params = parameters()
    queries = rng.normal(size=(15, 6)).astype(np.float32)
    reports = []
    for hnsw_above in (80, 0):
        index = build_index(rows[samples["split"] == "train"], hnsw_above, 16, 80, 80)
        is_validation = samples["split"] == "validation"
        known = (rows[is_validation], samples.loc[is_validation, "id"].tolist(), gallery_of(samples))
        reports.append(search_report(index, queries, *known, ["cat", "dog"], 1.0, params))
    pd.testing.assert_frame_equal(*reports, atol=1e-5)
    # Among images that it knows, the nearest is the image itself.
    train = np.flatnonzero(samples["split"] == "train")[:5]
    report = search_report(index, rows[train], *known, ["cat", "dog"], 1.0, params)
    assert report["nearest_1_id"].tolist() == samples["id"].iloc[train].tolist()
    assert report["nearest_1_similarity"].tolist() == pytest.approx([1] * 5, abs=1e-5)


def test_classes_that_train_lacks_are_searched_among_all_images_and_none_finds_itself(rng):
    samples = pd.DataFrame({"id": [f"i{row}" for row in range(40)], "label": np.arange(40) // 10})
    samples["split"] = np.array(["train", "train", "validation", "test"])[samples["label"]]
    samples["class_name"] = np.array(list("abcd"))[samples["label"]]
    rows = rng.normal(size=(40, 6)).astype(np.float32)
    index = build_index(rows, 100, 2, 1, 1)
    params = parameters(num_neighbours=1, knn={"k": 1, "temperature": 0.1}, distance_k=1)
    known = (rows[20:30], samples["id"][20:30].tolist(), gallery_of(samples), list("abcd"), 1.0)
    # As far away as the validation image that is farthest from all others.
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    farthest = cosines[20:30].max(axis=1).min()
    report = search_report(index, rows[30:], *known, params, farthest)
    # A test image is in the index; its own percentile is that of distance 0.
    assert report["nearest_1_id"].tolist() == samples["id"][30:].tolist()
    assert report["distance_percentile"].max() == 0
    assert not report["is_unknown"].any()
    # An image has no more others than all that are searched but itself.
    for most in (39, 40):
        last = search_report(index, rows[30:], *known, parameters(distance_k=most), farthest)
        expected = np.sqrt(2 - 2 * np.sort(unit[30:] @ unit.T, axis=1)[:, 1])
        np.testing.assert_allclose(last["distance"], expected, atol=1e-5)
    other = search_report(index, -rows[30:], *known, params, farthest)
    expected = (-unit[30:] @ unit.T).max(axis=1) < farthest
    assert other["is_unknown"].tolist() == expected.tolist()


@pytest.mark.parametrize("hnsw_above", [40, 0])
def test_re_ranking_and_expansion_change_the_nearest_and_nothing_else(rng, hnsw_above):
    labels = np.arange(40) % 4
    samples = pd.DataFrame({"id": [f"i{row}" for row in range(40)], "label": labels})
    samples["split"] = ["train"] * 30 + ["validation"] * 10
    samples["class_name"] = np.array(list("abcd"))[labels]
    rows = (np.eye(4, 6)[labels] + 0.6 * rng.normal(size=(40, 6))).astype(np.float32)
    queries = (np.eye(4, 6)[labels[:8]] + 0.6 * rng.normal(size=(8, 6))).astype(np.float32)
    index = build_index(rows[:30], hnsw_above, 16, 80, 80)
    known = (rows[30:], samples["id"][30:].tolist(), gallery_of(samples), list("abcd"), 1.0)
    plain, reranking, expansion = (
        parameters(**options)
        for options in ({}, {"reranking": {"k1": 6, "k2": 3}}, {"query_expansion": {"k": 4}})
    )
    as_before = search_report(index, queries, *known, plain)
    nearest = [name for name in as_before if name.startswith("nearest")]
    everything, new = np.concatenate([rows[:30], queries]), np.arange(30, 38)
    unit = rows[:30] / np.linalg.norm(rows[:30], axis=1, keepdims=True)
    expected = {
        "reranking": Reranker(everything, new, np.arange(30), 6, 3, 0.3).similarities(new),
        "query_expansion": expand_queries(everything, new, np.arange(30), 4) @ unit.T,
    }
    for name, params in (("reranking", reranking), ("query_expansion", expansion)):
        report = search_report(index, queries, *known, params)
        pd.testing.assert_frame_equal(report.drop(columns=nearest), as_before.drop(columns=nearest))
        order = np.argsort(-expected[name], axis=1)[:, :3]
        for rank in range(3):
            ids = samples["id"].to_numpy()[order[:, rank]]
            assert report[f"nearest_{rank + 1}_id"].tolist() == ids.tolist()
            assert report[f"nearest_{rank + 1}_similarity"].tolist() == pytest.approx(
                expected[name][np.arange(8), order[:, rank]], abs=1e-5
            )
        assert not report[nearest].equals(as_before[nearest])


def test_an_index_of_other_images_is_refused(samples):
    index = build_index(np.eye(3, dtype=np.float32), 10, 2, 1, 1)
    with pytest.raises(
        ValueError,
        match=r"train_index must hold the 2 images that are searched, got 3; type: .* --pipelines index",
    ):
        find_neighbours(index, np.ones((1, 3), np.float32), gallery_of(samples), 1)


def test_a_temperature_changes_the_probability_and_not_the_class():
    table, logits = pd.DataFrame({"image": ["a"], "knn_class": ["x"]}), torch.tensor([[2.0, 0.0]])
    for temperature in (1.0, 4.0):
        (row,) = add_classes(table, logits, temperature, ["cat", "dog"]).to_dict("records")
        assert list(row) == ["image", "classifier_class", "classifier_probability", "knn_class"]
        assert row["classifier_class"] == "cat"
        assert row["classifier_probability"] == pytest.approx(1 / (1 + math.exp(-2 / temperature)))


@pytest.fixture
def classifier():
    weights = {
        "weight": torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        "bias": torch.tensor([0.0, 0.0, 9.0]),
    }
    model = {"kind": "classifier", "num_features": 2, "num_classes": 3}
    return NamedTensors(weights, {"model": model, "encoder_hash": "this encoder"})


def test_the_logits_of_embeddings_are_as_by_hand(classifier):
    logits = classify_embeddings(classifier, np.array([[3.0, 5.0]], np.float32), "this encoder")
    assert logits.tolist() == [[3.0, 10.0, 17.0]]


def test_embeddings_of_another_encoder_are_not_classified(classifier):
    with pytest.raises(
        ValueError, match="encoder_hash of the classifier must be another enco, got this encoder"
    ):
        classify_embeddings(classifier, np.zeros((1, 2), np.float32), "another encoder")


def test_the_likeliest_class_stands_beside_each_sample(samples):
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    table = tabulate_predictions(samples.iloc[1:3], logits, ["cat", "dog"])
    assert table["id"].tolist() == ["b", "c"]
    assert table["predicted"].tolist() == [1, 0]
    assert table["predicted_class"].tolist() == ["dog", "cat"]
    assert table["probability"].tolist() == pytest.approx([0.75, 0.8])
