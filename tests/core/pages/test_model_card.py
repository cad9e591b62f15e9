import html
import json
import re

import pytest
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from supcon_pipeline.core.pages.headlines import headlines_of
from supcon_pipeline.core.pages.model_card import render_model_card


@pytest.fixture
def parts():
    scores = {
        "embedding": {"precision_at_1": 0.91234, "mean_average_precision_at_r": 0.8, "knn_accuracy": 0.9},
        "classifier": {"accuracy": 0.7, "macro_f1": 0.6, "expected_calibration_error": 0.01},
    }
    baseline = {
        "embedding": {"precision_at_1": 0.51234, "mean_average_precision_at_r": 0.4, "knn_accuracy": 0.5},
        "classifier": {"accuracy": 0.3, "macro_f1": 0.2, "expected_calibration_error": 0.02},
    }
    origin = {
        "encoder": {"run_id": "run-of-encoder", "averaged_epochs": [3, 5], "parameters": {"seed": 17}},
        "classifier": {"run_id": "run-of-encoder", "averaged_epochs": [2], "parameters": {"seed": 23}},
    }
    return {
        "metadata": {
            "outputs": ["embedding", "logits"],
            "image_size": 24,
            "num_channels": 1,
            "class_names": ["cat", "a|b <c>"],
            "temperature": 1.23456,
            "resize": "Fit the longer side.",
        },
        "metrics": {
            **scores,
            "baseline": baseline,
            "checkpoint": origin,
            "num_images": 77,
            "baseline_differs": [],
        },
        "dataset_card": {"num_images": 345, "data_hash": "abc123"},
        "run_record": {"run_id": "mine", "experiment": "base", "commit": None, "parameters": {"seed": 99}},
        "export_check": {
            "num_images": 9,
            "differences": {"encoder.onnx": {"embedding": 2.5e-6}},
            "onnx_precision": "float32",
            "knn": None,
        },
    }


def test_the_card_names_the_run_the_data_the_parameters_and_the_labels(parts):
    card = render_model_card(**parts)
    for words in ("run `mine`", "run `run-of-encoder`, average of epochs 3, 5", "`abc123`"):
        assert words in card
    assert card.index('"encoder"') < card.index('"seed": 17') < card.index('"seed": 23')
    assert '"seed": 99' not in card
    assert "cat, a\\|b \\<c\\>" in card
    assert "not under version control" in card


def test_the_card_says_where_images_were_stored_encoded(parts):
    stored = "345 images, stored as JPEG with their own aspect, content hash"
    assert stored not in render_model_card(**parts)
    parts["metadata"]["storage"] = "encoded"
    assert stored in render_model_card(**parts)


def test_the_card_says_in_which_precision_and_for_which_sizes_the_files_are(parts):
    card = render_model_card(**parts)
    assert "float32" not in card
    assert "but images must come at that size:\n\n> Fit the longer side." in card
    parts["metadata"]["dynamic_resolution"] = True
    knn = {"num_images": 80, "before": 0.975, "after": 0.9625}
    parts["export_check"] |= {"onnx_precision": "int8", "knn": knn}
    card = render_model_card(**parts)
    assert "weights in int8, and their outputs in float32" in card
    assert "gives the same from weights in float32.\n" in card
    assert "right for 0.9625 of 80 validation images, with float32 for 0.9750" in card
    assert "any size. Other heights and widths are taken, too, but what is measured here" in card
    assert "but does not resize them:\n\n> Fit the longer side." in card


def test_the_numbers_stand_beside_those_of_the_baseline(parts):
    card = render_model_card(**parts)
    assert "| this model | baseline |" in card
    assert "mean_average_precision_at_r | average precision within the first R neighbours" in card
    assert "| embedding precision_at_1 | nearest neighbour among the training images" in card
    assert "| 0.9123 | 0.5123 |" in card
    rows = re.findall(r"\| (embedding|classifier) (\w+) \|", card)
    shown = [headline for headline in headlines_of(parts["metrics"]) if headline.group != "projection"]
    assert rows == [tuple(headline[:2]) for headline in shown]
    assert len(rows) == 6
    assert "On 77 test images" in card


def test_the_numbers_of_the_weights_it_started_from_stand_between_them(parts):
    parts["metrics"]["published"] = {
        "embedding": {"precision_at_1": 0.6, "mean_average_precision_at_r": 0.61, "knn_accuracy": 0.62},
        "classifier": {"accuracy": 0.63, "macro_f1": 0.64, "expected_calibration_error": 0.65},
    }
    card = render_model_card(**parts)
    assert "| this model | published | baseline |\n|---|---|---|---|---|\n| embedding" in card
    assert "| 0.9123 | 0.6000 | 0.5123 |\n| embedding mean" in card
    assert "Published are the weights that training started from" in card


def test_the_card_says_in_what_the_baseline_differs(parts):
    claim = "for as many epochs.\n\n| metric"
    assert claim in render_model_card(**parts)
    parts["metrics"]["baseline_differs"] = ["schedule.num_epochs", "seed"]
    card = render_model_card(**parts)
    assert "with a different budget: another `schedule.num_epochs`, `seed`.\n\n| metric" in card
    assert claim not in card


def test_the_card_says_what_images_must_be_and_what_was_checked(parts):
    card = render_model_card(**parts)
    assert "`[batch, 24, 24, 1]`, grayscale" in card
    assert "Fit the longer side." in card
    assert "`probabilities` is the softmax of `logits` divided by 1.235" in card
    assert "| encoder.onnx | embedding | 2.5e-06 |" in card


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "<script>",
        "`code`",
        "*bold*",
        "_soft_",
        "brown_bear",
        "# a",
        "a\\b",
        "[link](url)",
        "&lt;",
        "~~x~~",
    ],
)
def test_a_class_name_is_read_as_it_is_written(parts, name):
    parts["metadata"]["class_names"] = [name, "cat"]
    page = MarkdownIt("gfm-like", {"linkify": False}).render(render_model_card(**parts))
    (listed,) = re.findall(r"to every image: (.*?)</p>", page)
    assert html.unescape(listed) == f"{name}, cat."
    assert "<" not in listed


def test_the_parameters_are_json_as_it_was(parts):
    parts["metrics"]["checkpoint"]["encoder"]["parameters"] = {"path": "a|b_<c>`"}
    found = re.findall(r"```json\n(.*?)```\n", render_model_card(**parts), re.DOTALL)
    assert json.loads(found[0])["encoder"] == {"path": "a|b_<c>`"}


def test_a_missing_part_is_refused_by_its_name(parts):
    del parts["dataset_card"]["data_hash"]
    with pytest.raises(UndefinedError, match="data_hash"):
        render_model_card(**parts)
