import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from supcon_pipeline.core.figures.interactive import draw_interactive_tsne
from supcon_pipeline.core.figures.maps import MAP_INCHES, draw_tsne
from supcon_pipeline.core.figures.marks import NUM_MARKS, class_marks

NAMES = ["ant", "bee", "cat"]


def texts(axis):
    return {text.get_text() for text in axis.texts}


@pytest.fixture
def points(rng):
    """Two models, nine images: classes far apart, five images of train and four of test."""
    labels, splits = np.array([0, 1, 2] * 3), np.repeat(["train", "test"], [5, 4])
    parts = []
    for model in ("contrastive", "baseline"):
        x, y = rng.normal(size=(9, 2)).T + 20 * np.array([labels, labels])
        columns = {"id": [f"image-{index}" for index in range(9)], "split": splits, "label": labels}
        said = np.where(splits == "test", "bee", None)
        names = [NAMES[label] for label in labels]
        parts.append(pd.DataFrame({**columns, "class_name": names, "predicted_class": said, "x": x, "y": y}))
        parts[-1] = parts[-1].assign(model=model, seed=0)
    return pd.concat(parts, ignore_index=True)


def test_there_is_a_column_for_each_model_and_a_row_for_each_split(points):
    figure = draw_tsne(points, NAMES, {"train": 50, "test": 4})
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "contrastive, train (5 of 50 images)",
        "baseline, train (5 of 50 images)",
        "contrastive, test (4 images)",
        "baseline, test (4 images)",
    ]
    assert [sum(len(part.get_offsets()) for part in axis.collections) for axis in figure.axes] == [5, 5, 4, 4]
    figure.draw_without_rendering()


def test_the_points_of_a_class_have_its_mark_and_the_panels_of_a_map_its_limits(points):
    figure = draw_tsne(points, NAMES, {"train": 5, "test": 4})
    marks = dict(zip(NAMES, class_marks(3), strict=True))
    for axis, split in zip(figure.axes[::2], ("train", "test"), strict=True):
        for part in axis.collections:
            label = NAMES.index(part.get_gid())
            chosen = points[
                (points.model == "contrastive") & (points.split == split) & (points.label == label)
            ]
            assert np.allclose(part.get_offsets(), chosen[["x", "y"]])
            assert to_hex(part.get_facecolor()[0]).upper() == marks[part.get_gid()].color
        assert texts(axis) == set(NAMES)
    assert figure.axes[0].get_xlim() == figure.axes[2].get_xlim()


def test_several_seeds_have_rows_of_their_own(points):
    twice = pd.concat([points, points.assign(seed=7)])
    figure = draw_tsne(twice, NAMES, {"train": 5, "test": 4})
    assert len(figure.axes) == 8
    assert figure.axes[-1].get_title() == "baseline, test (4 images), seed 7"


@pytest.mark.parametrize(("num_classes", "has_legend"), [(2, True), (100, True), (NUM_MARKS + 1, False)])
def test_the_legend_names_every_class_that_has_a_mark_of_its_own(num_classes, has_legend):
    names = [f"class {index}" for index in range(num_classes)]
    labels = np.arange(num_classes)
    columns = {"model": "m", "seed": 0, "split": "test", "label": labels, "x": labels, "y": labels % 10}
    figure = draw_tsne(pd.DataFrame(columns), names, {"test": num_classes})
    listed = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert listed == (names if has_legend else [])
    assert len(texts(figure.axes[0])) <= 20


def test_names_of_any_length_leave_the_maps_their_room(points):
    names = [letter + "_some_name" * 20 for letter in "abc"]
    figure = draw_tsne(points, names, {"train": 5, "test": 4})
    figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().width > figure.bbox.width / 3
    (legend,) = figure.legends
    assert legend.get_window_extent().width < figure.bbox.width


