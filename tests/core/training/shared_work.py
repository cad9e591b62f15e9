"""What processes do together in the tests, and what one does alone that should come to the same."""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from tests.core.losses.rows import soft_labels, unit_rows
from tests.core.training.trainings import CARD, make_data, read_parameters, stage1_parameters
from torch.utils._pytree import tree_map_only

from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.losses import sincere_loss, supcon_loss, supcon_memory_loss
from supcon_pipeline.core.models.embed import embed_images
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.ranks import ALONE, Ranks, join_ranks
from supcon_pipeline.core.training.criteria import contrastive_criterion
from supcon_pipeline.core.training.loop import fit, train_step
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.views.loading import Batch, build_loader
from supcon_pipeline.core.views.mixing import Mixing
from supcon_pipeline.core.views.policy import ViewPolicy

# Two do not divide it, nor do three.
NUM_IMAGES = 7
LABELS = torch.tensor([7, -3, 7, 40, -3, 7, 7])
# The lower one is beyond what the loss computes without a shift.
TEMPERATURES = (0.1, 0.01)
SAMPLERS = {"shuffled": None, "class_balanced": 2}
# A batch of 12; parts of 2 are micro-batches inside each process.
MICRO_BATCHES = (None, 2)


def losses(ranks: Ranks) -> dict[str, list[torch.Tensor]]:
    """Value and gradient of each loss."""
    torch.manual_seed(1)
    device = pick_device()
    rows, soft = unit_rows(NUM_IMAGES).to(device), soft_labels(NUM_IMAGES).to(device)
    kinds: dict[str, Any] = {
        "supcon": (supcon_loss, LABELS.to(device)),
        "soft": (supcon_loss, soft),
        "averaged": (partial(supcon_loss, is_class_averaged=True), LABELS.to(device)),
        "averaged soft": (partial(supcon_loss, is_class_averaged=True), soft),
        "simclr": (supcon_loss, None),
        "sincere": (sincere_loss, LABELS.to(device)),
        "remembered": (_compared_with_others, LABELS.to(device)),
        "lonely": (supcon_loss, torch.arange(NUM_IMAGES, device=device)),
    }
    found = {}
    for name, (function, labels) in kinds.items():
        for temperature in TEMPERATURES:
            own = rows[ranks.part(NUM_IMAGES)].clone().requires_grad_()
            value = function(ranks.gather(own, NUM_IMAGES), labels, temperature, ranks)
            value.backward()
            found[f"{name} {temperature}"] = _joined(ranks, value, own)
    return found


def _compared_with_others(rows: torch.Tensor, *arguments: Any) -> torch.Tensor:
    known = torch.linspace(-1, 1, 45, dtype=rows.dtype, device=rows.device).view(9, 5).sin()
    labels = torch.tensor([7, 8, -3, 7, 40, 40, 1, 2, 7], device=rows.device)
    return supcon_memory_loss(rows, arguments[0], known, labels, *arguments[1:])


def joint_losses(ranks: Ranks) -> dict[str, list[torch.Tensor]]:
    """Value and gradients of the loss of a model with a classifier head, for labels of both kinds."""
    found = {}
    for kind in ("hard", "soft"):
        torch.manual_seed(2)
        labels = torch.arange(NUM_IMAGES) % 4 if kind == "hard" else soft_labels(NUM_IMAGES)
        whole = {"projection": unit_rows(NUM_IMAGES, 2), "logits": torch.randn(NUM_IMAGES, 2, 4).double()}
        own = {name: rows[ranks.part(NUM_IMAGES)].clone() for name, rows in whole.items()}
        leaves = [rows.requires_grad_() for rows in own.values()]
        params = ContrastiveLossParameters(
            name="supcon", temperature=0.1, classifier_weight=0.5, label_smoothing=0.1
        )
        batch = Batch(torch.zeros(len(leaves[0]), 2, 1, 1, 1), labels, ranks)
        value = contrastive_criterion(params)({k: rows.flatten(0, 1) for k, rows in own.items()}, batch)
        value.backward()
        found[kind] = _joined(ranks, value, *leaves)
    return found


def proxy_anchor_losses(ranks: Ranks) -> dict[str, list[torch.Tensor]]:
    """Value and gradients, by rows and by proxies, of what is learned against a row of each class."""
    torch.manual_seed(3)
    whole, labels = unit_rows(NUM_IMAGES, 2).flatten(0, 1), torch.arange(NUM_IMAGES) % 4
    proxies = torch.randn(4, whole.shape[1]).double().requires_grad_()
    own = whole.view(NUM_IMAGES, 2, -1)[ranks.part(NUM_IMAGES)].clone().requires_grad_()
    params = ContrastiveLossParameters(
        name="proxy_anchor", temperature=0.1, classifier_weight=0, label_smoothing=0
    )
    batch = Batch(torch.zeros(len(own), 2, 1, 1, 1), labels, ranks)
    value = contrastive_criterion(params)({"similarities": own.flatten(0, 1) @ proxies.T}, batch)
    value.backward()
    # Each process has a share of the gradient of what they have in common.
    ranks.sum_(proxies.grad)
    return {"proxy_anchor": [*_joined(ranks, value, own), proxies.grad]}


