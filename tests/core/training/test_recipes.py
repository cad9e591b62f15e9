import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pytorch_metric_learning.losses import SupConLoss
from tests.core.training.trainings import read_parameters, stage1_parameters, stage2_parameters
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.data.subsets import limit_rows
from supcon_pipeline.core.losses import proxy_anchor_loss, sincere_loss, supcon_loss
from supcon_pipeline.core.metrics.features import embedding_metrics
from supcon_pipeline.core.metrics.unseen import unseen_metrics
from supcon_pipeline.core.models.encoder import LinearProbe, build_classifier, build_model, restore_model
from supcon_pipeline.core.models.whitening import whiten_within_classes
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.parameters.stages import BaselineParameters
from supcon_pipeline.core.training.criteria import (
    classification_criterion,
    collapse_loss,
    contrastive_criterion,
)
from supcon_pipeline.core.training.loop import train_step
from supcon_pipeline.core.training.recipes import baseline_stage, classifier_stage, contrastive_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.training.validation import validate_classifier, validate_features
from supcon_pipeline.core.views.loading import Batch
from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset

pytestmark = pytest.mark.usefixtures("no_gpu")

MEAN, STD = [0.4] * 3, [0.3] * 3
ORIGIN = {"data_hash": "d1", "crop": "pad"}
CARD = {"mean": MEAN, "std": STD, **ORIGIN}
IMAGENET_STEM = {"name": "resnet_narrow", "stem": "imagenet", "pretrained": False, "weights": None}
ENCODER = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "image_size": 8,
    "mean": MEAN,
    "std": STD,
    "hidden_dim": 8,
    "dim": 4,
    "num_classes": 0,
}
JOINT = {"name": "supcon", "temperature": 0.1, "classifier_weight": 0.5, "label_smoothing": 0.1}


@pytest.fixture
def batch():
    views = torch.randint(0, 256, (6, 2, 2, 2, 3), dtype=torch.uint8)
    return Batch(views, torch.tensor([0, 1, 2, 0, 1, 0]))


@pytest.fixture
def outputs():
    """Of the views of the batch: image by image, and view by view of each."""
    projection = functional.normalize(torch.randn(12, 5), dim=1)
    return {"embedding": torch.randn(12, 7), "projection": projection, "logits": torch.randn(12, 3)}


