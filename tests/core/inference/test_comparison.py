import numpy as np
import pytest

from supcon_pipeline.core.inference.comparison import compare_outputs
from supcon_pipeline.core.messages import InputError


def test_the_difference_is_the_largest_as_by_hand():
    expected, given = {"a": np.array([[1.0, 2.0]])}, {"a": np.array([[1.25, 1.9]])}
    assert compare_outputs("it", expected, given, tolerance=0.2) == {"a": 0.25}


def test_the_tolerance_that_a_refusal_suggests_is_enough():
    expected, given = {"a": np.array([[1.0, 2.0]])}, {"a": np.array([[1.0, 2.5]])}
    with pytest.raises(InputError, match=r"add --params export\.tolerance=") as error:
        compare_outputs("it", expected, given, tolerance=0.1)
    assert compare_outputs("it", expected, given, float(str(error.value).rpartition("=")[2])) == {"a": 0.5}


def test_a_tolerance_with_leeway_is_so_many_times_larger_and_the_one_suggested_is_without_it():
    expected, given = {"a": np.array([[1.0, 2.0]])}, {"a": np.array([[1.0, 2.5]])}
    assert compare_outputs("it", expected, given, 0.03, leeway=10) == {"a": 0.5}
    assert compare_outputs("it", expected, given, 0.001, leeway=np.inf) == {"a": 0.5}
    with pytest.raises(InputError, match=r"at most 0.2, got 0.5; .* add --params export\.tolerance=2.8e-02$"):
        compare_outputs("it", expected, given, 0.01, leeway=10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_tolerance_is_suggested_for_an_output_that_is_not_finite(value):
    with pytest.raises(InputError, match=f"got {value}$"):
        compare_outputs("it", {"a": np.ones((1, 1))}, {"a": np.full((1, 1), value)}, tolerance=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": np.array([[1.0, 2.5]])}, "a of it must differ from the original by at most 0.2, got 0.5"),
        ({"a": np.array([[1.0, np.nan]])}, "a of it must differ .* got nan"),
        ({"a": np.array([[1.0]])}, "a of it must differ .* got inf"),
        ({"b": np.array([[1.0, 2.0]])}, "outputs of it must be a, got b"),
    ],
)
def test_outputs_that_differ_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        compare_outputs("it", {"a": np.array([[1.0, 2.0]])}, given, tolerance=0.1)
