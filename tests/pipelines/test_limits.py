import numpy as np
import pytest

from supcon_pipeline.core.parameters.base import QueryExpansionParameters
from supcon_pipeline.pipelines.evaluation import features, nodes
from supcon_pipeline.pipelines.evaluation.limits import limit_warnings, limited_search


@pytest.mark.parametrize(("is_unseen", "name"), [(False, "max_queries"), (True, "max_compared")])
def test_metrics_of_a_part_of_the_test_images_come_with_a_warning(samples, params, is_unseen, name):
    samples["label"] += 3 * (is_unseen & (samples["split"] != "train"))
    assert limit_warnings(samples, params.model_copy(update={name: 20}), "base") == []
    (warning,) = limit_warnings(samples, params.model_copy(update={name: 7}), "base")
    assert warning.startswith("Of 20 test images, 7 are searched for")
    assert warning.endswith(f"kedro run --pipelines evaluation --params evaluation.{name}=20")
    (other,) = limit_warnings(samples, params.model_copy(update={name: 7}), "my own")
    assert "kedro run --env 'my own' --pipelines evaluation" in other


def test_queries_within_a_limit_that_the_gallery_exceeds_are_not_said_to_be_drawn(samples, params):
    samples["label"] += 3 * (samples["split"] != "train")
    roles = samples.assign(role=np.where(np.arange(60) < 15, "query", "gallery"))
    limited = params.model_copy(update={"max_compared": 7})
    assert len(limited_search(roles, limited).queries) == 5
    (warning,) = limit_warnings(roles, limited, "base")
    assert warning.startswith("Of 20 test images, 7 are paired for verification, drawn by the seed")
    assert "7 are searched for" in limit_warnings(samples, limited, "base")[0]


def test_no_query_is_drawn_that_nothing_can_be_found_for(embeddings, samples, params):
    # All test images but two are alone in their class, so that a draw by class may miss those two.
    test = samples.index[samples["split"] == "test"]
    samples.loc[samples["split"] == "validation", "label"] += 3
    samples.loc[test, "label"] = [6, 6, *range(7, 25)]
    one = params.model_copy(update={"max_compared": 1})
    metrics, scores = features.score_features(embeddings, samples, one)
    assert scores["row"].isin(test[:2]).tolist() == [True]
    assert metrics["embedding"]["recall_at_1"] == scores["recall_at_1"].item()


@pytest.mark.parametrize(("is_unseen", "name"), [(False, "max_queries"), (True, "max_compared")])
def test_a_limit_no_higher_than_the_number_of_classes_leaves_pairs_to_verify(
    embeddings, samples, params, is_unseen, name
):
    # Ten classes of two images in test and in validation.
    samples = samples.assign(label=np.arange(60) // 3 % 10 if not is_unseen else 0)
    for number, split in enumerate(("validation", "test")):
        if is_unseen:
            samples.loc[samples["split"] == split, "label"] = 1 + 10 * number + np.arange(20) // 2
    report = nodes.score_verification(embeddings, samples, params.model_copy(update={name: 6}))
    assert {"auc", "threshold", "validation", "test"} <= report.keys()
    assert is_unseen == ("unknown" in report)
    assert not is_unseen or "false_reject_rate" in report["unknown"]


@pytest.mark.parametrize("ks", [(), (3,), (1, 3)])
def test_the_first_rank_is_scored_for_the_headlines_whatever_ranks_are_asked_for(
    embeddings, samples, params, ks
):
    samples["label"] += 3 * (samples["split"] != "train")
    asked = {"recall_ks": ks, "query_expansion": QueryExpansionParameters()}
    metrics, _ = features.score_features(embeddings, samples, params.model_copy(update=asked))
    for group in ("embedding", "expanded"):
        names = [name for name in metrics[group] if name.startswith("recall_at_")]
        assert names == [f"recall_at_{k}" for k in sorted({1, *ks})]