def loss_parameters(name="supcon", temperature=0.2, classifier_weight=0.0, label_smoothing=0.0):
    return ContrastiveLossParameters(
        name=name,
        temperature=temperature,
        classifier_weight=classifier_weight,
        label_smoothing=label_smoothing,
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_the_classification_loss_is_that_of_a_slow_loop_over_views(batch, outputs, label_smoothing):
    losses = []
    for image, label in enumerate(batch.labels):
        for view in range(2):
            log_shares = outputs["logits"][2 * image + view].log_softmax(dim=0)
            target = functional.one_hot(label, 3) * (1 - label_smoothing) + label_smoothing / 3
            losses.append(-(target * log_shares).sum())
    loss = classification_criterion(label_smoothing)(outputs, batch)
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_the_contrastive_loss_is_that_of_pytorch_metric_learning(batch, outputs):
    reference = SupConLoss(temperature=0.2)
    by_view = torch.cat([outputs["projection"][view::2] for view in range(2)])
    loss = contrastive_criterion(loss_parameters())(outputs, batch)
    torch.testing.assert_close(loss, reference(by_view, batch.labels.repeat(2)))


def test_each_contrastive_loss_is_known_by_its_name(batch, outputs):
    projections = outputs["projection"].view(6, 2, 5)
    expected = {
        "supcon": supcon_loss(projections, batch.labels, 0.2),
        "simclr": supcon_loss(projections, None, 0.2),
        "sincere": sincere_loss(projections, batch.labels, 0.2),
    }
    assert len({round(loss.item(), 4) for loss in expected.values()}) == 3
    for name, loss in expected.items():
        assert torch.equal(contrastive_criterion(loss_parameters(name))(outputs, batch), loss)


def test_proxies_are_compared_with_the_projections_of_all_views(labelled_splits):
    loss = {**JOINT, "name": "proxy_anchor", "classifier_weight": 0.0, "label_smoothing": 0.0}
    stage = stage1(labelled_splits, loss=loss)
    training = build_training(stage, labelled_splits)
    batch = next(training.loader.epoch(0))
    before = stage.model.proxies.detach().clone()
    views = batch.views.flatten(0, 1)
    # The same in training and evaluation mode, as nothing but batch-norm differs there.
    stage.model.train()
    projection = stage.model(views)["projection"]
    similarities = projection @ functional.normalize(before, dim=1).T
    labels = batch.labels.repeat_interleave(batch.views.shape[1])
    expected = proxy_anchor_loss(similarities, labels, 0.1)
    assert train_step(training, batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)
    assert not torch.equal(stage.model.proxies, before)
    # What is kept can be rebuilt, and embeds without them.
    model = build_model(stage.description)
    assert model.proxies.shape == before.shape == (labelled_splits.num_classes, stage.params.projection.dim)
    assert set(model.eval()(views)) == {"embedding", "projection"}


@pytest.mark.parametrize("name", ["supcon", "simclr", "sincere"])
def test_a_classifier_head_adds_its_weighted_cross_entropy(batch, outputs, name):
    contrastive = contrastive_criterion(loss_parameters(name))(outputs, batch)
    cross_entropy = classification_criterion(0.1)(outputs, batch)
    joint = contrastive_criterion(loss_parameters(name, classifier_weight=0.5, label_smoothing=0.1))
    torch.testing.assert_close(joint(outputs, batch), contrastive + 0.5 * cross_entropy)


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 0, 0, 0], [5, 2, 2, 2, 9, 5], [3, 1, 2]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_of_a_collapsed_encoder_is_that_of_constant_projections(labels, num_views, temperature):
    labels = torch.tensor(labels)
    row = functional.normalize(torch.randn(8, dtype=torch.float64), dim=0)
    projections = row.expand(len(labels), num_views, 8)
    losses = {
        "supcon": supcon_loss(projections, labels, temperature),
        "simclr": supcon_loss(projections, None, temperature),
        "sincere": sincere_loss(projections, labels, temperature),
    }
    for name, loss in losses.items():
        assert collapse_loss(name)(labels, num_views) == pytest.approx(loss.item(), rel=1e-6, abs=1e-9)


def test_the_loss_of_a_collapsed_encoder_by_hand():
    labels = torch.tensor([0, 0, 0, 1])
    assert collapse_loss("supcon")(labels, 2) == collapse_loss("simclr")(labels, 2) == math.log(7)
    # Six rows have 2 negatives, two have 6.
    expected = (6 * math.log(3) + 2 * math.log(7)) / 8
    assert collapse_loss("sincere")(labels, 2) == pytest.approx(expected)


def test_the_loss_of_a_collapsed_encoder_by_one_view_is_that_of_the_images_with_a_positive():
    labels, alone = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 2])
    assert collapse_loss("supcon")(labels, 1) == math.log(5)
    # Three images have 3 negatives, two have 4; the one that is alone is left out.
    expected = (3 * math.log(4) + 2 * math.log(5)) / 5
    assert collapse_loss("sincere")(labels, 1) == pytest.approx(expected)
    assert collapse_loss("supcon")(alone, 1) == collapse_loss("sincere")(alone, 1) == 0.0
    assert collapse_loss("supcon")(alone[:1], 1) == 0.0


@pytest.mark.parametrize("name", ["supcon", "sincere"])
def test_one_view_is_enough_for_a_loss_with_labels(labelled_splits, name):
    loss = {**JOINT, "name": name, "classifier_weight": 0.0, "label_smoothing": 0.0}
    loader = {"batch_size": 6, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 3}
    stage = stage1(labelled_splits, loss=loss, num_views=1, loader=loader)
    training = build_training(stage, labelled_splits)
    batch = next(training.loader.epoch(0))
    assert batch.views.shape == (6, 1, 8, 8, 3)
    first = train_step(training, batch)[0]
    assert first > 0
    for _ in range(5):
        last = train_step(training, batch)[0]
    assert last < first


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_stage_1_learns_from_mixed_images(labelled_splits, micro_batch_size):
    mixing = {"name": "both", "alpha": 1.0, "probability": 0.5}
    stage = stage1(labelled_splits, loss=JOINT, mixing=mixing, micro_batch_size=micro_batch_size)
    training = build_training(stage, labelled_splits)
    batch = next(training.loader.epoch(0))
    assert batch.labels.shape == (len(batch.views), 3)
    first = train_step(training, batch)[0]
    for _ in range(5):
        last = train_step(training, batch)[0]
    assert last < first


