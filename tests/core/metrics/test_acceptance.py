import numpy as np
import pytest
from tests.core.metrics.angles import at_degrees

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.acceptance import (
    acceptance_threshold,
    conformal_threshold,
    nearest_similarities,
)

STEP = 2.0**-22


@pytest.mark.parametrize(("num_classes", "rate"), [(19, 0.05), (30, 0.1), (12, 0.25)])
def test_queries_of_an_unknown_class_are_accepted_at_the_promised_rate_and_not_much_below(num_classes, rate):
    rng, accepted = np.random.default_rng(0), []
    for _ in range(500):
        # Images of one class are alike: each is as near to the gallery as the others of its class.
        sizes = rng.integers(1, 9, num_classes + 1)
        labels = np.repeat(np.arange(num_classes + 1), sizes)
        similarities = rng.normal(size=num_classes + 1)[labels] + 0.3 * rng.normal(size=len(labels))
        is_new = labels == num_classes
        threshold = conformal_threshold(similarities[~is_new], labels[~is_new], rate)
        accepted.append(np.mean(similarities[is_new] >= threshold))
    error = np.std(accepted) / np.sqrt(500)
    assert np.mean(accepted) <= rate + 2 * error
    assert np.mean(accepted) >= rate - 1 / (num_classes + 1) - 2 * error


def test_the_promise_holds_for_embeddings_of_classes_left_out_one_at_a_time():
    rng, accepted = np.random.default_rng(0), []
    labels = np.repeat(np.arange(40), 4)
    rows, is_new = np.arange(80), labels >= 20
    for _ in range(150):
        embeddings = rng.normal(size=(40, 6))[labels] + 0.3 * rng.normal(size=(160, 6))
        threshold = acceptance_threshold(embeddings, labels, rows, 0.1)
        found = nearest_similarities(
            embeddings, labels, np.flatnonzero(is_new), np.flatnonzero(is_new), other_classes=True
        )
        accepted.append(np.mean(found >= threshold))
    assert 0.04 < np.mean(accepted) <= 0.1 + 2 * np.std(accepted) / np.sqrt(150)


def test_with_one_image_per_class_the_threshold_is_the_order_statistic_of_split_conformal(rng):
    for count, rate in ((19, 0.05), (19, 0.1), (30, 0.07), (99, 0.01), (9, 0.5)):
        similarities = rng.uniform(size=count)
        rank = int(np.ceil(round((1 - rate) * (count + 1), 9)))
        threshold = conformal_threshold(similarities, np.arange(count), rate)
        assert threshold == np.sort(similarities)[rank - 1] + STEP / 2


def test_a_class_of_many_images_weighs_no_more_than_one_of_few():
    similarities = np.array([0.9] * 50 + [0.1, 0.2, 0.3])
    labels = np.array([0] * 50 + [1, 2, 3])
    assert conformal_threshold(similarities, labels, 0.4) == 0.3 + STEP / 2
    assert conformal_threshold(similarities, labels, 0.2) == 0.9 + STEP / 2


@pytest.mark.parametrize("tile_size", [1, 200, 10**6])
def test_the_nearest_image_is_that_of_a_slow_loop(rng, tile_size):
    embeddings, labels, copies = rng.normal(size=(40, 5)), rng.integers(0, 6, 40), rng.integers(0, 25, 40)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    queries, gallery = np.arange(5, 40), rng.permutation(40)[:30]
    for other in (False, True):
        expected = [
            max(
                unit[query] @ unit[row]
                for row in gallery
                if copies[row] != copies[query] and not (other and labels[row] == labels[query])
            )
            for query in queries
        ]
        found = nearest_similarities(embeddings, labels, queries, gallery, copies, other, tile_size)
        assert found == pytest.approx(expected, abs=1e-7)


def test_a_threshold_is_as_by_hand():
    # To the nearest of another class: 10 degrees from the first two, 20 from the third, 30 from the last.
    embeddings, labels = at_degrees(0, 10, 30, 60), np.arange(4)
    cosines = np.cos(np.deg2rad([10, 20, 30]))
    for rate, degrees in ((0.2, 0), (0.41, 0), (0.61, 1), (0.81, 2)):
        threshold = acceptance_threshold(embeddings, labels, range(4), rate)
        assert threshold == pytest.approx(cosines[degrees], abs=STEP)
        assert threshold > cosines[degrees]


def test_a_collapsed_encoder_accepts_nothing(rng):
    embeddings, labels = np.tile(rng.normal(size=100), (60, 1)), np.arange(60) // 2
    threshold = acceptance_threshold(embeddings, labels, range(60), 0.1)
    assert threshold > nearest_similarities(embeddings, labels, range(60), range(60)).max()


def test_a_rate_that_so_few_classes_cannot_promise_is_refused():
    similarities = np.linspace(0, 1, 18)
    with pytest.raises(
        InputError,
        match=r"the rate of false accepts must be at least 0\.1 with 9 classes to choose the threshold on, "
        r"got 0\.05; set it to 0\.1 or hold out more classes",
    ):
        conformal_threshold(similarities, np.arange(18) // 2, 0.05)
    for count in range(1, 200):
        remedy = np.ceil(1000 / (count + 1)) / 1000
        if remedy < 1:
            conformal_threshold(np.linspace(0, 1, count), np.arange(count), remedy)


def test_a_search_for_unknown_classes_that_cannot_be_is_refused(rng):
    embeddings, labels = rng.normal(size=(6, 3)), np.zeros(6, dtype=int)
    with pytest.raises(ValueError, match="gallery_rows must hold an image of another class for each query"):
        acceptance_threshold(embeddings, labels, range(6), 0.5)
    with pytest.raises(ValueError, match="gallery_rows must hold another image for each query"):
        nearest_similarities(embeddings, labels, [0], [0])
    with pytest.raises(ValueError, match=r"copies must have one number per row \(6\), got 5"):
        nearest_similarities(embeddings, labels, [0], [1], np.arange(5))
    with pytest.raises(ValueError, match="rate must be above 0 and below 1, got 1"):
        conformal_threshold(np.zeros(2), np.arange(2), 1)
    with pytest.raises(ValueError, match=r"labels must have one class per query \(2\), got 3"):
        conformal_threshold(np.zeros(2), np.arange(3), 0.5)
