"""Trainings on a GPU.

Their bits do not repeat: a GPU adds up in an order of its own, as in the gradient of a convolution. What goes
on after an interruption is compared up to rounding, with convolutions that repeat as far as cuDNN has them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tests.core.training import shared_work
from tests.core.training.resume_process import NoLog
from tests.core.training.trainings import (
    CARD,
    make_data,
    read_parameters,
    stage1_parameters,
    stage2_parameters,
)
from tests.gpu import CUDA, needs_gpu, needs_two_gpus, refused_syncs

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.inference.export import (
    assemble_outputs,
    convert_to_onnx,
    describe_export,
    open_onnx,
    trace_program,
)
from supcon_pipeline.core.inference.image_encoder import encoder_of_states
from supcon_pipeline.core.models.embed import embed_by
from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.optim.options import OPTIMIZERS
from supcon_pipeline.core.parameters.stages import BaselineParameters
from supcon_pipeline.core.ranks import ALONE
from supcon_pipeline.core.search.knn import neighbour_log_votes
from supcon_pipeline.core.training.loop import fit, train_step
from supcon_pipeline.core.training.lr_range import lr_curve
from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.core.training.recipes import baseline_stage, classifier_stage, contrastive_stage
from supcon_pipeline.core.training.resumable import run_stage
from supcon_pipeline.core.training.stage import Stage, build_training
from supcon_pipeline.core.training.state import Criterion
from supcon_pipeline.core.training.swa import average_models
from supcon_pipeline.core.views.loading import Batch

pytestmark = needs_gpu
LOSS = read_parameters("stage1")["loss"]
MIXED = {"name": "both", "alpha": 1.0, "probability": 0.5}
AVERAGED = {"decay_per_epoch": 0.5, "is_raw_validated": True}
BASELINE = BaselineParameters.model_validate(read_parameters("baseline"))
RATES = {"sgd": 0.1, "lookahead": 0.1, "lars": 1.0}
SYNCED = {name: {"sync_period": 2} for name in ("lookahead", "ranger")}
# All of fine-tuning at once.
FINETUNE = {"layer_decay": 0.8, "head_lr_factor": 2.0, "freeze_epochs": 1, "start_images": 12}
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.1}


def optimizer(name: str) -> dict[str, Any]:
    lr = RATES.get(name, 0.001)
    return {"name": name, "lr": lr, "weight_decay": 0.0005, **SYNCED.get(name, {})}


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"ema": None},
    "averaged": {"ema": AVERAGED},
    "auto": {"precision": "auto"},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16", "max_grad_norm": 1.0},
    "micro-batches": {"micro_batch_size": 5},
    "micro-batches in float16": {"micro_batch_size": 5, "precision": "float16"},
    "mixed": {"mixing": MIXED, "max_grad_norm": 1.0},
    "sincere": {"loss": {**LOSS, "name": "sincere"}},
    "simclr": {"loss": {**LOSS, "name": "simclr"}},
    "proxy_anchor": {"loss": {**LOSS, "name": "proxy_anchor"}},
    "joint": {"loss": {**LOSS, "classifier_weight": 0.5, "label_smoothing": 0.1}},
    "workers": {"loader": {"batch_size": 12, "num_workers": 2}},
    "limited": {"max_minutes": 5.0},
    "mirrored": {"mirror_average": True, "embedding_dim": 8, "view_size": 12},
    **{name: {"optimizer": optimizer(name)} for name in OPTIMIZERS},
}


@pytest.fixture(autouse=True)
def _repeatable_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def stage1(data: LabelledImages, **changes: Any) -> Stage:
    """Two epochs of three steps, saved after each step."""
    schedule = {"name": "cosine", "num_epochs": 2, "warmup_epochs": 1}
    params = stage1_parameters(**{"schedule": schedule, "progress_minutes": 0, **changes})
    return contrastive_stage(data, CARD, params)


class Interrupting:
    """A criterion that is interrupted before a step."""

    def __init__(self, criterion: Criterion, step: int):
        self.criterion, self.step = criterion, step

    def __call__(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        self.step -= 1
        if not self.step:
            raise KeyboardInterrupt
        return self.criterion(outputs, batch)


def require_whole(checkpoints: list[NamedTensors], history: list[dict[str, Any]]) -> None:
    """All on the CPU, and all numbers finite."""
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(np.isfinite(value) for row in history for value in row.values() if value is not None)
    for value in (value for part in checkpoints for value in part.tensors.values()):
        assert value.device.type == "cpu"
        assert value.isfinite().all()


def compare_interrupted(
    make: Any, data: LabelledImages, folder: Path, tolerance: float, step: int = 5
) -> None:
    """A training that is interrupted before a step, and goes on, is that which is not."""
    whole = run_stage(make(), data, NoLog(), ProgressStore(folder / "whole"), "r1")
    require_whole(*whole)
    store, stage = ProgressStore(folder / "interrupted"), make()
    hurt = replace(stage, criterion=Interrupting(stage.criterion, step))
    with pytest.raises(KeyboardInterrupt):
        run_stage(hurt, data, NoLog(), store, "r1")
    resumed = run_stage(make(), data, NoLog(), store, "r1")
    require_whole(*resumed)
    for ours, theirs in zip(resumed[1], whole[1], strict=True):
        assert (ours["epoch"], ours["lr"]) == (theirs["epoch"], theirs["lr"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance)
    found, expected = (
        {part.metadata["epoch"]: part.tensors for part in parts} for parts, _ in (resumed, whole)
    )
    # Where metrics tie up to rounding, either epoch may be the best.
    for epoch in found.keys() & expected.keys():
        torch.testing.assert_close(found[epoch], expected[epoch], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_ends_and_one_that_was_interrupted_ends_the_same_up_to_rounding(
    name: str, tmp_path: Path
) -> None:
    data, options = make_data(), OPTIONS[name]
    tolerance = 1e-3 if options.get("precision", "float32") == "float32" else 2e-2
    # A part of a batch calls the loss once as well: the fifth call is the fifth step.
    compare_interrupted(lambda: stage1(data, **options), data, tmp_path, tolerance)


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_fine_tuning_ends_and_one_that_was_interrupted_ends_the_same_up_to_rounding(
    lora: dict[str, Any] | None, precision: str, tmp_path: Path
) -> None:
    weights = tmp_path / "vit.pth"
    torch.save(timm.create_model("test_vit", num_classes=0, img_size=32).state_dict(), weights)
    backbone = {"name": "timm/test_vit", "stem": "imagenet", "pretrained": False, "weights": str(weights)}
    data = make_data(size=32)
    options = {
        "backbone": backbone,
        "finetune": {**FINETUNE, "lora": lora},
        "embedding_dim": 4,
        "optimizer": optimizer("adamw"),
        "precision": precision,
    }

    def make() -> Stage:
        # The weights that it starts from are validated, and are no epoch of the history.
        return replace(stage1(data, **options), is_start_validated=False)

    compare_interrupted(make, data, tmp_path, 1e-3 if precision == "float32" else 2e-2)


# What the compiler warns of, such as products that could be shorter, differs from version to version.
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_ends_as_one_that_is_not(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    data, runs = make_data(), []
    for is_compiled in (True, False):
        changes = {"compile": is_compiled, "precision": "bfloat16", "ema": {"decay_per_epoch": 0.5}}
        store = ProgressStore(tmp_path / str(is_compiled))
        runs.append(run_stage(stage1(data, **changes), data, NoLog(), store, "r1"))
        require_whole(*runs[-1])
    losses = [[row["loss"] for row in history] for _, history in runs]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def encoder_state(data: LabelledImages) -> NamedTensors:
    stage = stage1(data)
    return NamedTensors(stage.model.state_dict(), stage.metadata("r1"))


def stages(data: LabelledImages, precision: str) -> dict[str, Stage]:
    joint = {"loss": {**LOSS, "classifier_weight": 0.5}, "mixing": MIXED}
    shared = {"precision": precision, "max_grad_norm": 1.0}
    first = stage1(data, ema=AVERAGED, **joint, **shared)
    encoder, params = encoder_state(data), stage1_parameters(ema=AVERAGED, mixing=MIXED, **shared)
    flipped = stage2_parameters(transforms=[{"name": "HorizontalFlip"}], **shared)
    return {
        "stage1": first,
        "sincere": stage1(data, loss={**LOSS, "name": "sincere"}, **shared),
        "proxy_anchor": stage1(data, loss={**LOSS, "name": "proxy_anchor"}, **shared),
        "micro-batches": replace(stage1(data, ema=AVERAGED, **joint, **shared), micro_batch_size=5),
        "stage2": classifier_stage(encoder, data, CARD, stage2_parameters(transforms=[], **shared)),
        "stage2 with transforms": classifier_stage(encoder, data, CARD, flipped),
        "baseline": baseline_stage(data, CARD, params, BASELINE),
        **{name: stage1(data, optimizer=optimizer(name), **shared) for name in OPTIMIZERS},
    }


# Not float16, whose scaler must look for overflows before each step.
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits_for_the_gpu(precision: str) -> None:
    data = make_data()
    for stage in stages(data, precision).values():
        training = build_training(stage, data)
        training.begin_epoch(0)
        batches = [*training.loader.epoch(0), *training.loader.epoch(1)]
        assert all(batch.views.is_pinned() and batch.labels.is_pinned() for batch in batches)
        for batch in batches[:2]:
            train_step(training, batch)
        with refused_syncs():
            for batch in batches[2:]:
                loss, norm = train_step(training, batch)
        assert loss.isfinite(), stage.key
        assert norm.isfinite(), stage.key


def test_a_classifier_waits_for_its_training_on_the_cpu() -> None:
    data = make_data()
    stage = classifier_stage(encoder_state(data), data, CARD, stage2_parameters(transforms=[]))
    assert {value.device.type for value in stage.model.state_dict().values()} == {"cpu"}
    assert stage.inputs is not None
    assert np.isfinite(stage.inputs).all()


def test_the_time_of_the_gpu_counts_where_time_is_limited() -> None:
    data = make_data()
    stage = stage1(data, max_minutes=10.0)

    def slow_loss(outputs: Outputs, batch: Batch) -> torch.Tensor:
        # At 2 GHz a tenth of a second.
        torch.cuda._sleep(2 * 10**8)
        return stage.criterion(outputs, batch)

    training = build_training(replace(stage, criterion=slow_loss), data)
    records = fit(training, 2, lambda _, **__: {"score": 0.0}, "score")
    assert len(list(records)) == 8
    # Of six steps.
    assert training.seconds > 6 * 0.08


def test_the_rate_is_looked_for_on_the_gpu() -> None:
    data = make_data()
    for precision in ("float32", "float16"):
        curve = lr_curve(stage1(data, precision=precision), data, 1e-5, 1e-2, num_steps=12, smoothing=0.5)
        assert len(curve) == 12
        assert all(np.isfinite(list(row.values())).all() for row in curve)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> NamedTensors:
    """The encoder of a training, averaged over its epochs."""
    data, store = make_data(), ProgressStore(tmp_path_factory.mktemp("averaged"))
    checkpoints, _ = run_stage(stage1(data), data, NoLog(), store, "r1")
    return average_models(checkpoints, data, batch_size=8)


def test_averaged_checkpoints_are_on_the_cpu_with_statistics_of_their_own(averaged: NamedTensors) -> None:
    assert {value.device.type for value in averaged.tensors.values()} == {"cpu"}
    assert all(value.isfinite().all() for value in averaged.tensors.values())
    counters = [value for name, value in averaged.tensors.items() if name.endswith("num_batches_tracked")]
    # 36 images to train on, 8 at a time.
    assert {int(counter) for counter in counters} == {5}


def test_embeddings_of_a_gpu_are_those_of_the_cpu_up_to_its_shorter_products(averaged: NamedTensors) -> None:
    data = make_data()
    found, expected = (embed_by(averaged, data.images, 7, device) for device in (CUDA, torch.device("cpu")))
    assert found.metadata == expected.metadata
    for name, rows in expected.tensors.items():
        assert found.tensors[name].device.type == "cpu"
        assert found.tensors[name].dtype == torch.float32
        assert (found.tensors[name] - rows).norm() < 5e-3 * rows.norm()
    train, validation = data.indices("train"), data.indices("validation")
    rows = found.tensors["embedding"].numpy()
    votes = neighbour_log_votes(rows[validation], rows[train], data.labels[train], 5, 0.07, 3)
    assert (votes.argmax(axis=1) == data.labels[validation]).mean() > 0.5


def test_an_encoder_is_used_on_the_gpu_and_exported_for_the_cpu(averaged: NamedTensors) -> None:
    images = make_data().images[:5]
    encoder = encoder_of_states(averaged)
    rows = encoder.embed(list(images))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    module = assemble_outputs(averaged)
    program = trace_program(module, describe_export(module, averaged, []))
    embedded = program.open()(images)["embedding"]
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, unit, atol=5e-3)
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    onnx = open_onnx(convert_to_onnx(program))
    np.testing.assert_allclose(onnx(images)["embedding"], embedded, atol=1e-4)


@needs_two_gpus
def test_two_gpus_by_nccl_come_to_what_one_comes_to(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(
        shared_work.work_on_gpus, (2, tmp_path), nprocs=2, start_method="spawn"
    )
    alone = shared_work.on_gpus(ALONE, 2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        torch.testing.assert_close(found, alone, rtol=1e-6, atol=1e-8)