def test_the_classifier_and_the_baseline_learn_from_mixed_images(labelled_splits, encoder):
    mixing = {"name": "cutmix", "alpha": 1.0, "probability": 1.0}
    second = classifier_stage(encoder, labelled_splits, CARD, stage2_parameters(mixing=mixing))
    assert changed_by_a_step(second, labelled_splits) == {"classifier.weight", "classifier.bias"}
    beside = baseline(labelled_splits, {"mixing": mixing})
    assert next(build_training(beside, labelled_splits).loader.epoch(0)).labels.is_floating_point()
    assert changed_by_a_step(beside, labelled_splits) == {name for name, _ in beside.model.named_parameters()}


def test_features_are_validated_by_searching_the_training_images(labelled_splits):
    model = build_model(ENCODER).eval()
    metrics = validate_features(labelled_splits, batch_size=10)(model)
    images, labels, splits = labelled_splits.images, labelled_splits.labels, labelled_splits.splits
    expected = {}
    for name in ("embedding", "projection"):
        with torch.inference_mode():
            rows = model(torch.from_numpy(images))[name].numpy()
        queries, references = splits == "validation", splits == "train"
        scores = embedding_metrics(rows[queries], labels[queries], rows[references], labels[references])
        expected.update({f"{name}.{metric}": value for metric, value in scores.items()})
    assert metrics == pytest.approx(expected)


@pytest.fixture
def unseen_splits(labelled_splits):
    """The same images, as six classes of which train has the first two."""
    labels = labelled_splits.labels + 3 * (np.arange(42) % 2)
    splits = np.array(["train", "train", "validation", "validation", "test", "test"], dtype=object)[labels]
    return replace(labelled_splits, labels=labels, splits=splits, copies=np.arange(42))


def test_classes_that_train_lacks_are_validated_by_searching_them_among_one_another(unseen_splits):
    model = build_model(ENCODER).eval()
    metrics = validate_features(unseen_splits, batch_size=10)(model)
    chosen = unseen_splits.indices("validation")
    for name in ("embedding", "projection"):
        with torch.inference_mode():
            rows = model(torch.from_numpy(unseen_splits.images[chosen]))[name].numpy()
        expected = unseen_metrics(rows, unseen_splits.labels[chosen], chosen)
        assert expected == {key: pytest.approx(metrics[f"{name}.{key}"]) for key in expected}
    assert len(metrics) == 2 * len(expected)


def test_more_validation_images_than_the_limit_are_validated_by_the_same_sample_each_time(
    labelled_splits, unseen_splits, caplog
):
    model = build_model(ENCODER).eval()
    for data in (labelled_splits, unseen_splits):
        rows = data.indices("validation")
        caplog.clear()
        with caplog.at_level(logging.INFO):
            validate = validate_features(data, 10, len(rows) - 2, seed=3)
        metrics = validate(model)
        assert [record.getMessage() for record in caplog.records] == [
            f"{len(rows) - 2} of {len(rows)} validation images are searched for "
            "(stage1.max_validation_queries), drawn by seed 3"
        ]
        assert metrics.keys() == validate_features(data, 10)(model).keys()
        assert validate(model) == metrics
        # As many as there are is no limit.
        assert validate_features(data, 10, len(rows))(model) == validate_features(data, 10)(model)


def test_the_sample_of_a_validation_is_drawn_class_by_class(labelled_splits):
    model = build_model(ENCODER).eval()
    rows = labelled_splits.indices("validation")
    chosen = limit_rows(rows, labelled_splits.labels[rows], 5, 1, "", "")
    splits = np.where(
        np.isin(np.arange(42), rows) & ~np.isin(np.arange(42), chosen), "", labelled_splits.splits
    )
    fewer = replace(labelled_splits, splits=splits)
    assert validate_features(labelled_splits, 10, 5, seed=1)(model) == validate_features(fewer, 10)(model)


def test_the_limit_of_a_validation_is_that_of_stage_1_for_the_baseline_too(
    labelled_splits, unseen_splits, caplog
):
    with caplog.at_level(logging.INFO):
        stage1(labelled_splits, max_validation_queries=2)
        baseline(unseen_splits, {"max_validation_queries": 2})
    said = [
        record.getMessage() for record in caplog.records if "max_validation_queries" in record.getMessage()
    ]
    assert len(said) == 2


