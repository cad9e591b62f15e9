"""Stage 1 of an environment for so many minutes, without the pipelines: how far does a recipe come?

    python -m benchmarks.recipe --env cifar10 --images cifar10.npz --minutes 5 --changes optimizer.lr=0.2

The file holds `images` (uint8, [n, h, w, c]), `labels` and `is_test`; of what is not for testing, as much
validates as the environment says. Without a file, the digits. Recipes are chosen by validation; `--test`
scores the test images too.
A line `CASE {json}` follows each validation. How much does a recipe lose by fewer, wrong or unequally many
labels, and how much does cross-entropy alone, as long?

    python -m benchmarks.recipe --env cifar10_fast --images cifar10.npz --minutes 2 --wrong 0.4 --baseline
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.epoch import load_digits
from omegaconf import OmegaConf
from torch.nn import functional

from supcon_pipeline.config import ExperimentConfigLoader
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.data.pixels import channel_statistics
from supcon_pipeline.core.data.splits import split_samples
from supcon_pipeline.core.metrics.classification import accuracy
from supcon_pipeline.core.metrics.retrieval import retrieval_values
from supcon_pipeline.core.models.embed import embed_images
from supcon_pipeline.core.parameters.stages import BaselineParameters, Stage1Parameters
from supcon_pipeline.core.search.knn import classify_by_prefixes
from supcon_pipeline.core.training.loop import fit
from supcon_pipeline.core.training.recipes import baseline_stage, contrastive_stage
from supcon_pipeline.core.training.stage import Stage, build_training
from supcon_pipeline.core.training.state import EpochRecord, Training
from supcon_pipeline.settings import CONFIG_LOADER_ARGS


def group_parameters(group: str, env: str, changes: list[str]) -> dict[str, Any]:
    """The parameters of a group in an environment, with changes such as `loader.batch_size=512`."""
    loader = ExperimentConfigLoader("conf", env=env, **CONFIG_LOADER_ARGS)
    merged = OmegaConf.merge(loader["parameters"][group], OmegaConf.from_dotlist(changes))
    found: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    return found


def load_images(path: Path | None, validation_fraction: float) -> LabelledImages:
    """The images of a file with their splits; without one, the digits."""
    if path is None:
        return load_digits(None)
    arrays = np.load(path)
    labels = arrays["labels"].astype(np.int64)
    given = np.where(arrays["is_test"], "test", "train").astype(object)
    return LabelledImages(arrays["images"], labels, split_samples(labels, validation_fraction, 0, 0, given))


def thin_out(data: LabelledImages, fraction: float, imbalance: float, seed: int) -> LabelledImages:
    """The same with fewer images to train on and to validate by.

    Args:
        data: the images.
        fraction: what is left of the first class.
        imbalance: how many times as much is left of the first class as of the last, falling geometrically.
        seed: of what is left.
    """
    rng, shares = np.random.default_rng(seed), np.geomspace(fraction, fraction / imbalance, data.num_classes)
    is_kept = data.splits == "test"
    for split, label in product(("train", "validation"), range(data.num_classes)):
        members = np.flatnonzero((data.splits == split) & (data.labels == label))
        is_kept[rng.permutation(members)[: max(round(shares[label] * len(members)), 1)]] = True
    return LabelledImages(data.images[is_kept], data.labels[is_kept], data.splits[is_kept])


def mislabel(data: LabelledImages, share: float, seed: int) -> LabelledImages:
    """The same where so large a share of the images outside of test has the label of another class."""
    rng, count = np.random.default_rng(seed), len(data.labels)
    is_wrong = (data.splits != "test") & (rng.random(count) < share)
    others = (data.labels + rng.integers(1, data.num_classes, count)) % data.num_classes
    return replace(data, labels=np.where(is_wrong, others, data.labels))


def card_of(data: LabelledImages) -> dict[str, Any]:
    """The part of a dataset card that a stage uses."""
    mean, std = channel_statistics(data.images, data.indices("train"))
    return {"mean": mean, "std": std, "data_hash": "benchmark", "crop": "pad"}


def build_stage(options: argparse.Namespace, data: LabelledImages, params: Stage1Parameters) -> Stage:
    """Stage 1, or its baseline."""
    if options.baseline is None:
        return contrastive_stage(data, card_of(data), params)
    changed = group_parameters("baseline", options.env, options.baseline)
    return baseline_stage(data, card_of(data), params, BaselineParameters.model_validate(changed))


def train(stage: Stage, data: LabelledImages) -> Iterator[tuple[Training, dict[str, Any]]]:
    """The training after each validation, and what it found."""
    params = stage.params
    training, metric = build_training(stage, data), params.checkpoints.metric
    interval = params.validation_interval
    records = fit(training, params.schedule.num_epochs, stage.validate, metric, validation_interval=interval)
    for record in records:
        if isinstance(record, EpochRecord) and record.metrics:
            names = dict.fromkeys([metric, "embedding.precision_at_1"])
            found = {name: record.metrics[name] for name in names if name in record.metrics}
            yield training, {"case": f"epoch {record.epoch}", "loss": record.loss, **found}
    training.loader.close()


def scores(training: Training, data: LabelledImages, split: str, batch_size: int) -> dict[str, float]:
    """Accuracy of nearest neighbour and weighted k-NN, mAP@R; accuracy and log loss of a classifier head."""
    train, chosen = data.indices("train"), data.indices(split)
    with training.precision.autocast():
        outputs = embed_images(training.validated, data.images, np.concatenate([chosen, train]), batch_size)
    queries, references = np.split(outputs["embedding"].numpy(), [len(chosen)])
    labels, neighbours = data.labels[chosen], data.labels[train]
    votes = classify_by_prefixes(queries, references, neighbours, (1, 20), 0.07)
    found = {f"knn_{k}": accuracy(labels, predicted) for k, predicted in votes.items()}
    values = retrieval_values(queries, labels, references, neighbours)
    found["map_at_r"] = float(values["mean_average_precision_at_r"].mean())
    if "logits" in outputs:
        logits = outputs["logits"][: len(chosen)]
        found["classifier"] = accuracy(labels, logits.argmax(dim=1).numpy())
        found["log_loss"] = float(functional.cross_entropy(logits, torch.from_numpy(labels)))
    return found


def parse_options() -> argparse.Namespace:
    """What to train, on what, and for how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    changes: dict[str, Any] = {"nargs": "*", "metavar": "NAME=VALUE"}
    parser.add_argument("--env", default="base")
    parser.add_argument("--images", type=Path, help="file of arrays; by default the digits")
    parser.add_argument("--minutes", type=float, help="of training; by default as the environment says")
    parser.add_argument("--workers", type=int, help="processes that make views")
    parser.add_argument("--changes", default=[], help="of stage 1", **changes)
    parser.add_argument("--baseline", help="train the cross-entropy baseline, with changes of it", **changes)
    parser.add_argument("--fraction", type=float, default=1, help="of the images, outside of test")
    parser.add_argument("--imbalance", type=float, default=1, help="images of the first class to the last")
    parser.add_argument("--wrong", type=float, default=0, help="share of wrong labels, outside of test")
    parser.add_argument("--test", action="store_true", help="score the test images too")
    return parser.parse_args()


