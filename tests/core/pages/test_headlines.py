from supcon_pipeline.core.pages.headlines import (
    describe_gains,
    describe_images,
    describe_without_near_duplicates,
)


def test_the_headlines_without_near_duplicates_stand_beside_those_with_them():
    with_them = {
        "embedding": {"precision_at_1": 0.9, "knn_accuracy": 0.91},
        "classifier": {"accuracy": 0.92},
    }
    without = {
        "num_images": 1900,
        "num_left_out": 100,
        "embedding": {"precision_at_1": 0.8, "knn_accuracy": 0.81},
        "classifier": {"accuracy": 0.82},
    }
    assert describe_without_near_duplicates({**with_them, "without_near_duplicates": without}) == (
        "Without the 100 test images that have a duplicate in train, on the other 1,900: "
        "embedding precision@1 0.8000 (0.9000 with them), embedding k-NN accuracy 0.8100 (0.9100 with them), "
        "classifier accuracy 0.8200 (0.9200 with them)"
    )
    assert describe_without_near_duplicates(with_them) == ""


def test_gains_are_told_of_each_headline_metric_with_their_intervals():
    embedding = {"precision_at_1": 0.9, "mean_average_precision_at_r": 0.8}
    over = {"precision_at_1": 0.0125, "intervals": {"precision_at_1": [-0.0011, 0.03]}}
    over_both = {
        "precision_at_1": 0.2,
        "mean_average_precision_at_r": -0.1,
        "intervals": {"precision_at_1": [0.1, 0.3], "mean_average_precision_at_r": [-0.2, -0.05]},
    }
    metrics = {"embedding": embedding, "gains": {"published": over, "baseline": over_both}}
    assert describe_gains(metrics) == [
        "precision@1: +0.0125 (-0.0011 to +0.0300) over published, "
        "+0.2000 (+0.1000 to +0.3000) over baseline",
        "mAP@R: -0.1000 (-0.2000 to -0.0500) over baseline",
    ]
    assert describe_gains({"embedding": embedding}) == []


def test_test_images_that_are_no_queries_are_not_said_to_be_scored():
    assert describe_images({"num_images": 1200}) == "1,200 test images"
    assert describe_images({"num_images": 72, "num_queries": 72}) == "72 test images"
    expected = "72 test images, of which 15 are scored as queries"
    assert describe_images({"num_images": 72, "num_queries": 15}) == expected
