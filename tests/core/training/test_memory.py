import io

import pytest
import torch
from tests.core.training.trainings import CARD, make_data, read_parameters, stage1_parameters

from supcon_pipeline.core.losses import supcon_loss, supcon_memory_loss
from supcon_pipeline.core.training.criteria import collapse_loss
from supcon_pipeline.core.training.loop import fit, train_step
from supcon_pipeline.core.training.memory import ProjectionMemory
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.training.state import EpochRecord

pytestmark = pytest.mark.usefixtures("no_gpu")


def start(size=40, warmup_epochs=1, **changes):
    loss = {**read_parameters("stage1")["loss"], "memory": {"size": size, "warmup_epochs": warmup_epochs}}
    params = stage1_parameters(loss=loss, validation_interval=4, **changes)
    data = make_data()
    stage = contrastive_stage(data, CARD, params)
    training = build_training(stage, data)
    metric = params.checkpoints.metric
    return training, fit(training, 4, stage.validate, metric, validation_interval=4)


def test_the_newest_projections_are_kept_without_gradient():
    memory = ProjectionMemory(5, 0)
    rows = torch.randn(9, 2, requires_grad=True)
    for start_row in (0, 3, 6):
        memory.add(rows[start_row : start_row + 3], torch.arange(start_row, start_row + 3))
        assert len(memory) == min(start_row + 3, 5)
    assert torch.equal(memory.projections, rows[4:])
    assert memory.labels.tolist() == [4, 5, 6, 7, 8]
    assert not memory.projections.requires_grad


def test_each_batch_is_compared_with_those_before_it_once_the_warm_up_is_over():
    training, _ = start(size=30, ema=None)
    batches, seen, labels = list(training.loader.epoch(0)), [], []
    training.begin_epoch(0)
    train_step(training, batches[0])
    assert len(training.memory) == 0
    training.begin_epoch(1)
    for batch in batches:
        outputs = training.model(batch.views.flatten(0, 1))
        rows = outputs["projection"].unflatten(0, batch.views.shape[:2])
        if seen:
            known = torch.cat(seen)[-30:], torch.cat(labels)[-30:]
            expected = supcon_memory_loss(rows, batch.labels, *known, 0.1)
        else:
            expected = supcon_loss(rows, batch.labels, 0.1)
        torch.testing.assert_close(training.criterion(outputs, batch), expected)
        seen.append(rows.detach().flatten(0, 1))
        labels.append(batch.labels.repeat_interleave(2))
    assert len(training.memory) == 30


def test_a_training_with_a_memory_goes_on_in_the_middle_of_an_epoch_bit_for_bit():
    whole, records = start()
    # Three steps an epoch: the eighth is in the third epoch, with a full memory.
    file = io.BytesIO()
    for record in records:
        if record.__class__ is not EpochRecord and record.step == 8:
            torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed, rest = start()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert len(resumed.memory) == 40
    assert [type(record) for record in rest].count(EpochRecord) == 2
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert torch.equal(resumed.memory.projections, whole.memory.projections)


def test_micro_batches_have_the_loss_and_the_memory_of_the_whole_batch():
    trainings = [start(warmup_epochs=0, ema=None, micro_batch_size=size)[0] for size in (None, 5)]
    for training in trainings:
        training.begin_epoch(0)
        # Without batch statistics, which are of a micro-batch.
        training.model.double().eval()
    for batch in trainings[0].loader.epoch(0):
        (whole, _), (parts, _) = (train_step(training, batch) for training in trainings)
        torch.testing.assert_close(parts, whole, rtol=1e-9, atol=0)
    torch.testing.assert_close(trainings[1].memory.projections, trainings[0].memory.projections)
    left, right = (dict(training.model.named_parameters()) for training in trainings)
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9)


def test_the_loss_of_a_collapsed_encoder_counts_what_is_remembered():
    memory, labels = ProjectionMemory(100, 1), torch.tensor([0, 0, 1])
    rows = torch.ones(1, 4, dtype=torch.float64) / 2
    found = collapse_loss("supcon", memory=memory)
    plain = supcon_loss(rows.expand(3, 2, 4), labels, 0.1)
    assert found(labels, 2) == pytest.approx(plain.item())
    memory.begin_epoch(1)
    memory.add(rows.expand(7, 4), torch.arange(7))
    expected = supcon_memory_loss(rows.expand(3, 2, 4), labels, memory.projections, memory.labels)
    assert found(labels, 2) == pytest.approx(expected.item())