def main() -> None:
    """Train, and print what was found as it is found."""
    options = parse_options()
    limits = {"max_minutes": options.minutes, "loader.num_workers": options.workers}
    changes = [f"{name}={value}" for name, value in limits.items() if value is not None]
    changed = group_parameters("stage1", options.env, [*changes, *options.changes])
    params = Stage1Parameters.model_validate(changed)
    validation_fraction = group_parameters("data_prep", options.env, [])["validation_fraction"]
    images = load_images(options.images, validation_fraction)
    data = thin_out(images, options.fraction, options.imbalance, params.seed)
    data, start = mislabel(data, options.wrong, params.seed), time.perf_counter()
    cases = []
    training: Training
    for training, found in train(build_stage(options, data, params), data):  # noqa: B007 (the last is scored)
        cases.append({**found, "seconds": time.perf_counter() - start})
        print("CASE", json.dumps(cases[-1]), flush=True)
    for split in ("validation", "test") if options.test else ("validation",):
        found = {"case": split, **scores(training, data, split, params.validation_batch_size)}
        cases.append({**found, "seconds": time.perf_counter() - start, "epochs": training.epoch})
        print("CASE", json.dumps(cases[-1]), flush=True)
    print("RESULT", json.dumps(cases))


if __name__ == "__main__":
    main()
