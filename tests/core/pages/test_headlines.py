from supcon_pipeline.core.pages.headlines import describe_without_near_duplicates


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
