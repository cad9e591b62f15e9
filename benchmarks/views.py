"""Views per second and core for each policy, and the share of an epoch spent waiting for views.

    python benchmarks/views.py

The policies are that of `conf/base` and the presets, on digits packed at 32 and 224 pixels, with one thread.
Seconds are processor time, so other programs matter little. The epoch is the training part of stage 1 of
`conf/base`, with views made in the training process (0 workers) or in background processes.

And by how photographs are stored: views of 224 pixels and squares for evaluation, reading included. They are
the two that come with scikit-learn, repeated, or those of a folder (`--photographs`).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images

from supcon_pipeline.core.data.encoded_images import EncodedImages, StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.core.data.pixels import pack_image
from supcon_pipeline.core.data.splits import split_samples
from supcon_pipeline.core.parameters.stages import Stage1Parameters
from supcon_pipeline.core.training.loop import train_step
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.views.loading import ViewDataset
from supcon_pipeline.core.views.policy import ViewPolicy
from supcon_pipeline.core.views.presets import PRESETS
from supcon_pipeline.datasets.digits import DigitsDataset

# The part of a dataset card that a stage uses.
CARD = {"mean": [0.3] * 3, "std": [0.35] * 3, "data_hash": "benchmark", "crop": "pad"}


def views_per_second(transforms: list[dict], images: np.ndarray, num_repeats: int) -> float:
    """On one core, the best of the repeats."""
    policy = ViewPolicy(transforms, 2, images.shape[1:])
    policy(images[:8], 0)
    seconds = []
    for seed in range(num_repeats):
        start = time.process_time()
        policy(images, seed)
        seconds.append(time.process_time() - start)
    return 2 * len(images) / min(seconds)


def measure_policies(policies: dict[str, list[dict]], num_images: int, num_repeats: int) -> list[dict]:
    """Every policy at both sizes, with OpenCV on one thread."""
    raw, num_threads, results = DigitsDataset().load(), cv2.getNumThreads(), []
    cv2.setNumThreads(0)
    for size, count in ((32, min(num_images, 256)), (224, min(num_images, 32))):
        images = np.stack([pack_image(image, size, 3) for image in raw.images[:count]])
        for name, transforms in policies.items():
            speed = views_per_second(transforms, images, num_repeats)
            results.append({"policy": name, "pixels": size, "views_per_second": speed})
    cv2.setNumThreads(num_threads)
    return results


def read_per_second(images: StoredImages, transforms: list[dict], num_repeats: int) -> dict[str, float]:
    """Views of 224 pixels made of stored images, and squares read, on one core; the best of the repeats."""
    keeps_aspect = isinstance(images, EncodedImages)
    policy = ViewPolicy(transforms, 1, images.shape[1:], [224], keeps_aspect=keeps_aspect)
    dataset, rows = ViewDataset(images, np.zeros(len(images)), policy), np.arange(len(images))
    views, squares = [], []
    for seed in range(num_repeats):
        start = time.process_time()
        dataset[seed, rows, 0]
        made = time.process_time()
        np.array(images[rows])
        views.append(made - start)
        squares.append(time.process_time() - made)
    return {"views_per_second": len(images) / min(views), "squares_per_second": len(images) / min(squares)}


def measure_storages(folder: Path | None, num_images: int, num_repeats: int) -> list[dict]:
    """Photographs stored at 256 pixels in each way, by the policies for them, with OpenCV on one thread."""
    found = sorted(folder.rglob("*.jpg")) if folder else load_sample_images().images
    items, num_threads, rows = (
        [found[index % len(found)] for index in range(num_images)],
        cv2.getNumThreads(),
        [],
    )
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as place:
        for storage in ("squares", "encoded"):
            images, _ = PackingStore(Path(place)).pack(items, Packing(256, 3, "crop", storage), 0)
            for name in ("crop_and_flip", "photograph"):
                speed = read_per_second(images, PRESETS[name], num_repeats)
                rows.append({"storage": storage, "policy": name, **speed})
    cv2.setNumThreads(num_threads)
    return rows


def measure_waiting(raw_params: dict, num_images: int, num_workers: int, num_epochs: int) -> dict:
    """Median seconds of an epoch of training steps, and of those spent waiting for a batch."""
    params = Stage1Parameters.model_validate(
        {**raw_params, "loader": {**raw_params["loader"], "num_workers": num_workers}}
    )
    raw = DigitsDataset().load()
    images = np.stack([pack_image(image, 32, 3) for image in raw.images[:num_images]])
    labels = raw.labels[:num_images]
    data = LabelledImages(images, labels, split_samples(labels, 0.15, 0.2, 0))
    training = build_training(contrastive_stage(data, CARD, params), data)
    training.model.train()
    waiting, whole = [], []
    for epoch in range(num_epochs + 1):
        start, waited = time.perf_counter(), 0.0
        batches = training.loader.epoch(epoch)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            # Read, so that a GPU's work counts as part of the step, not as waiting for the next batch.
            float(train_step(training, batch)[0])
        waiting.append(waited)
        whole.append(time.perf_counter() - start)
    # The first epoch warms up.
    seconds = {"epoch_seconds": median(whole[1:]), "waiting_seconds": median(waiting[1:])}
    return {"workers": num_workers, **seconds, "share": seconds["waiting_seconds"] / seconds["epoch_seconds"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the training loop")
    parser.add_argument("--images", type=int, default=1797, help="how many digits")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files")
    parser.add_argument("--num-photographs", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with open("conf/base/parameters_stage1.yml") as file:
        params = yaml.safe_load(file.read().replace("${seed}", "0"))["stage1"]
    policies = measure_policies(
        {"conf/base": params["transforms"], **PRESETS}, arguments.images, arguments.repeats
    )
    table = Table("policy", "pixels", "views/s per core", "ms per view")
    for row in policies:
        speed = row["views_per_second"]
        table.add_row(row["policy"], str(row["pixels"]), f"{speed:,.0f}", f"{1000 / speed:.3f}")
    console = Console(width=80)
    console.print(table)
    storages = measure_storages(arguments.photographs, arguments.num_photographs, arguments.repeats)
    table = Table("storage", "policy", "views of 224 pixels/s per core", "squares read/s per core")
    for row in storages:
        speeds = (f"{row[name]:,.0f}" for name in ("views_per_second", "squares_per_second"))
        table.add_row(row["storage"], row["policy"], *speeds)
    console.print(table)
    epochs = [
        measure_waiting(params, arguments.images, num_workers, arguments.epochs)
        for num_workers in arguments.workers
    ]
    table = Table("workers", "epoch s", "waits for views s", "share")
    for row in epochs:
        numbers = f"{row['epoch_seconds']:.2f}", f"{row['waiting_seconds']:.2f}", f"{row['share']:.0%}"
        table.add_row(str(row["workers"]), *numbers)
    console.print(table)
    print("RESULT", json.dumps({"policies": policies, "storages": storages, "epochs": epochs}))


if __name__ == "__main__":
    main()
