"""One epoch of stage 1 with its validation of both features, compared with a straightforward loop.

The straightforward loop uses the default memory layout, transforms and normalises views one by one in the
main process, reads the loss at every step, and embeds train and validation images twice: once for the
embedding, once for the projection. Backbone, batch, views, resolution, loss and metrics are the same. The two
take turns. `wait` is the time spent waiting for views, `step` the rest of the training. With
`--raw-validated` this project validates two models, the averaged and the raw one, as it does by default; the
straightforward loop validates one.

    python benchmarks/epoch.py --backbone resnet_narrow resnet18 --precision auto --num-workers 2
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.data.pixels import pack_image
from supcon_pipeline.core.data.splits import split_samples
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.metrics.features import embedding_metrics
from supcon_pipeline.core.models.encoder import ContrastiveModel, build_model
from supcon_pipeline.core.parameters.stages import Stage1Parameters
from supcon_pipeline.core.training.loop import fit
from supcon_pipeline.core.training.precision import choose_precision
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.training.state import EpochRecord
from supcon_pipeline.core.views.policy import ViewPolicy
from supcon_pipeline.datasets.digits import DigitsDataset

MEAN, STD = [0.3] * 3, [0.35] * 3
# The part of a dataset card that a stage uses.
CARD = {"mean": MEAN, "std": STD, "data_hash": "benchmark", "crop": "pad"}


def load_digits(num_images: int | None) -> LabelledImages:
    """The embedded digits or the first of them, prepared as in `data_prep`."""
    raw = DigitsDataset().load()
    images = np.stack([pack_image(image, 32, 3) for image in raw.images[:num_images]])
    labels = raw.labels[:num_images]
    return LabelledImages(images, labels, split_samples(labels, 0.15, 0.2, 0))


class PlainViews(Dataset):
    """Each item is the views of an image, transformed one by one and normalised to float."""

    def __init__(self, data: LabelledImages, indices: np.ndarray, policy: ViewPolicy | None):
        self.data, self.indices, self.policy = data, indices, policy

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        image, label = self.data.images[self.indices[item]], int(self.data.labels[self.indices[item]])
        views = [self.policy.parts[-1](image=image)["image"] for _ in range(2)] if self.policy else [image]
        normalised = [((view / 255.0 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1) for view in views]
        return torch.from_numpy(np.stack(normalised)), label


class PlainNetwork(nn.Module):
    """Backbone and projection head on normalised images, in the default memory layout."""

    def __init__(self, model: ContrastiveModel):
        super().__init__()
        self.backbone, self.head = model.encoder.backbone, model.projection_head
        self.to(memory_format=torch.contiguous_format)

    def forward(self, images: torch.Tensor, has_projection: bool = True) -> torch.Tensor:
        """The projection or the embedding."""
        embedding = self.backbone(images)
        return nn.functional.normalize(self.head(embedding), dim=1) if has_projection else embedding


def plain_loss(projections: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Khosla et al. 2020, Eq. 2, with the full similarity matrix."""
    labels = labels.repeat_interleave(2)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = (labels[:, None] == labels) & ~itself
    similarity = (projections @ projections.T / temperature).masked_fill(itself, -1e9)
    log_probability = similarity - similarity.logsumexp(1, keepdim=True)
    return -((log_probability * positives).sum(1) / positives.sum(1)).mean()


def timed(batches: Iterable[Any], waits: list[float]) -> Iterator[Any]:
    """The batches; the seconds spent waiting for each are added to `waits`."""
    iterator = iter(batches)
    while True:
        start = time.perf_counter()
        batch = next(iterator, None)
        waits.append(time.perf_counter() - start)
        if batch is None:
            return
        yield batch


def parts_of(train: float, wait: float, validate: float) -> dict[str, float]:
    """How the seconds of an epoch were spent."""
    return {"wait": wait, "step": train - wait, "validate": validate}


