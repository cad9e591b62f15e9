import logging
import re

import numpy as np
import pytest
from tests.core.training.trainings import CARD, read_parameters, stage1_parameters

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.stages import BaselineParameters, BaselineTraining, Stage1Parameters
from supcon_pipeline.core.training.recipes import baseline_stage, contrastive_stage
from supcon_pipeline.core.training.stage import build_training

BASELINE = BaselineParameters.model_validate(read_parameters("baseline"))


def uneven_data(num_common: int, class_names: dict[int, str]) -> LabelledImages:
    """Two images of class 1 and many of class 0 to train on."""
    labels = np.array([1, 1, *[0] * num_common, 0, 1])
    splits = np.array(["train"] * (num_common + 2) + ["validation"] * 2)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 1), dtype=np.uint8)
    return LabelledImages(images, labels, splits, class_names)


def warnings_of(data: LabelledImages, caplog: pytest.LogCaptureFixture, **changes: object) -> list[str]:
    with caplog.at_level(logging.WARNING, logger="supcon_pipeline.core.training.stage"):
        build_training(contrastive_stage(data, CARD, stage1_parameters(**changes)), data)
    return caplog.messages


@pytest.mark.parametrize(("num_common", "is_rare"), [(10, False), (11, True)])
def test_a_class_that_is_often_alone_in_a_batch_is_named_where_batches_are_made(
    caplog: pytest.LogCaptureFixture, num_common: int, is_rare: bool
) -> None:
    found = warnings_of(uneven_data(num_common, {0: "cat", 1: "dog"}), caplog)
    assert [text[:32] for text in found] == (["dog has 2 of 13 training images:"] if is_rare else [])
    assert all("--params stage1.loader.sampler=class_balanced" in text for text in found)


@pytest.mark.parametrize(("batch_size", "images_per_class"), [(2, None), (4, 2), (6, 3), (9, None), (12, 6)])
def test_the_suggested_balance_is_one_that_the_loader_takes(
    caplog: pytest.LogCaptureFixture, batch_size: int, images_per_class: int | None
) -> None:
    data = uneven_data(100, {})
    (text,) = warnings_of(data, caplog, loader={"batch_size": batch_size, "num_workers": 0})
    found = re.search(r"images_per_class=(\d+)", text)
    assert (found and int(found[1])) == images_per_class
    if found:
        loader = {"sampler": "class_balanced", "images_per_class": images_per_class}
        stage = contrastive_stage(
            data, CARD, stage1_parameters(loader={"batch_size": batch_size, "num_workers": 0, **loader})
        )
        build_training(stage, data)


def test_a_batch_of_more_classes_than_there_are_names_the_parameter_and_a_size_that_fits() -> None:
    data = uneven_data(30, {})
    loader = {"batch_size": 8, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2}
    remedy = r"stage1\.loader\.batch_size must be at most 4 .*; add --params stage1\.loader\.batch_size=4$"
    with pytest.raises(InputError, match=remedy):
        build_training(contrastive_stage(data, CARD, stage1_parameters(loader=loader)), data)


def test_a_class_without_a_name_is_called_by_its_label(caplog: pytest.LogCaptureFixture) -> None:
    assert [text[:7] for text in warnings_of(uneven_data(30, {}), caplog)] == ["class 1"]


def test_no_class_is_alone_in_balanced_batches_or_for_a_loss_without_labels(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = uneven_data(30, {})
    loader = {"batch_size": 4, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2}
    assert warnings_of(data, caplog, loader=loader) == []
    loss = {**read_parameters("stage1")["loss"], "name": "simclr"}
    assert warnings_of(data, caplog, loss=loss) == []


def test_cross_entropy_needs_no_positive(caplog: pytest.LogCaptureFixture) -> None:
    data = uneven_data(30, {})
    build_training(baseline_stage(data, CARD, stage1_parameters(), BASELINE), data)
    assert caplog.messages == []


def test_the_baseline_has_every_parameter_of_stage_1_but_those_of_its_head_and_loss() -> None:
    fields = BaselineTraining.model_fields.keys() - {"label_smoothing"}
    assert fields == Stage1Parameters.model_fields.keys() - {"projection", "loss"}


@pytest.mark.parametrize("name", sorted(Stage1Parameters.model_fields.keys() - {"projection", "loss"}))
def test_one_mapping_of_parameters_feeds_metadata_and_identity_of_the_baseline(name: str) -> None:
    stage = baseline_stage(uneven_data(30, {}), CARD, stage1_parameters(), BASELINE)
    assert name in stage.metadata("r1")["parameters"]
    is_without_effect = name in ("validation_batch_size", "progress_minutes")
    assert (name in stage.identity()["parameters"]) != is_without_effect


def test_the_words_of_a_stage_are_no_part_of_its_identity() -> None:
    stage = contrastive_stage(uneven_data(30, {}), CARD, stage1_parameters())
    assert (stage.identity()["stage"], stage.title) == ("stage1", "stage 1")
