import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.figures.interactive import draw_interactive_tsne
from tests.system.browser import needs_chromium, open_browser, watch

pytestmark = needs_chromium

COUNT = "document.querySelectorAll('#map .cartesianlayer .points path').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_the_report_opens_from_disk_and_answers_to_the_pointer(
    finished_project: Path, browser: Any, width: int, scheme: str
) -> None:
    (report,) = finished_project.glob("data/08_reporting/tiny/report.html/*/report.html")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors, requests = watch(page), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("#map .points path", state="attached")
    for picture in page.query_selector_all("img"):
        picture.scroll_into_view_if_needed()
        page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=picture)
        assert picture.get_attribute("alt")
    assert len(page.query_selector_all("img")) >= 3
    # Nothing is wider than the screen but what scrolls by itself.
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # The names of the metrics leave their numbers room.
    names = [part.bounding_box() for part in page.locator(".scores th:first-child").all()]
    assert max(box["x"] + box["width"] for box in names) < width / 2
    point = page.query_selector("#map .cartesianlayer .points path")
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = page.wait_for_selector("#map .hoverlayer .hovertext").text_content()
    assert "digit-" in label
    assert "label" in label
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_click_on_a_class_hides_its_points(finished_project: Path, browser: Any) -> None:
    (report,) = finished_project.glob("data/08_reporting/tiny/report.html/*/report.html")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(report.as_uri())
    page.wait_for_selector("#map .points path", state="attached")
    before = page.evaluate(COUNT)
    page.locator("#map .legendtoggle").first.click()
    page.wait_for_function(f"{COUNT} < {before}")
    # A third of the images is of this class, in each of the two maps.
    assert page.evaluate(COUNT) == pytest.approx(before * 2 / 3, abs=4)


def write_report(project: Path, path: Path, num_classes: int, seeds: tuple[int, ...] = (0,)) -> Path:
    """The report of the project with another map: of every class four images, half of them in test."""
    names = [f"<b>class {index}" for index in range(num_classes)]
    labels, splits = np.repeat(np.arange(num_classes), 4), ["train", "test"] * 2 * num_classes
    rng, maps = np.random.default_rng(0), []
    for model in ("contrastive", "baseline"):
        for seed in seeds:
            x, y = rng.normal(size=(2, len(labels)))
            columns: dict[str, Any] = {"id": [f"i{row}" for row in range(len(labels))], "split": splits}
            columns |= {"label": labels, "class_name": np.array(names)[labels], "predicted_class": None}
            maps.append(pd.DataFrame({**columns, "model": model, "seed": seed, "x": x, "y": y}))
    sizes = dict.fromkeys(("train", "test"), 2 * num_classes)
    figure = draw_interactive_tsne(pd.concat(maps, ignore_index=True), names, sizes).to_json()
    (report,) = project.glob("data/08_reporting/tiny/report.html/*/report.html")
    before, after = re.split(r'(?<=id="map-figure">).*?(?=</script>)', report.read_text(), maxsplit=1)
    path.write_text(before + figure + after)
    return path


def choose(page: Any, label: str) -> None:
    """The entry of the menu of the map."""
    page.locator("#map .updatemenu-header").click()
    page.locator("#map .updatemenu-dropdown-button").filter(has_text=re.compile(f"^{label}$")).click()


def test_the_menu_shows_a_split_and_seed_and_keeps_hidden_what_a_click_has_hidden(
    finished_project: Path, browser: Any, tmp_path: Path
) -> None:
    report = write_report(finished_project, tmp_path / "report.html", num_classes=5, seeds=(0, 7))
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    errors = watch(page)
    page.goto(report.as_uri())
    # Two maps of twenty images.
    page.wait_for_function(f"{COUNT} === 40")
    # A name is text, whatever it holds.
    assert page.locator("#map .legendtext").first.text_content() == "<b>class 0"
    first = page.locator("#map .points path").first.get_attribute("transform")
    page.locator("#map .legendtoggle").first.click()
    page.wait_for_function(f"{COUNT} === 32")
    choose(page, "test, seed 0")
    page.wait_for_function(f"{COUNT} === 16")
    choose(page, "all splits, seed 7")
    page.wait_for_function(f"{COUNT} === 32")
    page.locator("#map .legendtoggle").first.click()
    page.wait_for_function(f"{COUNT} === 40")
    # It is another map than that of the first seed.
    assert page.locator("#map .points path").first.get_attribute("transform") != first
    assert errors == []


def test_the_map_of_a_thousand_classes_is_drawn_and_answers_to_the_pointer_and_the_menu(
    finished_project: Path, browser: Any, tmp_path: Path
) -> None:
    report = write_report(finished_project, tmp_path / "report.html", num_classes=1000)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    errors = watch(page)
    page.goto(report.as_uri())
    page.wait_for_function(f"{COUNT} === 8000")
    assert page.locator("#map .legend").count() == 0
    assert not page.locator("#legend-words").is_visible()
    choose(page, "test")
    page.wait_for_function(f"{COUNT} === 4000")
    point = page.locator("#map .points path").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "label <b>class" in page.wait_for_selector("#map .hoverlayer .hovertext").text_content()
    assert errors == []


@pytest.mark.parametrize(("num_classes", "has_legend"), [(2, True), (20, True), (100, False)])
def test_on_a_phone_the_maps_have_its_width_and_the_legend_is_below(
    finished_project: Path, browser: Any, tmp_path: Path, num_classes: int, has_legend: bool
) -> None:
    report = write_report(finished_project, tmp_path / "report.html", num_classes)
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(report.as_uri())
    page.wait_for_selector("#map .points path", state="attached")
    whole = page.locator("#map").bounding_box()
    maps = [part.bounding_box() for part in page.locator("#map .nsewdrag").all()]
    assert len(maps) == 2
    assert min(part["width"] for part in maps) > 300
    assert page.locator("#map .legend").count() == has_legend
    if has_legend:
        legend = page.locator("#map .legend").bounding_box()
        assert max(part["y"] + part["height"] for part in maps) <= legend["y"] + 1
        assert legend["y"] + legend["height"] <= whole["y"] + whole["height"] + 1
        assert page.locator("#map .legendtoggle").count() == num_classes
