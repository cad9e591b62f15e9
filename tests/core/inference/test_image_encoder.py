import numpy as np
import pytest

from supcon_pipeline.core.inference.image_encoder import ImageEncoder

METADATA = {
    "outputs": ["embedding", "probabilities"],
    "image_size": 8,
    "num_channels": 1,
    "crop": "pad",
    "class_names": ["dark", "light"],
}


def brightness(images):
    """A model that can be followed by hand: the mean pixel, and how light that is."""
    mean = images.mean(axis=(1, 2, 3))
    light = mean / 255
    return {
        "embedding": np.stack([3 * mean, 4 * mean], 1).astype(np.float32),
        "probabilities": np.stack([1 - light, light], 1),
    }


def flat(value):
    return np.full((5, 7), value, np.uint8)


def test_embeddings_have_length_one_and_the_type_float32():
    embedding = ImageEncoder(brightness, METADATA).embed(flat(10))
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_image_is_classified_in_input_order_whatever_the_batch(batch_size):
    encoder = ImageEncoder(brightness, METADATA, batch_size)
    predictions = encoder.classify([flat(51), flat(204), flat(0)])
    assert [prediction.class_name for prediction in predictions] == ["dark", "light", "dark"]
    assert [prediction.probability for prediction in predictions] == pytest.approx([0.8, 0.8, 1.0])


def test_two_images_match_from_the_threshold_on():
    def directions(images):
        angle = images.mean(axis=(1, 2, 3)) * np.pi / 180
        return {"embedding": np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)}

    encoder = ImageEncoder(directions, {**METADATA, "outputs": ["embedding"]}, match_threshold=0.5)
    found = encoder.verify([flat(10), flat(10)], [flat(55), flat(90)])
    assert [each.is_match for each in found] == [True, False]
    assert [each.similarity for each in found] == pytest.approx([np.sqrt(0.5), np.cos(80 * np.pi / 180)])
    (alone,) = encoder.verify(flat(3), flat(3))
    assert alone.similarity == pytest.approx(1)
    with pytest.raises(ValueError, match="first and second must be as many images, got 1 and 2"):
        encoder.verify(flat(1), [flat(1), flat(2)])


def test_without_a_threshold_nothing_is_verified():
    with pytest.raises(
        ValueError, match=r"match_threshold must be known, got none, .* after the pipeline evaluation has run"
    ):
        ImageEncoder(brightness, METADATA).verify(flat(1), flat(2))


def test_classes_of_an_encoder_without_classifier_and_no_images_are_refused():
    alone = ImageEncoder(brightness, {**METADATA, "outputs": ["embedding"]})
    with pytest.raises(ValueError, match="outputs of the model must include probabilities, got embedding"):
        alone.classify(flat(1))
    with pytest.raises(ValueError, match="images must be at least one, got none"):
        alone.embed([])
