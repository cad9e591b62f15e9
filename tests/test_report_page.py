from pathlib import Path

import pytest

from tests.browser import needs_chromium, open_browser, watch

pytestmark = needs_chromium


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_the_report_opens_from_disk_and_answers_to_the_pointer(
    finished_project: Path, width: int, scheme: str
) -> None:
    (report,) = finished_project.glob("data/08_reporting/tiny/report.html/*/report.html")
    with open_browser() as browser:
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
        point = page.query_selector("#map .cartesianlayer .points path")
        point.scroll_into_view_if_needed()
        box = point.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        label = page.wait_for_selector("#map .hoverlayer .hovertext").text_content()
        assert "digit-" in label
        assert "label" in label
        assert errors == []
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_click_on_a_class_hides_its_points(finished_project: Path) -> None:
    (report,) = finished_project.glob("data/08_reporting/tiny/report.html/*/report.html")
    count = "document.querySelectorAll('#map .cartesianlayer .points path').length"
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(report.as_uri())
        page.wait_for_selector("#map .points path", state="attached")
        before = page.evaluate(count)
        page.locator("#map .legendtoggle").first.click()
        page.wait_for_function(f"{count} < {before}")
        # A third of the images is of this class, in each of the two maps.
        assert page.evaluate(count) == pytest.approx(before * 2 / 3, abs=4)
