import base64
import json
import re
import struct

import pandas as pd
import pytest
from jinja2 import UndefinedError

from supcon_pipeline.core.pages.report import render_report

# As far as the size: 300 by 20.
PICTURE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 300, 20)


@pytest.fixture
def parts():
    metrics = {
        "run_id": "2024-01-01T00.00.00.000Z",
        "num_images": 1234,
        "baseline_differs": [],
        "projection": {"ami": 0.111149},
        "embedding": {"ami": 0.222251},
        "classifier": {
            "accuracy": 0.75,
            "calibrated": {
                "temperature": 1.5,
                "log_loss": 0.125,
                "expected_calibration_error": 0.0625,
                "intervals": {"log_loss": [0.1, 0.2], "expected_calibration_error": [0.01, 0.07]},
            },
            "histogram": [[1]],
        },
        "pixels": {"precision_at_1": 1.0},
        "baseline": {"embedding": {"ami": 0.333351}, "classifier": {"accuracy": 0.5}},
        "checkpoint": {
            "encoder": {
                "run_id": "run-of-encoder",
                "averaged_epochs": [3, 5],
                "parameters": {"seed": 17},
            },
            "classifier": {
                "run_id": "run-of-classifier",
                "averaged_epochs": [7],
                "parameters": {"seed": 23},
            },
        },
    }
    card = {
        "num_images": 5678,
        "image_shape": [8, 8, 3],
        "class_names": ["cat", "<script>dog"],
        "data_hash": "abc123",
        "source": "somewhere",
        "warnings": [],
        "counts": {"train": {"cat": 11, "<script>dog": 22}, "test": {"cat": 33, "<script>dog": 44}},
    }
    run = {"experiment": "base", "commit": None, "parameters": {"stage1": {"seed": 99}}}
    return {
        "metrics": metrics,
        "dataset_card": card,
        "run_record": run,
        "pictures": {"embedding_map": PICTURE, "other_map": PICTURE},
        "interactive_map": '{"data": [], "layout": {"title": "</script>"}}',
        "confused_pairs": pd.DataFrame(
            {"label": ["cat"] * 11, "predicted": [f"<b>{index}" for index in range(11)]}
        ).assign(count=7, share=0.125),
        "classifier_metrics": {
            "per_class": {
                "cat": {"precision": 0.987654, "recall": 0.5, "f1": 0.25, "support": 33},
                "<script>dog": {"precision": 0.0, "recall": 1.0, "f1": 0.75, "support": 44},
            },
        },
    }


def cells(page, start):
    """The cells of the first table after `start`."""
    table = page[page.index(start) :].split("</table>")[0]
    return re.findall(r"<t[dh]>(.*?)</t[dh]>", table.replace("<wbr>", ""))


def scores(page, title):
    """The text of each cell of a table of metrics, by metric and column."""
    found = cells(page, f"<h3>{title}</h3>")
    columns = re.findall(r"<th>(.*?)</th>", page[page.index(f"<h3>{title}</h3>") :].split("</thead>")[0])
    rows = [found[start : start + len(columns)] for start in range(len(columns), len(found), len(columns))]
    return {(row[0], name): cell for row in rows for name, cell in zip(columns[1:], row[1:], strict=True)}


def with_interval(value, low, high):
    return f'{value}<br><small class="soft">{low}\N{EN DASH}{high}</small>'


@pytest.mark.parametrize(
    ("title", "metric", "name", "expected"),
    [
        ("Features", "ami", "projection", "0.1111"),
        ("Features", "ami", "embedding", "0.2223"),
        ("Features", "ami", "baseline embedding", "0.3334"),
        ("Features", "ami", "pixels", ""),
        ("Features", "precision_at_1", "pixels", "1.0000"),
        ("Features", "precision_at_1", "embedding", ""),
        ("Classifiers", "accuracy", "classifier", "0.7500"),
        ("Classifiers", "accuracy", "baseline classifier", "0.5000"),
        ("Classifiers", "calibrated log_loss", "classifier", with_interval("0.1250", "0.100", "0.200")),
        (
            "Classifiers",
            "calibrated expected_calibration_error",
            "classifier",
            with_interval("0.0625", "0.010", "0.070"),
        ),
        ("Classifiers", "calibrated log_loss", "baseline classifier", ""),
    ],
)
def test_every_number_stands_beside_those_it_is_compared_with(parts, title, metric, name, expected):
    assert scores(render_report(**parts), title)[metric, name] == expected


