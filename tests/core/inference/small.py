"""A small encoder with a classifier, untrained."""

import torch

from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.named_tensors import NamedTensors


def small_states(num_classes: int) -> tuple[NamedTensors, NamedTensors]:
    """Encoder and classifier of images of 8 pixels and one channel."""
    torch.manual_seed(0)
    description = {
        "kind": "contrastive",
        "backbone": "resnet_narrow",
        "stem": "small_image",
        "image_size": 8,
        "mean": [0.5],
        "std": [0.25],
        "hidden_dim": 4,
        "dim": 2,
    }
    encoder = build_model(description)
    head = {"kind": "classifier", "num_features": encoder.num_features, "num_classes": num_classes}
    metadata = {"model": description, "data_hash": "abc", "crop": "stretch", "run_id": "first"}
    return (
        NamedTensors(encoder.state_dict(), metadata),
        NamedTensors(build_model(head).state_dict(), {"model": head}),
    )
