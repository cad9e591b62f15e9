import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from supcon_pipeline.core.models.encoder import Encoder, Sight, build_model, input_size

DESCRIPTION = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "image_size": 24,
    "stored_size": 32,
    "center_crop": 0.875,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.25],
    "hidden_dim": 8,
    "dim": 4,
}


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("image_size", "center_crop"), [(24, 0.875), (32, 0.75), (48, 1.0), (20, 1.0), (28, 0.875), (9, 0.3)]
)
def test_evaluation_sees_what_torchvision_crops_and_resizes(images, image_size, center_crop):
    pixels = images.permute(0, 3, 1, 2) / 255
    expected = v2.functional.center_crop(pixels, [round(32 * center_crop)] * 2)
    expected = v2.functional.resize(expected, [image_size, image_size], antialias=True)
    seen = Sight(32, image_size, center_crop).apply(pixels)
    assert seen.shape == (3, 3, image_size, image_size)
    torch.testing.assert_close(seen, expected)


def test_a_view_is_left_as_it_is(images):
    views = images[:, :16, :16].permute(0, 3, 1, 2) / 255
    assert Sight(32, 24, 0.5).apply(views) is views


def test_stored_images_and_their_middle_have_the_same_embedding(images):
    encoder = build_model(DESCRIPTION).eval().encoder
    with torch.inference_mode():
        middle = Sight(32, 24, 0.875).apply(images.permute(0, 3, 1, 2) / 255)
        plain = Encoder(encoder.backbone, DESCRIPTION["mean"], DESCRIPTION["std"])
        expected = encoder.backbone((middle - plain.mean) / plain.std)
        torch.testing.assert_close(encoder(images), expected)
        assert not torch.allclose(plain(images), expected)


def test_a_view_of_the_size_that_training_asks_for_is_seen_whole(images):
    encoder = build_model(DESCRIPTION).train().encoder
    assert encoder.pixels(images).shape == (3, 3, 24, 24)
    encoder.sees_views_whole = True
    pixels = encoder.pixels(images)
    assert pixels.shape == (3, 3, 32, 32)
    torch.testing.assert_close(pixels * encoder.std + encoder.mean, images.permute(0, 3, 1, 2) / 255)
    assert encoder.eval().pixels(images).shape == (3, 3, 24, 24)


def test_an_encoder_takes_images_as_they_are_stored():
    assert input_size(DESCRIPTION) == 32
    assert input_size({"image_size": 24}) == 24


def test_the_mean_of_an_image_and_its_mirror_image_is_taken_outside_of_training(images):
    torch.manual_seed(0)
    model = build_model({**DESCRIPTION, "embedding_dim": 5, "mirror_average": True})
    plain = build_model({**DESCRIPTION, "embedding_dim": 5})
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(images)["embedding"], plain(images)["embedding"])
    plain.load_state_dict(model.state_dict())
    model.eval(), plain.eval()
    with torch.inference_mode():
        as_it_is = plain(images)["embedding"]
        mirrored = plain(torch.from_numpy(images.numpy()[:, :, ::-1].copy()))["embedding"]
        found = model(images)["embedding"]
    torch.testing.assert_close(found, (as_it_is + mirrored) / 2)
    assert not torch.allclose(as_it_is, mirrored)
