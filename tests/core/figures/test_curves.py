import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.figures.curves import draw_curves, draw_lr_curve

pytestmark = pytest.mark.usefixtures("no_gpu")


def test_the_curves_of_each_stage_are_in_a_column_of_their_own():
    first = {"epoch": [1, 2], "loss": [3.0, 2.0], "lr": [0.1, 0.05], "embedding.ami": [0.2, 0.4]}
    # The weights beside their average would double every line.
    first["raw.embedding.ami"] = [0.1, 0.3]
    second = {"epoch": [1, 2, 3], "loss": [1.0, 0.9, 0.8], "lr": [0.3, 0.2, 0.1], "accuracy": [0.5, 0.6, 0.7]}
    first, second = {**first, "collapse_loss": [4.0, 4.5]}, {**second, "collapse_loss": [None] * 3}
    figure = draw_curves({"stage 1": pd.DataFrame(first), "stage 2": pd.DataFrame(second)})
    above = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(above) == ["stage 1", "stage 2"]
    drawn = {line.get_label(): line.get_ydata().tolist() for axis in figure.axes[2:4] for line in axis.lines}
    assert drawn == {"embedding.ami": [0.2, 0.4], "accuracy": [0.5, 0.6, 0.7]}
    assert above["stage 1"].lines[0].get_ydata().tolist() == [3.0, 2.0]
    # The loss of a collapsed encoder is drawn where there is one.
    assert above["stage 1"].lines[1].get_ydata().tolist() == [4.0, 4.5]
    assert [len(above[title].lines) for title in above] == [2, 1]
    assert above["stage 2"].lines[0].get_xdata().tolist() == [1, 2, 3]
    rates = [
        axis.lines[0].get_ydata().tolist() for axis in figure.axes if "learning rate" in axis.get_ylabel()
    ]
    assert rates == [[0.1, 0.05], [0.3, 0.2, 0.1]]
    assert {line.get_marker() for axis in figure.axes for line in axis.lines} == {"."}
    figure.draw_without_rendering()


def test_epochs_without_a_validation_leave_no_gap_in_its_curve():
    history = {"epoch": [1, 2, 3], "loss": [1.0, 0.9, 0.8], "lr": [0.1] * 3, "collapse_loss": [None] * 3}
    figure = draw_curves({"stage 2": pd.DataFrame({**history, "accuracy": [0.5, None, 0.7]})})
    (line,) = (line for axis in figure.axes for line in axis.lines if line.get_label() == "accuracy")
    assert np.asarray(line.get_data()).tolist() == [[1, 3], [0.5, 0.7]]


@pytest.fixture
def healthy():
    """The figure of a stage that leaves its collapse behind, and of one with a loss above its accuracy."""
    common = {"epoch": [1, 2, 3], "loss": [5.0, 3.0, 1.0], "lr": [0.1, 0.05, 0.0]}
    first = {**common, "collapse_loss": [6.0] * 3, "embedding.ami": [0.7, 0.8, 0.9]}
    second = {**common, "collapse_loss": [None] * 3, "accuracy": [0.1, 0.3, 0.4], "log_loss": [4.6, 3.0, 2.0]}
    figure = draw_curves({"stage 1": pd.DataFrame(first), "stage 2": pd.DataFrame(second)})
    figure.draw_without_rendering()
    return figure


def test_the_legends_cover_no_curve(healthy):
    legends = [axis.get_legend().get_window_extent() for axis in healthy.axes if axis.get_legend()]
    assert len(legends) == 4
    assert not any(legend.overlaps(axis.get_window_extent()) for legend in legends for axis in healthy.axes)


def test_what_is_better_low_has_an_axis_of_its_own(healthy):
    axes = {line.get_label(): axis for axis in healthy.axes for line in axis.lines}
    assert axes["accuracy"] is not axes["log_loss"]
    assert axes["accuracy"].get_ylim()[1] < 0.5
    assert axes["log_loss"].get_ylabel() == "validation: lower is better (dashed)"
    (dashed,) = axes["log_loss"].lines
    assert dashed.get_linestyle() == "--"
    named = [text.get_text() for text in axes["accuracy"].get_legend().get_texts()]
    assert named == ["accuracy", "log_loss"]
    # A stage without such a metric has no axis for it.
    assert sum("lower is better" in axis.get_ylabel() for axis in healthy.axes) == 1


def test_the_learning_rates_are_drawn_with_the_suggestion():
    curve = pd.DataFrame({"lr": [0.01, 0.1, 1.0], "loss": [3.0, 1.0, 2.0], "smoothed_loss": [3.0, 2.0, 2.5]})
    figure = draw_lr_curve(curve, {"suggested_lr": 0.01, "lowest_lr": 0.1})
    (axis,) = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_data()).tolist() for line in axis.lines}
    assert drawn["loss of each step"] == [[0.01, 0.1, 1.0], [3.0, 1.0, 2.0]]
    assert drawn["smoothed"] == [[0.01, 0.1, 1.0], [3.0, 2.0, 2.5]]
    assert (drawn["suggested: 0.01"][0], drawn["lowest: 0.1"][0]) == ([0.01] * 2, [0.1] * 2)
    assert axis.get_xscale() == "log"
    figure.draw_without_rendering()


def test_a_loss_that_breaks_out_leaves_the_fall_before_it_room():
    curve = pd.DataFrame({"lr": [0.01, 0.1, 1.0, 9.0], "loss": 0.0, "smoothed_loss": [3.0, 2.0, 2.5, 80.0]})
    (axis,) = draw_lr_curve(curve, {"suggested_lr": 0.01, "lowest_lr": 0.1}).axes
    bottom, top = axis.get_ylim()
    assert bottom < 2
    assert 3 < top < 4
    # One that never falls is shown whole.
    (axis,) = draw_lr_curve(curve.iloc[1:], {"suggested_lr": 0.1, "lowest_lr": 0.1}).axes
    assert axis.get_ylim()[1] > 80