def test_the_weights_it_started_from_have_a_column_where_there_are_any(parts):
    assert "published" not in render_report(**parts)
    parts["metrics"]["published"] = {"embedding": {"ami": 0.25}, "classifier": {"accuracy": 0.625}}
    page = render_report(**parts)
    assert scores(page, "Features")["ami", "published embedding"] == "0.2500"
    assert scores(page, "Classifiers")["accuracy", "published classifier"] == "0.6250"
    assert "<b>published embedding</b>: the weights that training starts from" in page


def test_the_same_budget_is_only_said_where_nothing_differs(parts):
    assert "encoder trained by cross-entropy, same budget" in render_report(**parts)
    parts["metrics"]["baseline_differs"] = ["schedule.num_epochs", "seed"]
    page = render_report(**parts)
    assert "encoder trained by cross-entropy, with other schedule.num_epochs, seed" in page
    assert "same budget" not in page


def test_tables_of_a_group_are_not_among_its_numbers(parts):
    metrics = {metric for metric, _ in scores(render_report(**parts), "Classifiers")}
    assert metrics == {"accuracy", "calibrated log_loss", "calibrated expected_calibration_error"}


def test_the_numbers_of_each_class_are_folded_away(parts):
    page = render_report(**parts)
    folded = page[page.index("<details><summary>Metrics per class") :].split("</details>")[0]
    assert cells(folded, "<thead>") == [
        *("class", "precision", "recall", "f1", "test images"),
        *("cat", "0.9877", "0.5000", "0.2500", "33"),
        *("&lt;script&gt;dog", "0.0000", "1.0000", "0.7500", "44"),
    ]


def test_a_class_without_test_images_has_no_numbers(parts):
    empty = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    parts["classifier_metrics"]["per_class"]["cat"] = empty
    assert cells(render_report(**parts), "Metrics per class")[5:10] == ["cat", *["\N{EN DASH}"] * 3, "0"]


def test_the_ten_most_confused_pairs_are_listed(parts):
    listed = cells(render_report(**parts), "Most confused classes")[4:]
    assert [listed[start : start + 4] for start in (0, 36)] == [
        ["cat", f"&lt;b&gt;{index}", "7", "12.5&nbsp;%"] for index in (0, 9)
    ]
    assert len(listed) == 40


def test_a_classifier_without_a_mistake_has_no_list_of_them(parts):
    parts["confused_pairs"] = parts["confused_pairs"].head(0)
    assert "Most confused classes" not in render_report(**parts)


def without_scripts(page):
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_pictures_are_inside_the_page_with_their_words_and_nothing_is_fetched(parts):
    page = without_scripts(render_report(**parts))
    size = 'width="300" height="20"'
    image = rf'<img loading="lazy" {size} alt="(.*?)" src="data:image/png;base64,(.*?)"'
    found = re.findall(rf"<h3>([^<]*)</h3>\n<div[^>]*>{image}", page)
    (title, text, picture), (other, *_) = found
    assert title == "t-SNE of the embeddings"
    assert text.startswith("Scatter plots of the images")
    assert base64.b64decode(picture) == PICTURE
    assert other == "other map"
    assert not re.search(r'(src|href)="(?!data:)|https?://|@import|url\(', page)


def test_the_figure_cannot_end_its_script_and_plotly_is_there_once(parts):
    page = render_report(**parts)
    (figure,) = re.findall(r'id="map-figure">(.*?)</script>', page)
    assert json.loads(figure)["layout"]["title"] == "</script>"
    assert page.count("plotly.js v") == 1


