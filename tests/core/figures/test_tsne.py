from itertools import combinations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from supcon_pipeline.core.figures.tsne import largest_perplexity, tsne_map
from supcon_pipeline.core.messages import InputError


@pytest.fixture
def bundles(rng):
    """Three directions with 12 rows each, of any length."""
    directions = np.eye(3, 5).repeat(12, axis=0) + rng.normal(scale=0.02, size=(36, 5))
    return directions * rng.uniform(0.1, 10, (36, 1))


def test_the_map_keeps_bundles_of_embeddings_together(bundles):
    coordinates = tsne_map(bundles, perplexity=10, num_iterations=1000, seed=0, num_jobs=1)
    labels = np.repeat([0, 1, 2], 12)
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert coordinates.shape == (36, 2)
    assert np.array_equal(labels[distances.argmin(axis=1)], labels)


def test_the_map_depends_on_the_seed_and_not_on_the_length_of_the_rows(bundles):
    def tsne(rows, seed):
        return tsne_map(rows, perplexity=5, num_iterations=250, seed=seed, num_jobs=1)

    # Powers of two scale without rounding.
    lengths = 2.0 ** np.arange(-18, 18)[:, None]
    first = tsne(bundles, 0)
    assert np.array_equal(first, tsne(bundles * lengths, 0))
    maps = [first, *(tsne(bundles, seed) for seed in (1, 2))]
    assert all(np.abs(one - other).max() > 1 for one, other in combinations(maps, 2))


def test_a_seed_gives_the_same_map_again_whatever_was_drawn_before_and_by_any_number_of_jobs(rng):
    rows = rng.normal(size=(5, 16)).repeat(60, axis=0) + rng.normal(scale=0.4, size=(300, 16))

    def tsne(seed, num_jobs):
        return tsne_map(rows, perplexity=30, num_iterations=250, seed=seed, num_jobs=num_jobs)

    first = tsne(5, 1)
    tsne(8, 1)
    assert np.array_equal(first, tsne(5, 1))
    assert np.array_equal(first, tsne(5, 3))


def test_the_largest_seed_gives_a_map(bundles):
    # The largest that the parameters admit, which no C int holds.
    coordinates = tsne_map(bundles, perplexity=5, num_iterations=250, seed=2**32 - 1, num_jobs=1)
    assert np.ptp(coordinates, axis=0).min() > 1


def test_a_perplexity_too_large_for_the_images_is_refused():
    message = r"perplexity must be below 5 for 16 images, got 5; set perplexity=4\.667 or lower"
    with pytest.raises(InputError, match=message):
        tsne_map(np.eye(16), perplexity=5, num_iterations=250, seed=0, num_jobs=1)


@pytest.mark.parametrize("width", [8, 128])
@pytest.mark.parametrize("value", [0, 1, 1e-30, 1e30])
def test_embeddings_that_are_all_the_same_lie_in_one_place_and_the_log_says_so(width, value, caplog):
    rows = np.full((30, width), value)
    assert np.array_equal(tsne_map(rows, 5, 250, seed=0, num_jobs=1), np.zeros((30, 2)))
    assert "All 30 embeddings are the same: their t-SNE map is one point" in caplog.text


@pytest.mark.parametrize("width", [8, 128])
@pytest.mark.parametrize("kind", ["few directions", "half zeros", "one other"])
def test_embeddings_of_which_many_are_the_same_are_drawn(kind, width, rng):
    rows = {
        "few directions": rng.normal(size=(4, width)).repeat(15, axis=0),
        "half zeros": np.concatenate([np.zeros((30, width)), rng.normal(size=(30, width))]),
        "one other": np.concatenate([np.ones((59, width)), -np.ones((1, width))]),
    }[kind]
    coordinates = tsne_map(rows, 5, 250, seed=0, num_jobs=1)
    assert np.isfinite(coordinates).all()
    assert np.ptp(coordinates, axis=0).min() > 0


@pytest.mark.parametrize("width", [8, 128])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(value, width, rng):
    rows = rng.normal(size=(30, width))
    rows[3, 2] = value
    with pytest.raises(InputError, match="embeddings must be finite, got NaN or infinity in row 3"):
        tsne_map(rows, 5, 250, seed=0, num_jobs=1)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_few_points_have_places(count, rng):
    coordinates = tsne_map(rng.normal(size=(count, 3)), largest_perplexity(count), 250, seed=0, num_jobs=1)
    assert np.isfinite(coordinates).all()


@pytest.mark.parametrize("count", [8, 16, 24])
def test_the_largest_perplexity_is_one_that_is_taken(count):
    perplexity = largest_perplexity(count)
    assert perplexity == pytest.approx((count - 1) / 3, abs=0.5)
    coordinates = tsne_map(np.eye(count), perplexity, num_iterations=250, seed=0, num_jobs=1)
    assert np.isfinite(coordinates).all()


def test_wide_rows_are_reduced_and_keep_their_neighbours(rng):
    # Ten groups in 200 dimensions.
    rows = rng.normal(size=(10, 200)).repeat(20, axis=0) + rng.normal(scale=0.3, size=(200, 200))
    coordinates = tsne_map(rows, perplexity=10, num_iterations=500, seed=0, num_jobs=1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert trustworthiness(unit, coordinates, n_neighbors=10) > 0.9
