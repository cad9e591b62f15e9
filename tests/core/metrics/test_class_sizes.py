import pytest

from supcon_pipeline.core.metrics.class_sizes import accuracy_by_size

RECALLS = {"a": 0.9, "b": 0.7, "c": 0.5, "d": 0.3, "e": 0.2, "f": 0.0}
COUNTS = {"a": 100, "b": 60, "c": 40, "d": 30, "e": 20, "f": 10}


def per_class(recalls, support=4):
    return {name: {"recall": value, "support": support} for name, value in recalls.items()}


def test_head_middle_and_tail_are_thirds_of_the_classes_by_size():
    # In another order than that of the sizes.
    shuffled = dict(reversed(per_class(RECALLS).items()))
    assert accuracy_by_size(shuffled, COUNTS) == {
        "head_accuracy": pytest.approx(0.8),
        "middle_accuracy": pytest.approx(0.4),
        "tail_accuracy": pytest.approx(0.1),
    }


def test_classes_of_similar_size_have_no_tail():
    assert accuracy_by_size(per_class(RECALLS), {**COUNTS, "f": 11}) == {}


def test_classes_without_test_images_are_left_out():
    scores = per_class(RECALLS) | per_class({"g": 0.0}, support=0)
    assert accuracy_by_size(scores, {**COUNTS, "g": 1}) == accuracy_by_size(per_class(RECALLS), COUNTS)
    few = {"a": {"recall": 1.0, "support": 3}, "f": {"recall": 0.0, "support": 3}}
    assert accuracy_by_size(few, COUNTS) == {}
