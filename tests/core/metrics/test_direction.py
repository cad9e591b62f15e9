import numpy as np

from supcon_pipeline.core.metrics.direction import score


def test_a_score_is_up_where_a_metric_is_better_and_lowest_where_it_is_no_number():
    metrics = {"accuracy": 0.8, "log_loss": 0.3, "nothing": float("nan")}
    assert score(metrics, "accuracy") == 0.8
    assert score(metrics, "log_loss") == -0.3
    assert score(metrics, "nothing") == score({"log_loss": float("nan")}, "log_loss") == -np.inf