def test_the_heads_of_trainings_know_the_classes_of_train_alone(unseen_splits):
    assert baseline(unseen_splits).description["num_classes"] == 2
    assert stage1(unseen_splits, loss=JOINT).description["num_classes"] == 2


def test_the_baseline_of_classes_that_train_lacks_is_chosen_by_its_embeddings(unseen_splits):
    stage = baseline(unseen_splits)
    metrics = stage.validate(stage.model.eval())
    assert stage.params.checkpoints.metric == "embedding.mean_average_precision_at_r"
    assert stage.params.checkpoints.metric in metrics
    assert "accuracy" not in metrics
    # As a plain value, for the checkpoints.
    assert stage.parameters()["checkpoints"]["metric"] == "embedding.mean_average_precision_at_r"


@pytest.fixture
def probe():
    return LinearProbe(build_model(ENCODER).encoder, build_classifier(256, 3)).eval()


def test_the_classifier_is_validated_by_its_right_answers_and_how_sure_it_is_of_them(labelled_splits, probe):
    is_right, log_shares = [], []
    for index in labelled_splits.indices("validation"):
        image = torch.from_numpy(labelled_splits.images[index][None])
        shares = probe(image)["logits"][0].softmax(dim=0)
        is_right.append(shares.argmax().item() == labelled_splits.labels[index])
        log_shares.append(shares[labelled_splits.labels[index]].log().item())
    metrics = validate_classifier(labelled_splits, batch_size=4)(probe)
    assert metrics == pytest.approx({"accuracy": np.mean(is_right), "log_loss": -np.mean(log_shares)})


def test_an_adjusted_classifier_is_validated_as_it_was_fitted_and_by_the_answers_that_it_will_give(
    labelled_splits, probe
):
    plain, offsets = validate_classifier(labelled_splits, 4)(probe), torch.tensor([0.7, 0.2, 0.1]).log()
    adjusted = validate_classifier(labelled_splits, 4, logit_offsets=offsets)(probe)
    with torch.no_grad():
        probe.classifier.bias += offsets
    assert adjusted["log_loss"] == pytest.approx(validate_classifier(labelled_splits, 4)(probe)["log_loss"])
    assert adjusted["accuracy"] == plain["accuracy"]
    assert adjusted["log_loss"] != pytest.approx(plain["log_loss"])


def test_labels_of_another_integer_type_give_the_same_metrics(labelled_splits, probe):
    narrow = replace(labelled_splits, labels=labelled_splits.labels.astype(np.int32))
    assert validate_classifier(narrow, 4)(probe) == validate_classifier(labelled_splits, 4)(probe)


def stage1(data, **changes):
    small = {"projection": {"hidden_dim": 8, "dim": 4}, "transforms": [], **changes}
    return contrastive_stage(data, CARD, stage1_parameters(**small))


def baseline(data, stage1_changes=(), **changes):
    values = {**read_parameters("baseline"), "optimizer": read_parameters("stage1")["optimizer"], **changes}
    params = BaselineParameters.model_validate(values)
    return baseline_stage(data, CARD, stage1_parameters(**dict(stage1_changes)), params)


@pytest.fixture
def encoder():
    return NamedTensors(build_model(ENCODER).state_dict(), {"model": ENCODER})


def test_stage_1_says_what_its_checkpoints_are_of(labelled_splits):
    stage = stage1(labelled_splits)
    parameters = stage.params.model_dump(mode="json")
    assert stage.metadata("r1") == {"model": ENCODER, "run_id": "r1", "parameters": parameters, **ORIGIN}
    assert stage.model.classifier is None
    rebuilt = build_model(stage.description)
    rebuilt.load_state_dict(stage.state_of(stage.model))


