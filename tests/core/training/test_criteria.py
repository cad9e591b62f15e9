import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.core.training.trainings import (
    CARD,
    make_data,
    read_parameters,
    stage1_parameters,
    stage2_parameters,
)
from torch.nn import functional

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.losses import supcon_loss
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.parameters.stages import BaselineParameters
from supcon_pipeline.core.training.criteria import (
    adjustment_offsets,
    classification_criterion,
    collapse_loss,
    collapse_room,
    contrastive_criterion,
)
from supcon_pipeline.core.training.recipes import baseline_stage, classifier_stage, contrastive_stage
from supcon_pipeline.core.views.loading import Batch

pytestmark = pytest.mark.usefixtures("no_gpu")

# Of 36 training images, by class.
COUNTS = [30, 4, 2]
BALANCED = {"batch_size": 6, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2}


def long_tailed(counts=COUNTS):
    data = make_data()
    labels = data.labels.copy()
    labels[data.indices("train")] = np.repeat(np.arange(len(counts)), counts)
    return replace(data, labels=labels)


def offsets_of(counts, strength):
    labels = np.repeat(np.arange(len(counts)), counts)
    data = LabelledImages(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, np.full(len(labels), "train"))
    return adjustment_offsets(data, strength, "shuffled", "")


def batch_of(labels):
    return Batch(torch.zeros(len(labels), 1, 1, 1, 1), labels)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("is_soft", [False, True])
def test_adjusted_cross_entropy_is_that_of_a_slow_loop(label_smoothing, is_soft):
    logits, classes = torch.randn(6, 3), torch.tensor([0, 0, 1, 0, 2, 0])
    labels = torch.rand(6, 3).softmax(dim=1) if is_soft else classes
    total, shares = 0.0, [(count / 36) ** 0.7 for count in COUNTS]
    for row, label in zip(logits.double(), labels, strict=True):
        raised = [value + math.log(share) for value, share in zip(row.tolist(), shares, strict=True)]
        normaliser = math.log(sum(map(math.exp, raised)))
        for c in range(3):
            known = float(label[c]) if is_soft else float(label == c)
            spread = shares[c] / sum(shares)
            target = (1 - label_smoothing) * known + label_smoothing * spread
            total += target * (normaliser - raised[c])
    offsets = adjustment_offsets(long_tailed(), 0.7, "shuffled", "")
    loss = classification_criterion(label_smoothing, offsets)({"logits": logits}, batch_of(labels))
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_classifier_head_of_stage_1_is_adjusted_as_a_classifier_is(dtype):
    params = ContrastiveLossParameters(
        name="supcon", temperature=0.1, classifier_weight=0.5, label_smoothing=0.1, logit_adjustment=1.0
    )
    outputs = {
        "projection": functional.normalize(torch.randn(6, 4), dim=1),
        "logits": torch.randn(6, 3).to(dtype),
    }
    batch, offsets = (
        batch_of(torch.tensor([0, 0, 1, 0, 2, 0])),
        adjustment_offsets(long_tailed(), 1.0, "shuffled", ""),
    )
    contrastive = contrastive_criterion(params.model_copy(update={"classifier_weight": 0.0}))(outputs, batch)
    expected = contrastive + 0.5 * classification_criterion(0.1, offsets)(outputs, batch)
    assert contrastive_criterion(params, offsets)(outputs, batch).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_logits_that_know_nothing_are_at_rest_on_a_long_tail_by_an_adjustment_of_one(label_smoothing):
    # What is learned of the class sizes is in the offsets, and nothing of it in the logits.
    labels = torch.from_numpy(np.repeat(np.arange(3), COUNTS))
    for strength, is_at_rest in ((0.0, False), (0.5, False), (1.0, True)):
        logits = torch.zeros(len(labels), 3, requires_grad=True)
        offsets = adjustment_offsets(long_tailed(), strength, "shuffled", "")
        classification_criterion(label_smoothing, offsets)({"logits": logits}, batch_of(labels)).backward()
        assert (float(logits.grad.sum(dim=0).abs().max()) < 1e-6) == is_at_rest


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_smoothed_labels_favour_no_class_for_being_rare(strength):
    # One image of each class that is seen for what it is, on so long a tail that equal shares of the smoothed
    # label would be more than the offset of the rarest class takes back.
    offsets = offsets_of([10_000, 100, 1], strength)
    logits, labels = torch.zeros(3, 3, requires_grad=True), torch.arange(3)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        loss = classification_criterion(0.2, offsets)({"logits": logits}, batch_of(labels))
        loss.backward()
        return loss

    optimizer.step(step)
    others = logits.detach()[~torch.eye(3, dtype=torch.bool)].reshape(3, 2)
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]
    torch.testing.assert_close(others[:, 0], others[:, 1], atol=0.02, rtol=0)


def test_an_adjustment_changes_no_loss_where_classes_are_of_equal_size():
    data, logits = long_tailed([12, 12, 12]), torch.randn(6, 3)
    batch = batch_of(torch.arange(6) % 3)
    plain = classification_criterion(0.1)({"logits": logits}, batch)
    adjusted = classification_criterion(0.1, adjustment_offsets(data, 2.0, "shuffled", ""))
    torch.testing.assert_close(adjusted({"logits": logits}, batch), plain)


def test_a_class_that_train_lacks_is_adjusted_as_one_of_the_smallest():
    labels = long_tailed().labels * 2
    offsets = adjustment_offsets(replace(long_tailed(), labels=labels), 1.0, "shuffled", "")
    expected = torch.tensor([30.0, 2, 4, 2, 2]) / 40
    torch.testing.assert_close(offsets, expected.log())


