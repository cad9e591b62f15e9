import inspect
import logging
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.base import QueryExpansionParameters, RerankingParameters
from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.pipelines.evaluation import classifiers, evidence, features, nodes
from supcon_pipeline.pipelines.evaluation.nodes import score_pixels
from supcon_pipeline.pipelines.index.nodes import index_embeddings

CARD = {"class_names": ["a", "b", "c"]}


@pytest.mark.parametrize(
    "node",
    [
        features.score_features,
        classifiers.score_learning_curve,
        evidence.find_neighbours,
        evidence.find_suspicious_labels,
        classifiers.predict_samples,
        classifiers.predict_baseline,
        classifiers.score_classifier,
        classifiers.score_own_logits,
        classifiers.score_knn,
        nodes.score_without_near_duplicates,
        index_embeddings,
    ],
)
def test_samples_in_another_order_than_the_embeddings_are_refused(node, embeddings, samples, params):
    parts = {"embeddings": embeddings, "baseline_embeddings": embeddings, "dataset_card": CARD}
    parts |= {
        "classifier": None,
        "embedding_duplicates": None,
        "params": params,
        "samples": samples.iloc[::-1].reset_index(drop=True),
    }
    names = inspect.signature(node).parameters
    with pytest.raises(ValueError, match=r"must have sample 'image 59' at row 0, .*, got 'image 0'"):
        node(**{name: parts[name] for name in names})


def test_images_that_were_removed_from_all_splits_are_not_suspicious(embeddings, samples, params):
    # A wrong label of an image in use, and of one that was removed.
    samples.loc[[31, 40], "label"] = (samples.loc[[31, 40], "label"] + 1) % 3
    suspected = evidence.find_suspicious_labels(embeddings, samples, CARD, params)
    assert sorted(suspected["sample"]) == [31, 40]
    samples.loc[[3, 40], "split"] = "removed"
    suspected = evidence.find_suspicious_labels(embeddings, samples, CARD, params)
    assert suspected[["sample", "id"]].to_numpy().tolist() == [[31, "image 31"]]
    assert suspected["suggested"].tolist() == [(samples["label"][31] - 1) % 3]


def test_pixels_of_photographs_are_compared_at_32_pixels(rng, params, samples, monkeypatch):
    from supcon_pipeline.core.search import neighbours

    compared, find_nearest = [], neighbours.find_nearest
    monkeypatch.setattr(
        neighbours, "find_nearest", lambda rows, *others: compared.append(rows) or find_nearest(rows, *others)
    )
    small = rng.integers(0, 256, (60, 32, 32, 1), dtype=np.uint8)
    # A chessboard on top, whose mean is nothing.
    grain = 40 * (1 - 2 * (np.indices((64, 64)).sum(axis=0) % 2))[:, :, None]
    large = np.clip(small.repeat(2, axis=1).repeat(2, axis=2), 40, 215).astype(int) + grain
    scores = [
        score_pixels(images, samples, params) for images in (np.clip(small, 40, 215), large.astype(np.uint8))
    ]
    assert scores[0] == scores[1]
    assert [rows.shape for rows in compared] == [(60, 1024)] * 2


def test_known_classes_are_searched_in_the_other_ways_too(embeddings, samples, params):
    asked = params.model_copy(
        update={"reranking": RerankingParameters(), "query_expansion": QueryExpansionParameters()}
    )
    plain, scores = features.score_features(embeddings, samples, params)
    found, also = features.score_features(embeddings, samples, asked)
    assert set(found) - set(plain) == {"reranked", "expanded"}
    assert {name: found[name] for name in plain} == plain
    pd.testing.assert_frame_equal(scores, also)
    retrieved = [name for name in plain["embedding"]["intervals"] if not name.startswith("knn")]
    for name in ("reranked", "expanded"):
        assert set(found[name]) == {*retrieved, "intervals"}
        assert set(found[name]["intervals"]) == set(retrieved)


