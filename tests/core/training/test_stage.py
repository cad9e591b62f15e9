from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.core.data.packings import encoded_in
from tests.core.training.trainings import (
    CARD,
    make_data,
    read_parameters,
    stage1_parameters,
    stage2_parameters,
)

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.stages import BaselineParameters, BaselineTraining, Stage1Parameters
from supcon_pipeline.core.training.recipes import baseline_stage, classifier_stage, contrastive_stage
from supcon_pipeline.core.training.stage import build_training

pytestmark = pytest.mark.usefixtures("no_gpu")

BASELINE = BaselineParameters.model_validate(read_parameters("baseline"))


def uneven_data(num_common: int, class_names: dict[int, str]) -> LabelledImages:
    """Two images of class 1 and many of class 0 to train on."""
    labels = np.array([1, 1, *[0] * num_common, 0, 1])
    splits = np.array(["train"] * (num_common + 2) + ["validation"] * 2)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 1), dtype=np.uint8)
    return LabelledImages(images, labels, splits, class_names)


def test_a_batch_of_more_classes_than_there_are_names_the_parameter_and_a_size_that_fits() -> None:
    data = uneven_data(30, {})
    loader = {"batch_size": 8, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2}
    remedy = r"stage1\.loader\.batch_size must be at most 4 .*; add --params stage1\.loader\.batch_size=4$"
    with pytest.raises(InputError, match=remedy):
        build_training(contrastive_stage(data, CARD, stage1_parameters(loader=loader)), data)


def test_the_baseline_has_every_parameter_of_stage_1_but_those_of_its_head_and_loss() -> None:
    fields = BaselineTraining.model_fields.keys() - {"label_smoothing", "logit_adjustment"}
    assert fields == Stage1Parameters.model_fields.keys() - {"projection", "loss"}


@pytest.mark.parametrize("name", sorted(Stage1Parameters.model_fields.keys() - {"projection", "loss"}))
def test_one_mapping_of_parameters_feeds_metadata_and_identity_of_the_baseline(name: str) -> None:
    stage = baseline_stage(uneven_data(30, {}), CARD, stage1_parameters(), BASELINE)
    assert name in stage.metadata("r1")["parameters"]
    is_without_effect = name in ("processes", "validation_batch_size", "progress_minutes")
    assert (name in stage.identity()["parameters"]) != is_without_effect


def test_the_words_of_a_stage_are_no_part_of_its_identity() -> None:
    stage = contrastive_stage(uneven_data(30, {}), CARD, stage1_parameters())
    assert (stage.identity()["stage"], stage.title) == ("stage1", "stage 1")


def test_batches_of_one_category_need_a_category_of_every_image() -> None:
    data = make_data(num_classes=6)
    loader = {"batch_size": 4, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2}
    params = stage1_parameters(loader={**loader, "within_category": True})
    remedy = (
        r"stage1\.loader\.within_category must be false for images without categories, got true; .* or add "
        r"--params stage1\.loader\.within_category=false$"
    )
    with pytest.raises(InputError, match=remedy):
        build_training(contrastive_stage(data, CARD, params), data)
    data = replace(data, categories=np.array(["bag", "shoe"])[data.labels % 2])
    training = build_training(contrastive_stage(data, CARD, params), data)
    kinds = [set((batch.labels % 2).tolist()) for batch in training.loader.epoch(0)]
    assert sorted(kinds, key=min)[:: len(kinds) - 1] == [{0}, {1}]
    assert all(len(kind) == 1 for kind in kinds)


def test_what_is_kept_lies_as_near_to_the_start_as_the_classes_say_where_others_are_held_out() -> None:
    known, finetune = make_data(), {"start_images": 12, "start_classes": 3}
    unseen = LabelledImages(known.images, known.labels + 3 * (known.splits != "train"), known.splits)
    shares = {}
    for data in (known, unseen):
        training = build_training(contrastive_stage(data, CARD, stage1_parameters(finetune=finetune)), data)
        assert training.blend is not None
        shares[data.has_unseen_classes] = training.blend.start_share
    assert shares == {False: 12 / (12 + 36), True: 3 / (3 + 3)}


@pytest.mark.parametrize("kind", ["stage1", "stage2", "baseline"])
def test_views_that_are_too_small_for_the_network_are_refused_before_the_first_step(kind: str) -> None:
    data = uneven_data(30, {})
    # Of a size that only the second half of a training would have, or of a transform's own.
    small = {"view_sizes": (16, 8), "transforms": []}
    backbone = {**read_parameters("stage1")["backbone"], "name": "whitened_cnn"}
    params = stage1_parameters(backbone=backbone, **small)
    stage = contrastive_stage(data, CARD, params)
    if kind == "baseline":
        stage = baseline_stage(data, CARD, params, BASELINE)
    if kind == "stage2":
        encoder = NamedTensors(stage.model.state_dict(), {"model": stage.description})
        resize = {"name": "Resize", "args": {"height": 8, "width": 8}}
        stage = classifier_stage(encoder, data, CARD, stage2_parameters(transforms=[resize]))
    group = "stage2" if kind == "stage2" else "stage1"
    message = rf"{group}\.transforms must give views that suit the network, got 8 x 8 pixels"
    with pytest.raises(InputError, match=message):
        build_training(stage, data)


@pytest.mark.parametrize("key", ["stage2", "published"])
def test_the_optimizer_of_a_linear_classifier_is_that_of_stage_2(key: str) -> None:
    data, params = uneven_data(30, {}), stage1_parameters()
    start = contrastive_stage(data, CARD, params)
    encoder = NamedTensors(start.model.state_dict(), {"model": start.description})
    stage = classifier_stage(encoder, data, CARD, stage2_parameters(), key)
    assert (stage.key, stage.group, stage.optimizer_group) == (key, "stage2", "stage2")


