import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supcon_pipeline.core.metrics.detection import detection_metrics

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


def test_the_values_of_scores_made_by_hand():
    inside, outside = np.arange(1.0, 21.0), np.array([0.0, 19.0, 19.5, 30.0])
    # 19 lets 95 % of the twenty pass, and two of the four; of the 80 pairs, 0, 18.5, 19 and 20 are in order.
    found = detection_metrics(inside, outside)
    assert found == {"auroc": pytest.approx(57.5 / 80), "fpr_at_95_tpr": 0.5}


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order(inside, outside):
    pairs = [(o > i) + (o == i) / 2 for o in outside for i in inside]
    assert detection_metrics(np.array(inside), np.array(outside))["auroc"] == pytest.approx(np.mean(pairs))


@given(SCORES, SCORES)
def test_the_threshold_lets_95_percent_pass_and_no_lower_one_does(inside, outside):
    lowest = next(t for t in sorted(inside) if np.mean(np.array(inside) <= t) >= 0.95)
    found = detection_metrics(np.array(inside), np.array(outside))
    assert found["fpr_at_95_tpr"] == np.mean(np.array(outside) <= lowest)


def test_only_the_order_counts(rng):
    inside, outside = rng.normal(size=50), rng.normal(1, size=40)
    assert detection_metrics(np.exp(inside), np.exp(outside)) == detection_metrics(inside, outside)


@pytest.mark.parametrize(("inside", "outside"), [([], [1.0]), ([1.0], [])])
def test_scores_of_one_kind_alone_are_refused(inside, outside):
    with pytest.raises(ValueError, match=r"scores must be of both kinds, got \d inside, \d outside"):
        detection_metrics(np.array(inside), np.array(outside))
