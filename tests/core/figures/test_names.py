import logging

import numpy as np
import pytest
from matplotlib.figure import Figure

from supcon_pipeline.core.figures import names
from supcon_pipeline.core.figures.confusion import draw_confusion
from supcon_pipeline.core.figures.names import drawn_name, font_families, short_name, text_width

# Of a private area, in which no font has letters.
NO_LETTER = "\uf8fe"


@pytest.fixture(autouse=True)
def _forget_fonts():
    yield
    for cached in (names.font_families, names._has_glyph, names._warn_of_boxes):
        cached.cache_clear()


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


def test_a_letter_that_no_font_has_is_a_box_and_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        assert drawn_name(f"cat {NO_LETTER}", 20) == "cat □"
        drawn_name(f"dog {NO_LETTER}", 20)
    assert caplog.text.count("install a font for their script") == 1
    assert drawn_name("Bär, кот, γάτα", 20) == "Bär, кот, γάτα"


@pytest.mark.parametrize("num_classes", [2, 21])
def test_names_of_any_script_are_drawn_without_a_warning(num_classes):
    written = [f"猫 ねこ 고양이 {NO_LETTER} {index}" for index in range(num_classes)]
    draw_confusion(np.ones((num_classes, num_classes), dtype=int), written).draw_without_rendering()


def test_fonts_of_other_scripts_are_used_where_they_are_installed(monkeypatch):
    monkeypatch.setattr(names, "_FAMILIES", ("No Such Font", "DejaVu Serif"))
    names.font_families.cache_clear()
    assert font_families()[-1] == "DejaVu Serif"
    assert "No Such Font" not in font_families()
    figure = Figure()
    figure.suptitle("猫")
    names.show_as_written(figure)
    assert figure._suptitle.get_fontfamily() == font_families()