@pytest.mark.parametrize("kind", ["stage 1", "baseline"])
def test_images_reach_weights_of_timm_as_timm_would_show_them(tmp_path, rng, kind):
    network = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    backbone = {"name": "timm/test_vit", "stem": "imagenet", "pretrained": False}
    backbone["weights"] = str(tmp_path / "weights.pth")
    images = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    splits = np.repeat(np.array(["train", "validation", "test"]), 10)
    data = LabelledImages(images, np.arange(30) % 3, splits)
    stage = stage1(data, backbone=backbone) if kind == "stage 1" else baseline(data, {"backbone": backbone})
    config = timm.data.resolve_model_data_config(network)
    as_timm_does = timm.data.create_transform(**{**config, "input_size": (3, 32, 32), "crop_pct": 1.0})
    expected = network(torch.stack([as_timm_does(Image.fromarray(image)) for image in images[:4]]))
    # What is rebuilt later from the checkpoint's description has the normalisation too.
    rebuilt = build_model(stage.description)
    rebuilt.load_state_dict(stage.model.state_dict())
    for model in (stage.model, rebuilt):
        found = model.eval()(torch.from_numpy(images[:4]))["embedding"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert stage.description["mean"] == [0.5] * 3
    assert stage1(data).description["mean"] == MEAN != [0.5] * 3


@pytest.mark.parametrize("name", ["resnet_narrow", "resnet18"])
def test_images_reach_the_encoder_of_a_run_as_they_did_in_that_run(labelled_splits, tmp_path, name):
    description = {**ENCODER, "backbone": name, "mean": [0.2, 0.3, 0.4], "std": [0.1, 0.2, 0.3]}
    state = NamedTensors(dict(build_model(description).state_dict()), {"model": description})
    NamedTensorsDataset(filepath=str(tmp_path / "encoder.safetensors")).save(state)
    backbone = {**read_parameters("stage1")["backbone"], "name": name}
    backbone["weights"] = str(tmp_path / "encoder.safetensors")
    stages = [stage1(labelled_splits, backbone=backbone), baseline(labelled_splits, {"backbone": backbone})]
    images = torch.from_numpy(labelled_splits.images[:4])
    for stage in stages:
        with torch.inference_mode():
            found, expected = (
                model.eval()(images)["embedding"] for model in (stage.model, restore_model(state))
            )
        torch.testing.assert_close(found, expected)
        assert stage.description["mean"] == pytest.approx(description["mean"])


def test_an_embedding_of_its_own_width_starts_as_what_whitens_the_features_of_the_weights(
    labelled_splits, encoder, tmp_path
):
    NamedTensorsDataset(filepath=str(tmp_path / "encoder.safetensors")).save(encoder)
    backbone = {**read_parameters("stage1")["backbone"], "weights": str(tmp_path / "encoder.safetensors")}
    stage = stage1(labelled_splits, backbone=backbone, embedding_dim=5)
    train = labelled_splits.indices("train")
    images = torch.from_numpy(labelled_splits.images[train])
    with torch.inference_mode():
        features = restore_model(encoder)(images)["embedding"]
        found = stage.model.eval()(images)["embedding"]
    weight, bias = whiten_within_classes(features.numpy(), labelled_splits.labels[train], 5)
    expected = features.numpy() @ weight.T + bias
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)
    assert stage.description["embedding_dim"] == 5
    rebuilt = restore_model(NamedTensors(dict(stage.model.state_dict()), stage.metadata("r1")))
    torch.testing.assert_close(rebuilt(images)["embedding"], found)
    start = baseline(labelled_splits, {"backbone": backbone, "embedding_dim": 5}).model.encoder.state_dict()
    for name, value in stage.model.encoder.state_dict().items():
        assert torch.equal(value, start[name])


def test_class_averages_in_class_balanced_batches_are_warned_of(labelled_splits, caplog):
    loss = {**read_parameters("stage1")["loss"], "class_averaged": True}
    balanced = {"batch_size": 4, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2}
    mixing = {"name": "mixup", "alpha": 1.0, "probability": 0.5}
    said = "stage1.loss.class_averaged changes nothing, as class-balanced batches"
    for changes in ({"loader": balanced}, {"loader": balanced, "mixing": mixing}, {}):
        stage1(labelled_splits, loss=loss, **changes)
        assert (said in caplog.text) is (changes == {"loader": balanced})
        caplog.clear()


