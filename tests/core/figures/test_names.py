import pytest

from supcon_pipeline.core.figures.names import short_name, text_width


@pytest.mark.parametrize(
    ("name", "expected"), [("", ""), ("brown_bear", "brown_bear"), ("brown_bears", "brown_…ars")]
)
def test_a_long_name_keeps_both_ends(name, expected):
    assert short_name(name, 10) == expected


def test_a_line_takes_the_width_of_its_letters():
    assert text_width([], 9) == 0
    assert text_width(["", "W"], 9) == text_width(["W"], 9)
    assert text_width(["W" * 10], 9) == pytest.approx(10 * text_width(["W"], 9), rel=0.1)
    assert text_width(["$\\frac$"], 9) > text_width(["frac"], 9)
