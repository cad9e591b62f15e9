import numpy as np
import pytest

from supcon_pipeline.core.figures.calibration import draw_calibration


def scores(error, accuracy):
    reliability = {"confidence": [0.5, 0.9], "accuracy": accuracy, "count": [3, 40]}
    return {"expected_calibration_error": error, "reliability": reliability}


def test_each_classifier_has_its_curve_before_and_after_scaling():
    linear = {**scores(0.2, [0.3, 0.8]), "calibrated": {"temperature": 1.5, **scores(0.05, [0.5, 0.9])}}
    figure = draw_calibration({"linear classifier": linear, "k-NN": linear})
    above, other, below, _ = figure.axes
    assert [axis.get_title() for axis in (above, other)] == ["linear classifier", "k-NN"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in above.lines}
    assert drawn == {
        "perfect": [0, 1],
        "before scaling: ECE 0.200": [0.3, 0.8],
        "temperature 1.50: ECE 0.050": [0.5, 0.9],
    }
    assert [list(line.get_ydata()) for line in below.lines] == [[3, 40], [3, 40]]
    figure.draw_without_rendering()


@pytest.mark.parametrize("confidence", [[0.1, 0.2, 0.3], [0.9, 0.95, 1.0]])
def test_the_legend_covers_no_point(confidence):
    accuracy = [1 - value for value in confidence]
    bins = {"reliability": {"confidence": confidence, "accuracy": accuracy, "count": [3, 4, 5]}}
    linear = {**bins, "expected_calibration_error": 0.9}
    figure = draw_calibration({"linear": {**linear, "calibrated": {"temperature": 1.5, **linear}}})
    figure.draw_without_rendering()
    above, _ = figure.axes
    covered = above.get_legend().get_window_extent()
    points = above.transData.transform(np.column_stack([confidence, accuracy]))
    assert not any(covered.contains(*point) for point in points)