def _joined(ranks: Ranks, value: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    total = value.detach().clone()
    ranks.sum_(total)
    return [total, *(ranks.collect(leaf.grad, NUM_IMAGES) for leaf in leaves if leaf.grad is not None)]


def batches(ranks: Ranks, sampler: str, num_workers: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views and labels of two epochs, the first without its first batch, mixed and of a random policy."""
    data = make_data()
    mixing = Mixing("both", 1.0, 0.5, 3) if sampler == "shuffled" else None
    policy = ViewPolicy(
        [{"name": "RandomResizedCrop"}, {"name": "HorizontalFlip"}], 2, data.images.shape[1:], (8, 12), 2
    )
    indices = data.indices("train")
    balance = {"sampler": sampler, "images_per_class": SAMPLERS[sampler]}
    loader = build_loader(
        *(data.images, data.labels, indices, policy, 6, num_workers, 0),
        **balance,  # type: ignore[arg-type]
        mixing=mixing,
        ranks=ranks,
    )
    for epoch, first in ((0, 1), (1, 0)):
        for batch in loader.epoch(epoch, first):
            yield ranks.collect(batch.views, len(batch.labels)), batch.labels
    loader.close()


def steps(ranks: Ranks, micro_batch_size: int | None, batch_size: int = 12) -> dict[str, torch.Tensor]:
    """The weights and statistics after three steps in double precision, and the losses.

    Where parts are not equally large, batch-norm takes no part, but a memory of earlier batches does.
    """
    torch.manual_seed(0)
    data = make_data()
    loss = {**read_parameters("stage1")["loss"], "classifier_weight": 0.5}
    if batch_size != 12:
        loss["memory"] = {"size": 30, "warmup_epochs": 0}
    params = stage1_parameters(
        micro_batch_size=micro_batch_size,
        loader={"batch_size": batch_size, "num_workers": 0},
        loss=loss,
        max_grad_norm=1.0,
        ema=None,
    )
    training = build_training(contrastive_stage(data, CARD, params), data, ranks)
    training.model.double().train(batch_size == 12)
    if training.memory is not None:
        training.memory.begin_epoch(0)
    values = []
    for batch, _ in zip(training.loader.epoch(0), range(3), strict=False):
        values.append(train_step(training, batch)[0])
    return {**training.model.state_dict(), "losses": torch.stack(values)}


def limited_time(ranks: Ranks) -> list[float]:
    """The learning rates of a training whose end and rate follow the clock of the first process."""
    data = make_data()
    schedule = {"name": "cosine", "num_epochs": 1000, "warmup_epochs": 1}
    params = stage1_parameters(max_minutes=0.01, schedule=schedule)
    stage = contrastive_stage(data, CARD, params)
    training = build_training(stage, data, ranks)
    records = list(fit(training, 1000, stage.validate, params.checkpoints.metric))
    training.loader.close()
    return [record.lr for record in records if record.lr is not None]


def embedded(ranks: Ranks) -> list[torch.Tensor]:
    """Embeddings of many images, and of fewer than there may be processes; those of the first process."""
    data, params = make_data(), stage1_parameters()
    model = contrastive_stage(data, CARD, params).model.double()
    images = [np.arange(59)[::-1], np.arange(2)]
    outputs = [embed_images(model, data.images, indices, 7, ranks)["embedding"] for indices in images]
    return outputs if ranks.is_first else []


def everything(ranks: Ranks, count: int) -> dict[str, Any]:
    """All of it; alone, with micro-batches as large as the parts of as many processes."""
    is_alone = ranks.count == 1
    micro = {None: 12 // count if is_alone else None, 2: 2}
    return {
        "losses": losses(ranks),
        "joint": joint_losses(ranks),
        "proxy_anchor": proxy_anchor_losses(ranks),
        "batches": {sampler: list(batches(ranks, sampler)) for sampler in SAMPLERS},
        "workers": list(batches(ranks, "shuffled", 0 if is_alone else 1)),
        "steps": {size: steps(ranks, micro[size]) for size in MICRO_BATCHES},
        "uneven": steps(ranks, None, 10),
        "limited": [] if is_alone else limited_time(ranks),
        "embedded": embedded(ranks),
        "agreed": ranks.agree({"rank": ranks.rank}, source=count - 1 if not is_alone else 0),
    }


def work_together(rank: int, count: int, folder: Path) -> None:
    """Do everything as one of several processes, and leave what came of it in a file."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count)
    group = dist.group.WORLD
    ranks = replace(ALONE, rank=rank, count=count, control=group, patient=group)
    torch.save(everything(ranks, count), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def on_gpus(ranks: Ranks, count: int) -> dict[str, Any]:
    """What processes on a GPU each, or one that does the work of them all, come to."""
    found = {
        "losses": losses(ranks),
        "steps": {size: steps(ranks, size or 12 // count) for size in MICRO_BATCHES},
        "batches": list(batches(ranks, "shuffled")),
        "agreed": ranks.agree({"rank": ranks.rank}),
    }
    moved: dict[str, Any] = tree_map_only(torch.Tensor, torch.Tensor.cpu, found)
    return moved


def work_on_gpus(rank: int, count: int, folder: Path) -> None:
    """Do so as one of several processes, as the launcher starts them."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "localhost", "MASTER_PORT": "29531"})
    torch.save(on_gpus(join_ranks(0, 0), count), folder / f"{rank}.pt")
    dist.destroy_process_group()
