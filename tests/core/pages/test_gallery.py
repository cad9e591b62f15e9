import base64
import re

import cv2
import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.pages.gallery import encode_picture, render_gallery


@pytest.fixture
def parts(rng):
    row = {
        "classifier_class": "cat",
        "classifier_probability": 0.75,
        "knn_class": "dog",
        "knn_probability": 1.0,
    }
    near = {"nearest_1_id": "b", "nearest_1_class": "dog", "nearest_1_similarity": 0.5}
    rows = [
        {"image": f"<b>{number}.png", **row, "distance": 0.5, "distance_percentile": percentile, **near}
        | {"is_unknown": percentile == 100}
        for number, percentile in enumerate([10.0, 100.0])
    ]
    return {
        "predictions": pd.DataFrame(rows),
        "images": rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
        "known": [(["a", "b"], rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8))],
        "unreadable": pd.DataFrame({"image": ["c.png"], "reason": ["cut short"]}),
        "run_id": "mine",
        "max_images": 10,
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_keeps_its_pixels(rng, channels):
    image = rng.integers(0, 256, (4, 5, channels), dtype=np.uint8)
    content = np.frombuffer(
        base64.b64decode(encode_picture(image).removeprefix("data:image/png;base64,")), np.uint8
    )
    decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    expected = image[..., ::-1] if channels == 3 else image[..., 0]
    assert np.array_equal(decoded, expected)


def test_every_image_stands_with_its_nearest_and_nothing_is_fetched(parts):
    page = render_gallery(**parts)
    pictures = re.findall(r'<img alt="(.*?)" src="(.*?)"', page)
    assert [title for title, _ in pictures] == ["&lt;b&gt;0.png", "b", "&lt;b&gt;1.png", "b"]
    assert pictures[0][1] == encode_picture(parts["images"][0])
    assert pictures[1][1] == encode_picture(parts["known"][0][1][1])
    assert not re.search(r'(src|href)="(?!data:)|https?://|@import|url\(|<b>', page)


def test_an_image_unlike_the_training_images_and_an_unreadable_one_are_named(parts):
    page = render_gallery(**parts)
    assert page.count("unlike the training images") == 1
    assert "<td>c.png</td><td>cut short</td>" in page


def test_without_a_classifier_the_page_says_nothing_of_one(parts):
    columns = ["classifier_class", "classifier_probability"]
    page = render_gallery(**{**parts, "predictions": parts["predictions"].drop(columns=columns)})
    assert "classifier" not in page
    assert page.count("unlike the images of the run") == 1


def test_the_page_says_how_many_of_all_it_shows(parts):
    page = render_gallery(**{**parts, "max_images": 1})
    assert "1 of 2 images" in page
    assert "1.png" not in page