def test_test_images_with_a_duplicate_in_train_are_left_out_of_the_metrics_without_them(
    embeddings, samples, params, monkeypatch
):
    scored = []
    monkeypatch.setattr(
        nodes, "score_classifier", lambda _, __, others, *___: scored.append(others) or {"calibrated": {}}
    )
    score = partial(nodes.score_without_near_duplicates, embeddings, None)
    none = pd.DataFrame({"first": []})
    assert score(samples, none, CARD, params) == {}
    # A test image like one of train, two like one of validation and one another.
    samples.loc[1, "duplicate_group"] = 0
    samples.loc[[4, 7], "duplicate_group"] = 2
    found = score(samples, none, CARD, params)
    assert (found["num_images"], found["num_left_out"]) == (19, 1)
    assert scored[0].loc[scored[0]["split"] == "test", "id"].tolist() == samples["id"][4::3].tolist()
    expected, _ = features.score_features(
        embeddings, samples.assign(split=samples["split"].mask(samples.index == 1)), params
    )
    assert found["embedding"] == expected["embedding"]
    # And one that the embedding led to.
    assert score(samples, pd.DataFrame({"first": [10]}), CARD, params)["num_left_out"] == 2
    samples.loc[samples["split"] == "test", "duplicate_group"] = 0
    assert score(samples, none, CARD, params) == {}


def test_the_embedding_leads_to_mirrored_copies_that_the_pixels_confirm(rng, samples):
    from scipy.ndimage import gaussian_filter

    images = gaussian_filter(rng.normal(size=(60, 32, 32, 1)), (0, 2, 2, 0)) * 400 + 128
    images = np.clip(images, 0, 255).astype(np.uint8)
    # Test images: one is a mirrored copy, one is known to be a copy, one is too far in the embedding.
    for row in (1, 4, 7):
        images[row] = images[0][:, ::-1]
    samples.loc[4, "duplicate_group"] = 0
    table = {
        "query": [1, 4, 7, 10],
        "reference": [0, 0, 0, 0],
        "similarity": [0.99, 0.99, 0.5, 0.99],
        "rank": 0,
    }
    data_params = DataPrepParameters.model_construct(near_duplicate_similarity=0.95)
    found = evidence.find_embedding_duplicates(pd.DataFrame(table), samples, images, data_params)
    assert found[["first_id", "second_id", "is_mirrored"]].to_numpy().tolist() == [
        ["image 1", "image 0", True]
    ]


def _same(one, other):
    return one[0] == other[0] and one[1].equals(other[1])


@pytest.mark.parametrize("is_unseen", [False, True])
def test_metrics_are_the_means_of_the_scores_of_each_query(embeddings, samples, params, is_unseen):
    samples["label"] += 3 * (is_unseen & (samples["split"] != "train"))
    metrics, scores = features.score_features(embeddings, samples, params)
    assert scores.pop("row").tolist() == samples.index[samples["split"] == "test"].tolist()
    assert {"recall_at_1" if is_unseen else "knn_accuracy", "mean_average_precision_at_r"} < set(scores)
    means = {name: value for name, value in scores.mean().items() if name in metrics["embedding"]}
    assert means == pytest.approx({name: metrics["embedding"][name] for name in means})


@pytest.mark.parametrize("is_unseen", [False, True])
def test_models_are_compared_image_by_image(rng, embeddings, samples, params, is_unseen):
    samples["label"] += 3 * (is_unseen & (samples["split"] != "train"))
    noise = torch.tensor(rng.normal(size=(60, 6)), dtype=torch.float32)
    worse = NamedTensors({"embedding": embeddings.tensors["embedding"] + noise}, embeddings.metadata)
    (metrics, scores), (others, other) = (
        features.score_features(each, samples, params) for each in (embeddings, worse)
    )
    gains = features.compare_models(scores, other, pd.DataFrame(), samples, params)
    assert gains.keys() == {"baseline"}
    for name in ("recall_at_1" if is_unseen else "precision_at_1", "mean_average_precision_at_r"):
        expected = metrics["embedding"][name] - others["embedding"][name]
        assert gains["baseline"][name] == pytest.approx(expected)
        low, high = gains["baseline"]["intervals"][name]
        assert low <= gains["baseline"][name] <= high
    both = features.compare_models(scores, other, scores, samples, params)
    assert both["published"]["mean_average_precision_at_r"] == 0


def test_models_scored_on_other_test_images_are_not_compared(embeddings, samples, params):
    _, scores = features.score_features(embeddings, samples, params)
    _, few = features.score_features(embeddings, samples, params.model_copy(update={"max_queries": 6}))
    with pytest.raises(InputError, match=r"^baseline_query_scores must be of the 20 .*, got 6; type: kedro"):
        features.compare_models(scores, few, pd.DataFrame(), samples, params)