def plain_epoch(
    data: LabelledImages, params: Stage1Parameters, num_workers: int = 0
) -> Callable[[], dict[str, float]]:
    """The straightforward loop; it returns the seconds of its parts."""
    stage, device = contrastive_stage(data, CARD, params), pick_device()
    network = PlainNetwork(build_model(stage.description)).to(device)
    policy = ViewPolicy([spec.model_dump() for spec in params.transforms], 2, data.images.shape[1:])
    train, validation = data.indices("train"), data.indices("validation")
    loader = DataLoader(
        PlainViews(data, train, policy), params.loader.batch_size, shuffle=True, num_workers=num_workers
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def embed(indices: np.ndarray, has_projection: bool) -> np.ndarray:
        plain = DataLoader(PlainViews(data, indices, None), params.validation_batch_size)
        with torch.no_grad():
            rows = [network(views[:, 0].to(device), has_projection) for views, _ in plain]
        return torch.cat(rows).cpu().numpy()

    def run() -> dict[str, float]:
        start, waits = time.perf_counter(), []
        network.train()
        for views, labels in timed(loader, waits):
            optimizer.zero_grad()
            projections = network(views.flatten(0, 1).to(device))
            loss = plain_loss(projections, labels.to(device), params.loss.temperature)
            loss.backward()
            optimizer.step()
            loss.item()
        trained = time.perf_counter()
        network.eval()
        for has_projection in (False, True):
            queries, references = embed(validation, has_projection), embed(train, has_projection)
            embedding_metrics(queries, data.labels[validation], references, data.labels[train])
        return parts_of(trained - start, sum(waits), time.perf_counter() - trained)

    return run


def our_epoch(data: LabelledImages, params: Stage1Parameters) -> Callable[[], dict[str, float]]:
    """The trainer of this project; it returns the seconds of its parts."""
    stage = contrastive_stage(data, CARD, params)
    training = build_training(stage, data)
    waits: list[float] = []
    validating: list[float] = []
    batches_of = training.loader.epoch
    training.loader.epoch = lambda *args, **options: timed(batches_of(*args, **options), waits)  # type: ignore[method-assign]

    def validate(model: nn.Module) -> dict[str, float]:
        start = time.perf_counter()
        metrics = stage.validate(model)
        validating.append(time.perf_counter() - start)
        return metrics

    records = fit(training, params.schedule.num_epochs, validate, params.checkpoints.metric)

    def run() -> dict[str, float]:
        waits.clear()
        validating.clear()
        start = time.perf_counter()
        while not isinstance(next(records), EpochRecord):
            pass
        total, validated = time.perf_counter() - start, sum(validating)
        return parts_of(total - validated, sum(waits), validated)

    return run


def measure(params: Stage1Parameters, data: LabelledImages, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of the parts of each round, by loop; the first round of each warms up."""
    runs = {"straightforward": plain_epoch(data, params), "supcon_pipeline": our_epoch(data, params)}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            parts = run()
            if index:
                seconds[name].append(parts)
    return seconds


def main() -> None:
    """Print medians and ratios, backbone by backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parameters", default="conf/base/parameters_stage1.yml")
    parser.add_argument("--backbone", nargs="+", default=["resnet_narrow"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--raw-validated", action="store_true")
    parser.add_argument("--images", type=int, help="how many digits; default: all")
    arguments = parser.parse_args()
    with open(arguments.parameters) as file:
        raw = yaml.safe_load(file.read().replace("${seed}", "0"))["stage1"]
    raw["loader"]["num_workers"] = arguments.num_workers
    raw["ema"]["is_raw_validated"] = arguments.raw_validated
    precision = choose_precision(arguments.precision, pick_device()).name
    data = load_digits(arguments.images)
    table = Table("backbone", "loop", "wait s", "step s", "validate s", "epoch s", "ratio")
    ratios = {}
    for backbone in arguments.backbone:
        changes = {"backbone": {**raw["backbone"], "name": backbone}, "precision": precision}
        seconds = measure(Stage1Parameters.model_validate({**raw, **changes}), data, arguments.rounds)
        totals = {name: [sum(parts.values()) for parts in rounds] for name, rounds in seconds.items()}
        ratios[backbone] = median(np.divide(totals["supcon_pipeline"], totals["straightforward"]).tolist())
        for name, rounds in seconds.items():
            parts = [median(one[part] for one in rounds) for part in ("wait", "step", "validate")]
            ratio = f"{ratios[backbone]:.2f}" if name == "supcon_pipeline" else ""
            table.add_row(backbone, name, *(f"{value:.2f}" for value in (*parts, sum(parts))), ratio)
    Console(width=90).print(table)
    settings = {name: getattr(arguments, name) for name in ("num_workers", "rounds", "raw_validated")}
    print("RESULT", json.dumps({"precision": precision, **settings, "ratios": ratios}))


if __name__ == "__main__":
    main()
