import pandas as pd
import pytest

from supcon_pipeline.core.inference.galleries import (
    class_names_of,
    extend_gallery,
    gallery_of,
    warn_of_few_enrolled,
)

SAMPLES = pd.DataFrame(
    {
        "id": list("abcdef"),
        "class_name": ["cat", "cat", "dog", "dog", "cat", "dog"],
        "label": [0, 0, 1, 1, 0, 1],
        "split": ["train", "test", "train", "validation", "train", "removed"],
    }
)


def test_new_images_are_searched_among_those_of_train():
    gallery = gallery_of(SAMPLES)
    assert gallery["id"].tolist() == ["a", "c", "e"]
    assert gallery["row"].tolist() == [0, 2, 4]


def test_or_among_all_in_use_where_train_lacks_the_other_classes():
    labels, splits = [0, 0, 1, 2, 0, 1], ["train", "train", "test", "validation", "train", "removed"]
    assert gallery_of(SAMPLES.assign(label=labels, split=splits))["id"].tolist() == list("abcde")


def test_enrolled_images_of_new_and_known_classes_follow_those_of_the_run():
    enrolled = pd.DataFrame({"id": ["x", "y", "z"], "class_name": ["owl", "cat", "bat"]})
    extended = extend_gallery(gallery_of(SAMPLES), enrolled, ["cat", "dog"])
    assert extended["id"].tolist() == ["a", "c", "e", "x", "y", "z"]
    assert extended["label"].tolist() == [0, 1, 0, 3, 0, 2]
    assert extended["split"].tolist() == ["train"] * 3 + ["enrolled"] * 3
    assert extended["row"].tolist() == [0, 2, 4, 0, 1, 2]
    assert class_names_of(extended, ["cat", "dog"]) == ["cat", "dog", "bat", "owl"]
    assert class_names_of(gallery_of(SAMPLES), ["cat", "dog"]) == ["cat", "dog"]


@pytest.mark.parametrize(("distance_k", "named"), [(4, "bat, owl"), (3, "bat"), (2, "bat"), (1, None)])
def test_classes_with_too_few_enrolled_images_to_be_known_are_named(caplog, distance_k, named):
    names = ["owl"] * 3 + ["bat", "cat"]
    enrolled = pd.DataFrame({"id": list("uvwxy"), "class_name": names})
    gallery = extend_gallery(gallery_of(SAMPLES), enrolled, ["cat", "dog"])
    warn_of_few_enrolled(gallery, ["cat", "dog"], distance_k)
    if named is None:
        assert caplog.messages == []
    else:
        (message,) = caplog.messages
        assert message.startswith(f"{named}: fewer enrolled images than inference.distance_k ({distance_k})")
        assert message.endswith("--params inference.distance_k=1")
    caplog.clear()
    warn_of_few_enrolled(gallery_of(SAMPLES), ["cat", "dog"], distance_k)
    assert caplog.messages == []
