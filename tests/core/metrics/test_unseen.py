import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.neighbors import NearestNeighbors

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.metrics.unseen import (
    has_matches,
    unseen_feature_metrics,
    unseen_metrics,
    unseen_pixel_metrics,
    unseen_values,
)

ALL = np.arange(60)
AMONG = Search(ALL, ALL, ALL)
BOOTSTRAP = {"num_resamples": 50, "seed": 0}


def score(rows, labels, search, ks):
    values = unseen_values(rows, labels, search, ks)
    return unseen_feature_metrics(values, rows, labels, search, **BOOTSTRAP)


@pytest.fixture
def rows(rng):
    """Sixty noisy rows of ten classes."""
    labels = rng.permutation(np.repeat(np.arange(10), 6))
    return (np.eye(10, 16)[labels] + 0.4 * rng.normal(size=(60, 16))).astype(np.float32), labels


def test_rows_that_search_one_another_score_as_in_pytorch_metric_learning(rows):
    embeddings, labels = rows
    names = {
        "precision_at_1": "precision_at_1",
        "r_precision": "r_precision",
        "mean_average_precision_at_r": "mean_average_precision_at_r",
    }
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = AccuracyCalculator(include=tuple(names.values()), k="max_bin_count").get_accuracy(
        unit, labels, unit, labels, ref_includes_query=True
    )
    found = unseen_metrics(embeddings, labels, np.arange(60))
    for name, theirs in names.items():
        assert found[name] == pytest.approx(expected[theirs], abs=1e-6)
    metrics = score(embeddings, labels, AMONG, (1, 4))
    assert metrics["recall_at_1"] == found["precision_at_1"]
    assert metrics["mean_average_precision_at_r"] == found["mean_average_precision_at_r"]


def test_recall_rises_with_k_and_a_k_above_the_other_images_is_left_out(rows):
    embeddings, labels = rows
    metrics = score(embeddings, labels, AMONG, (1, 5, 59, 60))
    recalls = [metrics[f"recall_at_{k}"] for k in (1, 5, 59)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1
    assert "recall_at_60" not in metrics
    # What is asked for first stands first.
    assert list(metrics)[:3] == ["recall_at_1", "recall_at_5", "recall_at_59"]
    assert not any(name.startswith("precision_at") for name in metrics)
    for name, (low, high) in metrics["intervals"].items():
        assert low <= metrics[name] <= high


def test_copies_do_not_find_each_other(rows):
    embeddings, labels = rows
    doubled, both = np.concatenate([embeddings, embeddings]), np.concatenate([labels, labels])
    copies = np.tile(np.arange(60), 2)
    assert unseen_metrics(doubled, both, np.arange(120))["precision_at_1"] == 1
    once = unseen_metrics(embeddings, labels, np.arange(60))["precision_at_1"]
    assert unseen_metrics(doubled, both, copies)["precision_at_1"] == once < 1


def test_queries_are_searched_in_the_gallery_without_those_of_their_group(rows):
    embeddings, labels = rows
    queries, gallery = ALL[:20], ALL[20:]
    groups = np.where(ALL % 4 == 0, labels, 100 + ALL)
    search = Search(queries, gallery, ALL, groups)
    metrics = score(embeddings, labels, search, (1,))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    hits = []
    for query in queries:
        candidates = [row for row in gallery if groups[row] != groups[query]]
        if any(labels[row] == labels[query] for row in candidates):
            nearest = max(candidates, key=lambda row: unit[row] @ unit[query])
            hits.append(labels[nearest] == labels[query])
    assert metrics["recall_at_1"] == pytest.approx(np.mean(hits))


def test_pixels_are_searched_as_scikit_learn_does(rng):
    pixels = rng.integers(0, 256, (40, 12), dtype=np.uint8)
    labels, test = rng.integers(0, 4, 40), np.arange(10, 40)
    _, nearest = NearestNeighbors(n_neighbors=2).fit(pixels[test].astype(float)).kneighbors()
    expected = np.mean(labels[test] == labels[test][nearest[:, 0]])
    found = unseen_pixel_metrics(pixels, labels, Search(test, test, np.arange(40)), **BOOTSTRAP)
    assert found["recall_at_1"] == pytest.approx(expected)
    assert set(found["intervals"]) == {"recall_at_1"}


def test_a_query_has_matches_if_one_of_its_class_may_be_found():
    labels, copies = np.array([0, 0, 1, 1, 2, 3, 3, 3]), np.array([5, 6, 7, 7, 5, 8, 8, 9])
    rows = np.arange(8)
    found = has_matches(labels, Search(rows, rows, copies))
    assert found.tolist() == [True, True, False, False, False, True, True, True]
    assert has_matches(labels, Search(rows[:2], rows[1:])).tolist() == [True, True]
    groups = np.array([1, 1, 2, 3, 4, 5, 6, 7])
    assert has_matches(labels, Search(rows, rows, rows, groups)).tolist() == [
        *(False, False, True, True, False, True, True, True)
    ]


def test_classes_of_one_image_are_not_scored_but_searched():
    rows = np.array([[1, 0], [0.9, 0.1], [0.99, 0.01]], np.float32)
    labels, copies = np.array([0, 0, 1]), np.arange(3)
    # The nearest of both is the third, for which nothing can be found.
    assert unseen_metrics(rows, labels, copies)["precision_at_1"] == 0
    with pytest.raises(ValueError, match="quer"):
        unseen_metrics(rows, np.arange(3), copies)