def test_every_classifier_is_trained_with_its_own_adjustment():
    data, expected = long_tailed(), (torch.tensor(COUNTS) / 36).log()
    loss = {**read_parameters("stage1")["loss"], "classifier_weight": 1.0, "logit_adjustment": 1.0}
    first = contrastive_stage(data, CARD, stage1_parameters(loss=loss))
    encoder = NamedTensors(first.model.state_dict(), first.metadata("r1"))
    second = classifier_stage(encoder, data, CARD, stage2_parameters(logit_adjustment=2.0))
    params = {**read_parameters("baseline"), "logit_adjustment": 3.0}
    beside = baseline_stage(data, CARD, stage1_parameters(), BaselineParameters.model_validate(params))
    for strength, stage in enumerate((first, second, beside), start=1):
        torch.testing.assert_close(stage.criterion.args[-1], strength * expected)
        if stage is not first:
            torch.testing.assert_close(stage.validate.args[-1], strength * expected)
        assert stage.parameters()["loss" if stage is first else "logit_adjustment"]


def test_without_an_adjustment_the_loss_is_bit_for_bit_that_without_offsets():
    data, logits = long_tailed(), torch.randn(6, 3)
    assert adjustment_offsets(data, 0.0, "shuffled", "") is None
    batch = batch_of(torch.tensor([0, 0, 1, 0, 2, 0]))
    plain = functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    assert torch.equal(classification_criterion(0.1)({"logits": logits}, batch), plain)


def test_class_balanced_batches_are_not_adjusted_and_it_is_said(caplog):
    data, params = long_tailed(), {**read_parameters("baseline"), "logit_adjustment": 1.0}
    params = BaselineParameters.model_validate(params)
    stage = baseline_stage(data, CARD, stage1_parameters(loader=BALANCED), params)
    assert stage.criterion.args[-1] is None
    assert caplog.messages == [
        "baseline.logit_adjustment changes nothing, as class-balanced batches hold all classes equally "
        "often; leave it out with --params baseline.logit_adjustment=0"
    ]


def test_class_averages_are_known_by_their_parameter():
    params = {"name": "supcon", "temperature": 0.1, "classifier_weight": 0.0, "label_smoothing": 0.0}
    params = ContrastiveLossParameters(**params, class_averaged=True)
    projections, labels = functional.normalize(torch.randn(6, 1, 4), dim=2), torch.tensor([0, 0, 1, 0, 2, 2])
    loss = contrastive_criterion(params)({"projection": projections[:, 0]}, batch_of(labels))
    assert torch.equal(loss, supcon_loss(projections, labels, 0.1, is_class_averaged=True))
    assert not torch.equal(loss, supcon_loss(projections, labels, 0.1))


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [5, 2, 2, 2, 9, 5], [3, 1, 2], [0, 0, 0], [4], "mixed"])
def test_the_class_averaged_loss_of_a_collapsed_encoder_is_that_of_constant_projections(labels, num_views):
    labels = torch.rand(6, 3).softmax(dim=1) if labels == "mixed" else torch.tensor(labels)
    row = functional.normalize(torch.randn(8, dtype=torch.float64), dim=0)
    loss = supcon_loss(row.expand(len(labels), num_views, 8), labels, 0.5, is_class_averaged=True)
    found = collapse_loss("supcon", is_class_averaged=True)(labels, num_views)
    assert found == pytest.approx(loss.item(), rel=1e-6, abs=1e-9)


def test_the_collapse_of_class_averages_is_followed_in_stage_1():
    data = long_tailed()
    loss = {**read_parameters("stage1")["loss"], "class_averaged": True}
    stage = contrastive_stage(data, CARD, stage1_parameters(loss=loss))
    labels = torch.tensor([0, 0, 0, 1, 1])
    # Ten rows in two classes: three images of weight 5 / 6 and two of weight 5 / 4.
    expected = (3 * math.log(10 - 5 / 6) + 2 * math.log(10 - 5 / 4)) / 5
    assert stage.collapse_loss(labels, 2) == pytest.approx(expected)


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("counts", [[30, 4, 2], [35, 1], [12, 12, 12], [34, 2], [36]])
def test_the_room_below_a_collapsed_encoder_is_what_classes_that_are_far_apart_gain(counts, num_views):
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    projections = torch.eye(4, dtype=torch.float64)[labels].unsqueeze(1).expand(-1, num_views, -1)
    gained = collapse_loss("supcon")(labels, num_views) - supcon_loss(projections, labels, 0.01).item()
    loader = {"batch_size": 36, "num_workers": 0}
    data, params = long_tailed(counts), stage1_parameters(loader=loader, num_views=num_views)
    assert collapse_room(data, params) == pytest.approx(gained, abs=1e-6)
    assert contrastive_stage(data, CARD, params).collapse_room == collapse_room(data, params)


def test_a_collapse_is_as_near_as_before_where_the_loss_has_far_to_fall():
    loss = read_parameters("stage1")["loss"]
    for changes in ({"loss": {**loss, "name": "simclr"}}, {"loss": {**loss, "class_averaged": True}}):
        assert collapse_room(long_tailed([35, 1]), stage1_parameters(**changes)) == math.inf
    assert collapse_room(long_tailed([35, 1]), stage1_parameters(loader=BALANCED)) == math.inf
    # Of 256 rows in ten classes, 2 % of the room is more than 0.5 % of the loss.
    many = stage1_parameters(loader={"batch_size": 128, "num_workers": 0})
    assert 0.02 * collapse_room(long_tailed([4] * 6 + [3] * 4), many) > 0.005 * math.log(255)
