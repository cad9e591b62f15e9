"""Trainings that take a second."""

from typing import Any

import numpy as np
import yaml
from tests.conftest import ROOT

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.parameters.stages import Stage1Parameters, Stage2Parameters

# What the trainings use of the dataset card of `make_data`.
CARD = {"mean": [0.5], "std": [0.3], "data_hash": "x", "crop": "pad"}


def make_data(num_images: int = 60, num_classes: int = 3, size: int = 16) -> LabelledImages:
    """Noise around one picture per class, 36 of 60 images to train on."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (num_classes, size, size, 1))
    labels = np.arange(num_images) % num_classes
    noisy = pictures[labels] + generator.integers(-40, 41, (num_images, size, size, 1))
    splits = np.array(["train", "train", "validation", "test", "train"])[
        np.arange(num_images) // num_classes % 5
    ]
    return LabelledImages(np.clip(noisy, 0, 255).astype(np.uint8), labels, splits)


def read_parameters(stage: str) -> dict[str, Any]:
    """The defaults of a stage, as YAML has them."""
    text = (ROOT / f"conf/base/parameters_{stage}.yml").read_text().replace("${seed}", "0")
    parameters: dict[str, Any] = yaml.safe_load(text)[stage]
    return parameters


def stage1_parameters(**changes: Any) -> Stage1Parameters:
    """Four epochs of three steps."""
    defaults = read_parameters("stage1")
    schedule = {**defaults["schedule"], "num_epochs": 4, "warmup_epochs": 1}
    small = {
        "schedule": schedule,
        "loader": {"batch_size": 12, "num_workers": 0},
        "transforms": [{"name": "HorizontalFlip"}],
    }
    return Stage1Parameters.model_validate({**defaults, **small, **changes})


def stage2_parameters(**changes: Any) -> Stage2Parameters:
    """Two epochs."""
    defaults = read_parameters("stage2")
    schedule = {**defaults["schedule"], "num_epochs": 2, "warmup_epochs": 1}
    small = {"schedule": schedule, "loader": {"batch_size": 12, "num_workers": 0}}
    return Stage2Parameters.model_validate({**defaults, **small, **changes})
