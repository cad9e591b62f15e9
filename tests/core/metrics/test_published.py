import pytest

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.published import require_start, start_warnings, untrained_warnings

FILE = {"name": "resnet18", "stem": "imagenet", "pretrained": False, "weights": "a.pth"}
SCRATCH = {**FILE, "weights": None}


def metrics(precision, map_at_r, knn, accuracy):
    return {
        "embedding": {
            "precision_at_1": precision,
            "mean_average_precision_at_r": map_at_r,
            "knn_accuracy": knn,
        },
        "classifier": {"accuracy": accuracy},
    }


def test_a_training_from_scratch_has_no_start_to_be_compared_with():
    assert start_warnings(metrics(0.5, 0.5, 0.5, 0.5)) == []


def test_what_a_training_has_not_gained_is_named_with_both_numbers():
    trained = {**metrics(0.9, 0.8, 0.95, 0.91), "published": metrics(0.93, 0.5, 0.95, 0.9)}
    (warning,) = start_warnings(trained)
    assert "precision@1 0.9000 against 0.9300, k-NN accuracy 0.9500 against 0.9500." in warning
    assert "Try a lower stage1.optimizer.lr" in warning


def test_a_training_that_gained_everywhere_or_had_nothing_to_gain_is_not_warned_of():
    assert start_warnings({**metrics(0.94, 0.8, 1.0, 0.91), "published": metrics(0.93, 0.5, 1.0, 0.9)}) == []


def test_a_model_that_is_the_start_of_its_training_is_warned_of_though_it_is_ahead():
    trained, start = {"averaged_epochs": [4]}, {"averaged_epochs": [0]}
    assert untrained_warnings({"encoder": trained, "classifier": start, "baseline": trained}) == []
    assert untrained_warnings({"encoder": {"averaged_epochs": [0, 4]}}) == []
    of_encoder, of_baseline = untrained_warnings({"encoder": start, "baseline": start})
    assert of_encoder.startswith("No epoch of stage1 was better on validation than its start, so the encoder")
    assert "Try a lower stage1.optimizer.lr" in of_encoder
    assert "so the baseline is that start" in of_baseline
    assert "Try a lower baseline.optimizer.lr" in of_baseline


@pytest.mark.parametrize(
    ("evaluated", "trained"),
    [(FILE, FILE), (None, SCRATCH), ({**SCRATCH, "pretrained": True}, {**SCRATCH, "pretrained": True})],
)
def test_the_start_of_the_training_is_taken(evaluated, trained):
    require_start(evaluated, trained)


@pytest.mark.parametrize(
    ("evaluated", "trained", "words"),
    [
        (None, FILE, r"\(resnet18 from a\.pth\), got those of no weights"),
        (FILE, SCRATCH, r"\(no weights\), got those of resnet18 from a\.pth"),
        (FILE, {**FILE, "weights": "b.pth"}, r"\(resnet18 from b\.pth\), got those of resnet18 from a\.pth"),
        (
            {**SCRATCH, "pretrained": True},
            FILE,
            r"\(resnet18 from a\.pth\), got those of resnet18 from its published weights",
        ),
    ],
)
def test_weights_that_the_training_did_not_start_from_are_refused_as_its_start(evaluated, trained, words):
    with pytest.raises(InputError, match=words + "; type: kedro run --pipelines published,evaluation"):
        require_start(evaluated, trained)