def test_a_name_in_a_panel_is_tied_to_a_point_that_it_does_not_hide(points):
    figure = draw_tsne(points, NAMES, {"train": 5, "test": 4})
    figure.draw_without_rendering()
    for axis in figure.axes:
        places = {part.get_gid(): np.asarray(part.get_offsets()) for part in axis.collections}
        assert texts(axis) == set(places)
        for text in axis.texts:
            assert np.isclose(places[text.get_text()], text.xy).all(axis=1).any()
            box, whole = text.get_bbox_patch().get_window_extent(), axis.get_window_extent()
            assert not box.contains(*axis.transData.transform(text.xy))
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1


def test_a_step_to_the_right_is_as_long_as_one_up(points):
    figure = draw_tsne(points.assign(y=points["y"] / 10), NAMES, {"train": 5, "test": 4})
    figure.draw_without_rendering()
    for axis in figure.axes:
        (x, y), (right, up) = axis.transData.transform([(0, 0), (1, 1)])
        assert right - x == pytest.approx(up - y)
        extent = axis.get_window_extent()
        assert extent.width / figure.dpi == pytest.approx(MAP_INCHES, abs=0.15)
        assert extent.height == pytest.approx(extent.width)


def test_the_rows_of_the_legend_are_of_one_length():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    labels = np.arange(10)
    columns = {"seed": 0, "split": "test", "label": labels, "x": labels, "y": labels}
    points = pd.concat([pd.DataFrame({**columns, "model": model}) for model in ("a", "b")])
    figure = draw_tsne(points, names, {"test": 10})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    rows = Counter(round(text.get_window_extent().y0) for text in legend.get_texts())
    assert set(rows.values()) == {5}


def test_pointing_tells_id_label_and_prediction(points):
    figure = draw_interactive_tsne(points, NAMES, {"train": 5, "test": 4})
    told = {tuple(row) for trace in figure.data if trace.customdata for row in trace.customdata}
    assert ("image-0", "ant", "") in told
    assert ("image-8", "cat", "<br>predicted bee") in told
    assert len(told) == 9


def test_a_click_on_a_class_reaches_its_traces_in_every_map(points):
    figure = draw_interactive_tsne(points, NAMES, {"train": 5, "test": 4})
    entries = [trace for trace in figure.data if trace.showlegend is not False]
    assert [trace.name for trace in entries] == NAMES
    for name in NAMES:
        axes = {trace.xaxis for trace in figure.data if trace.legendgroup == name and trace.customdata}
        assert axes == {"x", "x2"}


def test_the_still_map_of_very_many_classes_has_no_room_for_a_legend_and_a_group_for_each_mark(rng):
    labels = np.arange(600) % 300
    points = pd.DataFrame({"model": "contrastive", "seed": 0, "split": "test", "label": labels})
    points["x"], points["y"] = rng.normal(size=(2, 600))
    figure = draw_tsne(points, [f"class {index}" for index in range(300)], {"test": 600})
    assert figure.get_size_inches()[1] < 8
    groups, marks = figure.axes[0].collections, class_marks(300)
    assert len(groups) == NUM_MARKS
    colors = [to_hex(group.get_facecolor()[0]) for group in groups]
    drawn = {
        tuple(place): color
        for group, color in zip(groups, colors, strict=True)
        for place in group.get_offsets()
    }
    expected = zip(points["x"], points["y"], labels, strict=True)
    assert drawn == {(x, y): marks[label].color.lower() for x, y, label in expected}