@pytest.mark.parametrize("loss", ["supcon", "proxy_anchor"])
def test_without_a_head_the_loss_compares_embeddings(labelled_splits, loss):
    parameters = {**read_parameters("stage1")["loss"], "name": loss}
    stage = stage1(labelled_splits, projection=None, loss=parameters)
    images = torch.from_numpy(labelled_splits.images[:6])
    outputs = stage.model(images)
    torch.testing.assert_close(outputs["projection"], functional.normalize(outputs["embedding"], dim=1))
    heads = [name for name in stage.model.state_dict() if not name.startswith("encoder.")]
    assert heads == (["proxies"] if loss == "proxy_anchor" else [])
    labels = torch.from_numpy(labelled_splits.labels[:6])
    found = stage.criterion(outputs, Batch(images[:, None], labels))
    if loss == "supcon":
        projections = outputs["projection"][:, None]
        torch.testing.assert_close(found, supcon_loss(projections, labels, parameters["temperature"]))
    encoder = NamedTensors(dict(stage.model.eval().state_dict()), stage.metadata("r1"))
    torch.testing.assert_close(restore_model(encoder)(images), stage.model(images))
    probe = classifier_stage(encoder, labelled_splits, CARD, stage2_parameters())
    assert probe.description["num_features"] == outputs["embedding"].shape[1]


@pytest.mark.parametrize(("width", "expected"), [(None, 5), (7, 7)])
def test_where_classes_are_unseen_the_embedding_may_have_another_width(
    labelled_splits, unseen_splits, width, expected
):
    given = {"embedding_dim": 5, "unseen_embedding_dim": width}
    assert stage1(labelled_splits, **given).description["embedding_dim"] == 5
    assert stage1(unseen_splits, **given).description["embedding_dim"] == expected
    assert baseline(unseen_splits, given).description["embedding_dim"] == expected


def test_an_embedding_of_its_own_width_is_trained_and_classified(labelled_splits):
    stage = stage1(labelled_splits, embedding_dim=5)
    changed = changed_by_a_step(stage, labelled_splits)
    assert {"encoder.neck.weight", "encoder.neck.bias", "encoder.backbone.stem.0.weight"} <= changed
    trained = NamedTensors(dict(stage.model.state_dict()), stage.metadata("r1"))
    probe = classifier_stage(trained, labelled_splits, CARD, stage2_parameters())
    assert probe.model.classifier.in_features == 5


def test_stage_2_says_which_encoder_its_classifier_belongs_to(labelled_splits, encoder):
    stage = classifier_stage(encoder, labelled_splits, CARD, stage2_parameters())
    origin = {"data_hash": "d1", "encoder_hash": fingerprint(encoder)}
    description = {"kind": "classifier", "num_features": 256, "num_classes": 3}
    parameters = stage2_parameters().model_dump(mode="json")
    assert stage.metadata("r1") == {"model": description, "run_id": "r1", "parameters": parameters, **origin}
    assert dict(stage.origin) == origin
    assert {name: tuple(t.shape) for name, t in stage.state_of(stage.model).items()} == {
        "weight": (3, 256),
        "bias": (3,),
    }
    assert all(
        torch.equal(value, encoder.tensors[f"encoder.{name}"])
        for name, value in stage.model.encoder.state_dict().items()
    )


def test_the_baseline_has_the_network_views_and_epochs_of_stage_1_and_an_optimizer_of_its_own(
    labelled_splits,
):
    own = {"name": "adamw", "lr": 0.002, "weight_decay": 0.0}
    stage = baseline(labelled_splits, {"num_views": 3, "micro_batch_size": 4}, optimizer=own)
    shared = stage1_parameters()
    assert (stage.num_views, stage.micro_batch_size) == (3, 4)
    assert {"classifier.weight", "encoder.backbone.stem.0.weight"} <= changed_by_a_step(
        stage, labelled_splits
    )
    assert stage.params.schedule == shared.schedule
    assert stage.params.loader.model_dump() == shared.loader.model_dump()
    assert stage.params.optimizer.name == "adamw"
    assert stage.params.checkpoints.metric == "log_loss"
    told = stage.parameters()
    assert (told["num_views"], told["optimizer"]["name"]) == (3, "adamw")
    assert told["schedule"] == shared.schedule.model_dump(mode="json")
    assert told.keys().isdisjoint({"loss", "projection"})
    rebuilt = build_model(stage.description)
    assert {name: t.shape for name, t in rebuilt.encoder.state_dict().items()} == {
        name: t.shape for name, t in stage1(labelled_splits).model.encoder.state_dict().items()
    }


