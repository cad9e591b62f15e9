"""Nodes refuse what was made from other data before they begin."""

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors, join_parts
from supcon_pipeline.pipelines.lr_finder.nodes import trace_stage2_loss
from supcon_pipeline.pipelines.stage2.nodes import train_linear_classifier
from supcon_pipeline.pipelines.swa.nodes import average_checkpoints

CARD = {"data_hash": "this data"}
IMAGES = np.zeros((3, 8, 8, 1), np.uint8)
SAMPLES = pd.DataFrame({"label": [0, 1, 0], "split": ["train", "train", "validation"]})
OTHER = NamedTensors({}, {"data_hash": "other data"})


def test_a_classifier_is_not_trained_on_an_encoder_of_other_data():
    remedy = "type: kedro run --pipelines stage1,stage1_swa"
    message = f"^data_hash of the encoder must be this data, got other data; {remedy}$"
    with pytest.raises(ValueError, match=message):
        train_linear_classifier(OTHER, IMAGES, SAMPLES, CARD, {}, None, None, None)
    with pytest.raises(ValueError, match=message):
        trace_stage2_loss(OTHER, IMAGES, SAMPLES, CARD, None, None)


@pytest.mark.parametrize(
    ("kind", "stage"), [("contrastive", "stage1"), ("classifier", "stage2"), ("image_classifier", "baseline")]
)
def test_checkpoints_of_other_data_are_not_averaged(kind, stage):
    checkpoint = NamedTensors({}, {"data_hash": "other data", "model": {"kind": kind}})
    message = (
        f"data_hash of the checkpoints must be this data, got other data; type: kedro run --pipelines {stage}"
    )
    with pytest.raises(InputError, match=f"^{message}$"):
        average_checkpoints(join_parts([checkpoint]), IMAGES, SAMPLES, CARD, None)


def test_no_rate_is_suggested_for_a_classifier_that_is_not_trained():
    unseen = SAMPLES.assign(label=[0, 1, 2], class_name=["a", "b", "c"])
    with pytest.raises(
        InputError, match=r"where stage 2 trains no classifier; .* --pipelines stage1_lr_finder$"
    ):
        trace_stage2_loss(NamedTensors({}, CARD), IMAGES, unseen, CARD, None, None)