def test_of_very_many_classes_all_share_a_trace_and_keep_their_marks(rng):
    labels, names = np.arange(1200) % 600, [f"class {index}" for index in range(600)]
    x, y = rng.normal(size=(2, 1200))
    columns = {"id": labels.astype(str), "class_name": np.array(names)[labels], "predicted_class": None}
    points = pd.DataFrame({**columns, "split": "train", "label": labels, "x": x, "y": y, "seed": 0})
    both = pd.concat([points.assign(model=model) for model in ("contrastive", "baseline")])
    figure = draw_interactive_tsne(both, names, {"train": 1200})
    assert [len(trace.x) for trace in figure.data] == [1200, 1200]
    marks = class_marks(600)
    assert list(figure.data[0].marker.color) == [marks[label].color for label in labels]
    assert list(figure.data[0].marker.symbol) == [marks[label].symbol for label in labels]
    assert {row[1] for row in figure.data[1].customdata} == set(names)
    assert figure.layout.showlegend is False
    assert draw_interactive_tsne(both[both["label"] < 3], names[:3], {"train": 6}).layout.showlegend


def test_a_long_name_is_short_in_the_legend_and_whole_to_the_pointer(points):
    long = "a" * 200
    points.loc[points["label"] == 0, "class_name"] = long
    figure = draw_interactive_tsne(points, [long, "bee", "cat"], {"train": 5, "test": 4})
    assert len(figure.data[0].name) == 24
    assert long in {row[1] for trace in figure.data if trace.customdata for row in trace.customdata}


def test_names_and_ids_are_text_and_not_markup(points):
    points = points.assign(id="<i>" + points["id"], class_name="<b>bold & 'you'", predicted_class="a</b>")
    figure = draw_interactive_tsne(points, ["<b>bold & 'you'", "bee", "cat"], {"train": 5, "test": 4})
    told = {text for trace in figure.data if trace.customdata for row in trace.customdata for text in row}
    assert {"&lt;b&gt;bold &amp; 'you'", "<br>predicted a&lt;/b&gt;", "&lt;i&gt;image-0"} <= told
    assert not any(re.search("<[ib/]", text.removeprefix("<br>")) for text in told)
    names = {trace.name for trace in figure.data if trace.legendgroup == "<b>bold & 'you'"}
    assert names == {"&lt;b&gt;bold &amp; 'you'"}


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_points_keep_their_places_whatever_the_extent_of_the_map(points, scale):
    scaled = points.assign(x=points["x"] * scale, y=points["y"] * scale)
    figure = draw_interactive_tsne(scaled, NAMES, {"train": 5, "test": 4})
    drawn = sorted(x for trace in figure.data if trace.customdata for x in trace.x)
    assert drawn == pytest.approx(sorted(scaled["x"]), abs=1e-4 * np.ptp(scaled["x"]))
    assert len(set(drawn)) == len(points)


def test_the_menu_shows_a_split_of_a_seed(points):
    twice = pd.concat([points, points.assign(seed=7)])
    figure = draw_interactive_tsne(twice, NAMES, {"train": 5, "test": 4})
    buttons = {button.label: button.args[0]["visible"] for button in figure.layout.updatemenus[0].buttons}
    assert list(buttons) == [
        *(f"{part}, seed 0" for part in ("all splits", "train", "test")),
        *(f"{part}, seed 7" for part in ("all splits", "train", "test")),
    ]
    shown = [trace for trace, is_shown in zip(figure.data, buttons["test, seed 7"], strict=True) if is_shown]
    assert sum(len(trace.customdata or []) for trace in shown) == 8
    assert {trace.meta for trace in shown if trace.customdata} == {"test"}


def test_the_title_says_how_many_images_are_left_out(points):
    assert (
        "9 of 54 images" in draw_interactive_tsne(points, NAMES, {"train": 50, "test": 4}).layout.title.text
    )


def test_a_name_with_dollar_signs_is_no_formula(points):
    names = [*["$\\frac$", "$5 to $10"], "cat"]
    draw_tsne(points, names, {"train": 5, "test": 4}).draw_without_rendering()


def test_the_maps_to_point_at_have_one_scale_for_both_axes(points):
    layout = draw_interactive_tsne(points, NAMES, {"train": 5, "test": 4}).layout
    assert (layout.yaxis.scaleanchor, layout.yaxis2.scaleanchor) == ("x", "x2")