@pytest.mark.parametrize(
    ("name", "value"),
    [("start_images", 150), ("start_classes", 40), ("freeze_epochs", 1), ("freeze_batch_norm", True)],
)
def test_keeping_to_random_weights_is_warned_of(
    name: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    contrastive_stage(uneven_data(30, {}), CARD, stage1_parameters(finetune={name: value}))
    assert f"stage1.finetune.{name} keeps to the weights that resnet_narrow starts from" in caplog.text
    # There are none published of this network, so that pretrained=true would be refused.
    assert "start from others with --params stage1.backbone.weights=<file>, or" in caplog.text
    caplog.clear()
    contrastive_stage(uneven_data(30, {}), CARD, stage1_parameters(finetune={"layer_decay": 0.8}))
    assert not caplog.text


def test_freezing_all_that_is_trained_is_refused_before_the_first_step() -> None:
    data, frozen = make_data(), {"finetune": {"freeze_epochs": 1}, "projection": None}
    message = (
        r"^stage1\.finetune\.freeze_epochs must be 0 where nothing but the backbone is trained, got 1; add "
        r"--params stage1\.finetune\.freeze_epochs=0, or .* --params stage1\.loss\.classifier_weight=1$"
    )
    with pytest.raises(InputError, match=message):
        build_training(contrastive_stage(data, CARD, stage1_parameters(**frozen)), data)
    for head in ({"embedding_dim": 8}, {"projection": {"hidden_dim": 8, "dim": 4}}):
        build_training(contrastive_stage(data, CARD, stage1_parameters(**{**frozen, **head})), data)


def test_view_sizes_are_those_of_the_views_whatever_the_transforms() -> None:
    data = uneven_data(30, {})
    params = stage1_parameters(view_sizes=(8, 24), transforms=[{"name": "HorizontalFlip"}])
    loader = build_training(contrastive_stage(data, CARD, params), data).loader
    assert [next(iter(loader.epoch(epoch))).views.shape[2] for epoch in (0, 3)] == [8, 24]


def test_encoded_images_are_seen_at_the_sizes_of_views_without_transforms_too(tmp_path: Path) -> None:
    data = make_data(size=24)
    stored = encoded_in(tmp_path / "images.npy", list(data.images), size=24, num_channels=1)
    params = stage1_parameters(view_sizes=(8, 16), transforms=[])
    for images in (data.images, stored):
        known = replace(data, images=images)
        loader = build_training(contrastive_stage(known, CARD, params), known).loader
        assert [next(iter(loader.epoch(epoch))).views.shape[2] for epoch in (0, 3)] == [8, 16]


def test_a_crop_that_leaves_no_pixel_is_refused() -> None:
    message = r"^stage1\.center_crop must leave at least one of the 16 pixels that are stored, got 0\.02; "
    with pytest.raises(InputError, match=message):
        contrastive_stage(make_data(), CARD, stage1_parameters(center_crop=0.02))


def test_view_sizes_that_a_size_of_a_transform_makes_idle_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = make_data()
    for args in ({"height": 12, "width": 12}, {}):
        params = stage1_parameters(view_sizes=(8, 24), transforms=[{"name": "Resize", "args": args}])
        build_training(contrastive_stage(data, CARD, params), data)
        said = "stage1.view_sizes changes nothing, as transforms make views of 12 x 12 pixels; "
        assert (said in caplog.text) is bool(args)
        caplog.clear()


@pytest.mark.parametrize("kind", ["stage1", "stage2"])
@pytest.mark.parametrize(
    ("transform", "is_whole"), [("RandomResizedCrop", True), ("Resize", True), ("HorizontalFlip", False)]
)
def test_of_a_view_that_a_transform_has_cut_the_network_sees_all(
    kind: str, transform: str, is_whole: bool
) -> None:
    data, transforms = make_data(), [{"name": transform}]
    stage = contrastive_stage(data, CARD, stage1_parameters(center_crop=0.75, transforms=transforms))
    if kind == "stage2":
        encoder = NamedTensors(stage.model.state_dict(), {"model": stage.description})
        stage = classifier_stage(encoder, data, CARD, stage2_parameters(transforms=transforms))
    training = build_training(stage, data)
    training.begin_epoch(0)
    (views, *_) = (batch.views[:, 0] for batch in training.loader.epoch(0))
    encoder, whole = training.model.encoder, (views.permute(0, 3, 1, 2) / 255 - 0.5) / 0.3
    seen = encoder.pixels(views)
    assert (seen.shape, torch.allclose(seen, whole)) == (whole.shape, is_whole)
    training.model.eval()
    assert not torch.allclose(encoder.pixels(views), whole)


def test_views_as_large_as_stored_images_are_trained_on_and_tried_as_they_are() -> None:
    data = uneven_data(30, {})
    stored = data.images.shape[1]
    params = stage1_parameters(view_size=stored // 2, view_sizes=(stored,), center_crop=0.75)
    stage = contrastive_stage(data, CARD, params)
    training = build_training(stage, data)
    views = next(iter(training.loader.epoch(0))).views
    assert views.shape[2] == stored
    seen = []
    training.model.encoder.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    training.model(views.flatten(0, 1))
    assert seen[0][-1] == stored
    # A network for one size alone.
    stage.model.encoder.backbone.register_forward_pre_hook(_refuse_other_sizes(stored // 2))
    with pytest.raises(InputError, match=rf"stage1\.transforms must give views .* got {stored} x {stored}"):
        build_training(stage, data)


def _refuse_other_sizes(side: int) -> Callable[[torch.nn.Module, tuple[torch.Tensor]], None]:
    def refuse(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].shape[-1] != side:
            raise RuntimeError(f"images of {side} pixels are needed")

    return refuse
