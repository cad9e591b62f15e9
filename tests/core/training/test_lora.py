"""Trainings of a small transformer by updates of low rank."""

from dataclasses import replace

import pytest
import timm
import torch
from pydantic import ValidationError
from tests.core.training.resume_process import NoLog
from tests.core.training.trainings import CARD, make_data, read_parameters, stage1_parameters

from supcon_pipeline.core.models.encoder import build_model, restore_model
from supcon_pipeline.core.optim.low_rank import merged_state, trained_parameters
from supcon_pipeline.core.parameters.stages import BaselineParameters
from supcon_pipeline.core.training.lr_range import lr_curve
from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.core.training.recipes import baseline_stage, contrastive_stage
from supcon_pipeline.core.training.resumable import run_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.training.swa import average_models

pytestmark = pytest.mark.usefixtures("no_gpu")

DATA = make_data(size=32)
# All of fine-tuning at once.
FINETUNE = {"layer_decay": 0.8, "head_lr_factor": 2.0, "freeze_epochs": 1, "start_images": 12}
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.1}
LINEAR = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A backbone with weights from a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(timm.create_model("test_vit", num_classes=0, img_size=32).state_dict(), path)
    return {"name": "timm/test_vit", "stem": "imagenet", "pretrained": False, "weights": str(path)}


def stage1(backbone, lora=LORA, **changes):
    finetune = {**FINETUNE, "lora": lora}
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
    schedule = {"name": "cosine", "num_epochs": 3, "warmup_epochs": 1}
    given = {"backbone": backbone, "finetune": finetune, "optimizer": optimizer, "schedule": schedule}
    return contrastive_stage(DATA, CARD, stage1_parameters(**{**given, "embedding_dim": 4, **changes}))


class Interrupting:
    """A criterion that is interrupted before the fifth step."""

    def __init__(self, criterion):
        self.criterion, self.step = criterion, 0

    def __call__(self, outputs, batch):
        self.step += 1
        if self.step == 5:
            raise KeyboardInterrupt
        return self.criterion(outputs, batch)


@pytest.fixture(scope="module")
def trained(backbone, tmp_path_factory):
    """Checkpoints and history of a training."""
    store = ProgressStore(tmp_path_factory.mktemp("whole"))
    return run_stage(stage1(backbone), DATA, NoLog(), store, "r1")


def test_what_is_kept_is_the_plain_network_that_was_validated(backbone, trained):
    checkpoints, history = trained
    stage, plain = stage1(backbone), stage1(backbone, lora=None)
    start = plain.model.state_dict()
    assert history[-1]["epoch"] == 3
    for checkpoint in checkpoints:
        assert {name: value.shape for name, value in checkpoint.tensors.items()} == {
            name: value.shape for name, value in start.items()
        }
        again = stage.validate(restore_model(checkpoint))
        assert again == pytest.approx({name: checkpoint.metadata["metrics"][name] for name in again})
    best = checkpoints[0]
    changed = {name for name, value in best.tensors.items() if not torch.equal(value, start[name])}
    backbone_names = {name for name in start if name.startswith("encoder.backbone.")}
    assert best.metadata["epoch"] > 0
    assert changed & backbone_names == {name for name in backbone_names if name.endswith(LINEAR)}
    assert changed - backbone_names == {name for name in start if name not in backbone_names} - {
        "encoder.mean",
        "encoder.std",
    }
    average = average_models(checkpoints, DATA, 16)
    assert restore_model(average)(torch.from_numpy(DATA.images[:2]))["embedding"].shape == (2, 4)


def test_an_interrupted_training_ends_as_one_that_was_not(backbone, trained, tmp_path):
    store, stage = ProgressStore(tmp_path), stage1(backbone, progress_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        run_stage(replace(stage, criterion=Interrupting(stage.criterion)), DATA, NoLog(), store, "r1")
    checkpoints, history = run_stage(stage1(backbone, progress_minutes=0), DATA, NoLog(), store, "r1")
    assert history == trained[1]
    for resumed, whole in zip(checkpoints, trained[0], strict=True):
        assert resumed.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(value, whole.tensors[name]) for name, value in resumed.tensors.items())


def test_another_rank_strength_or_dropout_is_another_training(backbone):
    others = [None, LORA, {**LORA, "rank": 3}, {**LORA, "alpha": 5.0}, {**LORA, "dropout": 0.2}]
    identities = [stage1(backbone, lora=lora).identity() for lora in others]
    assert all(identity not in identities[:index] for index, identity in enumerate(identities))


def test_it_starts_from_the_state_that_a_training_of_all_weights_starts_from(backbone):
    stage, plain = stage1(backbone), stage1(backbone, lora=None)
    state = stage.state_of(stage.model)
    assert state.keys() == plain.model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in plain.model.state_dict().items())


def test_the_baseline_is_trained_by_the_same_updates(backbone):
    params = read_parameters("baseline")
    stage = baseline_stage(DATA, CARD, stage1(backbone).params, BaselineParameters.model_validate(params))
    contrastive = stage1(backbone)
    updates, others = (
        [p.shape for p in trained_parameters(each.model.encoder.backbone)] for each in (stage, contrastive)
    )
    assert updates == others
    build_model(stage.description).load_state_dict(merged_state(stage.model))


def test_only_updates_and_heads_are_optimized_and_the_lr_finder_keeps_their_proportions(backbone):
    stage = stage1(backbone)
    optimizer = build_training(stage, DATA).optimizer
    backbone_size = sum(p.numel() for p in trained_parameters(stage.model.encoder.backbone))
    heads = [p for name, p in stage.model.named_parameters() if not name.startswith("encoder.backbone.")]
    optimized = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert optimized == backbone_size + sum(p.numel() for p in heads)
    frozen = stage.model.encoder.backbone.pos_embed.clone()
    curve = lr_curve(stage, DATA, 1e-3, 1e-1, num_steps=10, smoothing=0.5)
    assert len(curve) >= 3
    assert torch.equal(stage.model.encoder.backbone.pos_embed, frozen)


def test_updates_of_random_weights_are_warned_of(backbone, caplog):
    stage1({**backbone, "weights": None}, embedding_dim=None)
    assert "stage1.finetune.lora" in caplog.text
    caplog.clear()
    stage1(backbone)
    assert not caplog.text


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0}, "greater than or equal to 1"),
        ({"alpha": 0}, "greater than 0"),
        ({"dropout": 1}, "less than 1"),
    ],
)
def test_a_lora_out_of_range_is_refused(backbone, lora, message):
    with pytest.raises(ValidationError, match=message):
        stage1(backbone, lora=lora)


def test_a_backbone_without_linear_layers_is_refused_with_the_parameters(backbone):
    with pytest.raises(ValidationError, match=r"finetune\.lora must be null for resnet18, got rank 2; 0% of"):
        stage1({**backbone, "name": "resnet18", "weights": None})
