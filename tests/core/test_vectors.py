import numpy as np

from supcon_pipeline.core.vectors import are_same, unit_rows


def test_rows_of_length_one_are_as_by_hand_and_zeros_stay():
    rows = np.array([[3, 4], [0, 0], [0, -2]])
    assert unit_rows(rows).dtype == np.float32
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0, 0], [0, -1]], rtol=1e-6)


def test_rows_of_length_one_depend_on_no_scale_and_have_the_type_asked_for(rng):
    rows = rng.normal(size=(9, 4))
    scaled = unit_rows(rows * rng.uniform(0.1, 9, (9, 1)), np.float64)
    np.testing.assert_allclose(scaled, unit_rows(rows, np.float64), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-12)
    assert unit_rows(np.asfortranarray(rows)).flags.c_contiguous


def test_rows_are_the_same_where_only_their_length_or_rounding_differs(rng):
    direction = rng.normal(size=6)
    rows = np.outer(rng.uniform(0.1, 9, 30), direction)
    assert are_same(rows)
    assert are_same(np.zeros((30, 6)))
    assert are_same(rows.astype(np.float32) + 1e-7 * rng.normal(size=(30, 6)))
    assert not are_same(np.concatenate([rows, -rows[:1]]))
    assert not are_same(np.concatenate([rows, np.zeros((1, 6))]))