def test_a_split_within_the_limits_is_searched_for_whole(embeddings, samples, params):
    exact = params.model_copy(update={"max_queries": 20, "max_compared": 60})
    assert _same(*(features.score_features(embeddings, samples, each) for each in (exact, params)))
    verified = (nodes.score_verification(embeddings, samples, each) for each in (exact, params))
    assert next(verified) == next(verified)
    for find in (evidence.find_neighbours, partial(evidence.find_suspicious_labels, dataset_card=CARD)):
        found = find(embeddings=embeddings, samples=samples, params=exact)
        assert found.equals(find(embeddings=embeddings, samples=samples, params=params))


def test_more_test_images_than_the_limit_are_searched_for_by_a_sample_and_one_line_says_so(
    embeddings, samples, params, caplog
):
    few = params.model_copy(update={"max_queries": 6})
    with caplog.at_level(logging.INFO):
        found = evidence.find_neighbours(embeddings, samples, few)
    assert [record.getMessage() for record in caplog.records] == [
        "6 of 20 test images are searched for (evaluation.max_queries), drawn by seed 0"
    ]
    queries = found["query"].unique()
    assert len(queries) == 6
    assert set(samples["split"][queries]) == {"test"}
    # All of train is searched still, and every metric is of the same images.
    rest = samples.assign(
        split=samples["split"].mask(~samples.index.isin(queries) & (samples["split"] == "test"))
    )
    everyone = evidence.find_neighbours(embeddings, samples, params)
    assert found.equals(everyone[everyone["query"].isin(queries)].reset_index(drop=True))
    of_few, of_rest = (embeddings, samples, few), (embeddings, rest, params)
    assert _same(features.score_features(*of_few), features.score_features(*of_rest))
    curves = (classifiers.score_learning_curve(*parts) for parts in (of_few, of_rest))
    assert np.array_equal(*curves)


def test_the_calibration_of_votes_is_limited_as_their_scores_are(embeddings, samples, params, caplog):
    few = params.model_copy(update={"max_queries": 6})
    card = {**CARD, "counts": {"train": dict.fromkeys("abc", 6)}}
    with caplog.at_level(logging.INFO):
        scores = classifiers.score_knn(embeddings, samples, card, few)
    assert sum(scores["reliability"]["count"]) == 6
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "6 of 20 validation images are searched for",
        "6 of 20 test images are searched for",
    ]
    # What costs no search is of all images.
    assert sum(classifiers.score_own_logits(embeddings, samples, card, few)["reliability"]["count"]) == 20


def test_pixels_of_a_sample_are_compared_with_all_of_train(rng, samples, params, monkeypatch):
    from supcon_pipeline.core.search import neighbours

    compared, find_nearest = [], neighbours.find_nearest
    monkeypatch.setattr(
        neighbours, "find_nearest", lambda *parts: compared.append(parts) or find_nearest(*parts)
    )
    images = rng.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    score_pixels(images, samples, params.model_copy(update={"max_queries": 6}))
    assert [len(rows) for rows in compared[0][1:]] == [6, 20]


def test_labels_of_a_sample_of_all_splits_are_checked_by_all_of_train(embeddings, samples, params, caplog):
    samples["label"] = (samples["label"] + 1) % 3
    with caplog.at_level(logging.INFO):
        some = evidence.find_suspicious_labels(
            embeddings, samples, CARD, params.model_copy(update={"max_compared": 30, "num_suspicious": 60})
        )
    assert [record.getMessage() for record in caplog.records] == [
        "30 of 60 images are checked for wrong labels (evaluation.max_compared), drawn by seed 0"
    ]
    everyone = evidence.find_suspicious_labels(
        embeddings, samples, CARD, params.model_copy(update={"num_suspicious": 60})
    )
    assert some.equals(everyone[everyone["sample"].isin(some["sample"])].reset_index(drop=True))


def test_images_of_classes_that_train_lacks_are_drawn_but_all_are_searched(
    embeddings, samples, params, caplog
):
    label = samples["label"] + 3 * (samples["split"] != "train")
    unseen = samples.assign(label=label)
    few = params.model_copy(update={"max_queries": 1, "max_compared": 6})
    with caplog.at_level(logging.INFO):
        found = evidence.find_neighbours(embeddings, unseen, few)
    assert [record.getMessage() for record in caplog.records] == [
        "6 of 20 test images are searched for (evaluation.max_compared), drawn by seed 0"
    ]
    everyone = evidence.find_neighbours(embeddings, unseen, params)
    assert found["query"].nunique() == 6
    assert found.equals(everyone[everyone["query"].isin(found["query"])].reset_index(drop=True))
    metrics, scores = features.score_features(embeddings, unseen, few)
    assert metrics.keys() == {"embedding"}
    assert scores["row"].tolist() == sorted(found["query"].unique())