@pytest.mark.parametrize("kind", ["stage 1", "stage 2", "baseline"])
def test_the_first_weights_depend_on_the_seed_alone(labelled_splits, encoder, kind):
    def first_weights(seed):
        torch.manual_seed(123 + seed)
        if kind == "stage 1":
            stage = stage1(labelled_splits, seed=seed)
        elif kind == "stage 2":
            stage = classifier_stage(encoder, labelled_splits, CARD, stage2_parameters(seed=seed))
        else:
            stage = baseline(labelled_splits, {"seed": seed})
        return NamedTensors(dict(stage.state_of(stage.model)))

    torch.manual_seed(7)
    first = fingerprint(first_weights(0))
    torch.rand(1)
    assert fingerprint(first_weights(0)) == first
    assert fingerprint(first_weights(1)) != first


def changed_by_a_step(stage, data):
    training = build_training(stage, data)
    before = {name: p.detach().clone() for name, p in stage.model.named_parameters()}
    train_step(training, next(training.loader.epoch(0)))
    return {name for name, p in stage.model.named_parameters() if not torch.equal(p, before[name])}


def test_a_joint_loss_trains_the_classifier_head_and_the_projection_head(labelled_splits):
    stage = stage1(labelled_splits, loss=JOINT)
    changed = changed_by_a_step(stage, labelled_splits)
    assert {"classifier.weight", "classifier.bias", "projection_head.0.weight"} <= changed
    assert changed == {name for name, _ in stage.model.named_parameters()}
    assert stage.description["num_classes"] == 3
    # The loss of a collapsed encoder leaves out the classifier.
    assert stage.collapse_loss is None


def test_stage_2_trains_the_classifier_alone(labelled_splits, encoder):
    stage = classifier_stage(encoder, labelled_splits, CARD, stage2_parameters())
    assert changed_by_a_step(stage, labelled_splits) == {"classifier.weight", "classifier.bias"}


def test_the_baseline_trains_encoder_and_classifier(labelled_splits):
    stage = baseline(labelled_splits)
    assert changed_by_a_step(stage, labelled_splits) == {name for name, _ in stage.model.named_parameters()}


def test_a_stage_that_trains_otherwise_has_another_identity(labelled_splits):
    identities = [
        stage1(labelled_splits).identity(),
        stage1(labelled_splits, loss=JOINT).identity(),
        stage1(labelled_splits, num_views=3).identity(),
        baseline(labelled_splits).identity(),
        baseline(labelled_splits, label_smoothing=0.5).identity(),
        baseline(labelled_splits, {"num_views": 3}).identity(),
        baseline(labelled_splits, {"backbone": IMAGENET_STEM}).identity(),
    ]
    different = [identity for index, identity in enumerate(identities) if identity not in identities[:index]]
    assert len(different) == len(identities)


def test_what_changes_no_weight_does_not_change_the_identity(labelled_splits):
    loader = stage1(labelled_splits).params.loader.model_dump()
    first = stage1(labelled_splits, progress_minutes=1, validation_batch_size=5)
    changes = {"progress_minutes": None, "validation_batch_size": 7, "loader": {**loader, "num_workers": 3}}
    assert first.identity() == stage1(labelled_splits, **changes).identity()


def test_other_first_weights_are_another_training(labelled_splits):
    stage = stage1(labelled_splits)
    before = stage.identity()
    with torch.no_grad():
        stage.model.encoder.backbone.state_dict(keep_vars=True)["stem.0.weight"][0, 0, 0, 0] += 1
    assert {name for name, value in stage.identity().items() if before[name] != value} == {"first_weights"}


def test_a_classifier_in_the_encoder_is_left_behind_by_stage_2(labelled_splits):
    joint = stage1(labelled_splits, loss=JOINT)
    state = NamedTensors(joint.model.state_dict(), joint.metadata("r1"))
    stage = classifier_stage(state, labelled_splits, CARD, stage2_parameters())
    assert isinstance(stage.model.classifier, nn.Linear)
    assert not torch.equal(stage.model.classifier.weight, joint.model.classifier.weight)


@pytest.mark.parametrize(
    ("card", "origin"),
    [
        (CARD, ORIGIN),
        ({**CARD, "storage": "squares"}, ORIGIN),
        ({**CARD, "storage": "encoded"}, {**ORIGIN, "storage": "encoded"}),
    ],
)
def test_an_encoder_says_how_its_images_were_stored_where_not_as_squares(labelled_splits, card, origin):
    stage = contrastive_stage(labelled_splits, card, stage1_parameters(backbone=IMAGENET_STEM))
    assert stage.origin == origin
