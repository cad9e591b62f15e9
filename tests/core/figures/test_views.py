from io import BytesIO

import numpy as np
import pytest

from supcon_pipeline.core.figures.views import draw_views


def is_png(figure):
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    return buffer.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("channels", [1, 3])
def test_views_stand_below_their_image(rng, channels):
    images = rng.integers(0, 256, (3, 6, 6, channels), dtype=np.uint8)
    views = rng.integers(0, 256, (3, 2, 4, 4, channels), dtype=np.uint8)
    figure = draw_views(images, views, np.array([1, 0, 1]), ["ant", "bee"])
    axes = np.array(figure.axes).reshape(3, 3)
    assert [axis.get_title() for axis in axes[0]] == ["bee", "ant", "bee"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["image", "view 1", "view 2"]
    assert np.array_equal(axes[0, 2].images[0].get_array(), images[2].squeeze())
    assert np.array_equal(axes[2, 1].images[0].get_array(), views[1, 1].squeeze())
    assert is_png(figure)


def test_mixed_views_name_their_classes_and_shares(rng):
    images = rng.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    labels = np.array([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]], dtype=np.float32)
    figure = draw_views(images, images[:, None], labels, ["ant", "bee", "cat"])
    assert [axis.get_title() for axis in figure.axes[:2]] == ["cat 75%\nant 25%", "bee 100%"]


def test_a_name_with_dollar_signs_is_no_formula(rng):
    images = rng.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    assert is_png(draw_views(images, images[:, None], np.array([0, 1]), ["$\\frac$", "$5 to $10"]))
