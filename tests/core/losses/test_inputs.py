import pytest
import torch
from tests.core.losses.rows import LABELS, unit_rows

from supcon_pipeline.core.losses import sincere_loss, supcon_loss


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_not_above_zero_is_refused(loss, temperature):
    with pytest.raises(ValueError, match="temperature must be above 0, got"):
        loss(unit_rows(6), LABELS, temperature)


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize("shape", [(6, 5), (6,), (6, 2, 5, 1)])
def test_projections_of_another_shape_are_refused(loss, shape):
    with pytest.raises(ValueError, match=r"projections must be floats \[batch, views, dim\], got"):
        loss(torch.randn(shape), LABELS)


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:5],
        LABELS.float(),
        LABELS > 0,
        LABELS[:, None],
        torch.ones(6, 3, 1),
        torch.ones(5, 3),
        torch.tensor(1),
    ],
)
def test_labels_of_another_shape_or_kind_are_refused(loss, labels):
    with pytest.raises(ValueError, match=r"labels must be integers \[batch\] or class probabilities"):
        loss(unit_rows(6), labels)