def test_intervals_stand_below_their_number_and_knn_where_there_is_one(parts):
    parts["metrics"]["knn"] = {"accuracy": 0.75, "intervals": {"accuracy": [0.7, 0.8]}}
    cell = scores(render_report(**parts), "Classifiers")["accuracy", "knn"]
    assert cell == with_interval("0.7500", "0.700", "0.800")


def test_the_warnings_of_the_data_are_told(parts):
    parts["dataset_card"]["warnings"] = ["cat is <rare>"]
    assert "<li>cat is &lt;rare&gt;</li>" in render_report(**parts)


def test_the_source_of_the_images_is_named(parts):
    parts["dataset_card"]["source"] = "/photos/<new>"
    assert "Read from <code>/photos/&lt;new&gt;</code>." in render_report(**parts)


def test_names_from_the_data_are_text_and_not_markup(parts):
    parts["metrics"]["run_id"] = "<b>bold"
    page = without_scripts(render_report(**parts))
    assert "<script>" not in page
    assert "<b>bold" not in page
    assert cells(page, "<thead><tr><th>class</th><th>train") == [
        "class",
        "train",
        "test",
        "cat",
        "11",
        "33",
        "&lt;script&gt;dog",
        "22",
        "44",
    ]


def test_the_page_says_where_its_numbers_come_from(parts):
    page = render_report(**parts)
    assert "1,234 test images" in page
    assert "5,678 images of 8 \u00d7 8 \u00d7 3, 2 classes" in page
    assert "abc123" in page
    assert "run <code>run-of-encoder</code>, average of epochs 3, 5" in page
    assert "run <code>run-of-classifier</code>, average of epochs 7" in page
    assert "not under version control" in page
    assert "&#34;seed&#34;: 17" in page
    assert "&#34;seed&#34;: 23" in page
    assert "&#34;seed&#34;: 99" not in page


def test_the_commit_is_shown_where_there_is_one(parts):
    parts["run_record"]["commit"] = "0123abc"
    page = render_report(**parts)
    assert "<code>0123abc</code>" in page
    assert "not under version control" not in page


def test_that_git_refuses_is_not_called_no_version_control(parts):
    parts["run_record"]["commit_reason"] = "unknown: git refuses (dubious ownership)"
    page = render_report(**parts)
    assert "<code>unknown: git refuses (dubious ownership)</code>" in page
    assert "not under version control" not in page


@pytest.mark.parametrize(
    ("part", "name", "error"),
    [
        ("metrics", "run_id", UndefinedError),
        ("dataset_card", "data_hash", UndefinedError),
        ("run_record", "experiment", UndefinedError),
        ("metrics", "pixels", KeyError),
        ("metrics", "baseline", KeyError),
        ("metrics", "checkpoint", KeyError),
    ],
)
def test_a_missing_part_is_refused_by_its_name(parts, part, name, error):
    del parts[part][name]
    with pytest.raises(error, match=name):
        render_report(**parts)


def test_a_warning_of_the_metrics_is_told_first(parts):
    parts["metrics"]["warnings"] = ["The encoder has <collapsed>."]
    page = render_report(**parts)
    assert page.index("<li><b>The encoder has &lt;collapsed&gt;.</b></li>") < page.index("<h3>Features</h3>")


def test_of_very_many_classes_those_that_most_need_a_look_are_listed(parts):
    names = [f"class-{index:04}" for index in range(3000)]
    rows = [
        {"precision": 0.5, "recall": 0.5, "f1": index / 3000, "support": int(index > 0)}
        for index in range(3000)
    ]
    parts["classifier_metrics"]["per_class"] = dict(zip(names, rows, strict=True))
    parts["dataset_card"]["class_names"] = names
    parts["dataset_card"]["counts"] = {"train": {name: 3000 - index for index, name in enumerate(names)}}
    page = render_report(**parts)
    # A class without images has no F1 to be low.
    assert cells(page, "Metrics per class")[5::5] == names[1:201]
    assert "The 200 of 3,000 classes with the lowest f1; all are in <code>classifier_metrics.json" in page
    assert cells(page, "<h2>Data</h2>")[2::2] == names[:-201:-1]
    assert "The 200 of 3,000 classes with the fewest images; all are in <code>dataset_card.json" in page
