"""The encoder, its heads, and models rebuilt from a description."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from supcon_pipeline.core.backbones import build_backbone


class Features(NamedTuple):
    """Embedding `[batch, num_features]` and L2-normalised projection `[batch, dim]` of the same images."""

    embedding: Tensor
    projection: Tensor


class Encoder(nn.Module):
    """Backbone with its own normalisation: uint8 images in, embeddings out.

    Args:
        backbone: headless network.
        mean: of each channel, on the scale 0 to 1.
        std: of each channel, on the scale 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        # A constant channel has no spread; dividing by one keeps it at zero.
        spread = torch.tensor([value if value > 0 else 1.0 for value in std])
        self.register_buffer("std", spread.view(1, -1, 1, 1))

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Float[Tensor, "batch features"]:
        """Embeddings of images with the channels last, 0 to 255."""
        # The layout of the input is already what `channels_last` means: no copy.
        pixels = images.permute(0, 3, 1, 2).float() / 255.0
        embedding: Tensor = self.backbone((pixels - self.mean) / self.std)
        return embedding


class ContrastiveModel(nn.Module):
    """Encoder and projection head; one forward gives both features.

    The head is the two-layer perceptron of Khosla et al. 2020 (arXiv:2004.11362, section 3.1).
    """

    def __init__(self, encoder: Encoder, num_features: int, hidden_dim: int, dim: int):
        super().__init__()
        self.encoder = encoder
        self.projection_head = nn.Sequential(
            nn.Linear(num_features, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, dim)
        )

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Features:
        """Embedding and projection of images with the channels last, 0 to 255."""
        embedding = self.encoder(images)
        projection = functional.normalize(self.projection_head(embedding).float(), dim=1)
        return Features(embedding, projection)


class LinearProbe(nn.Module):
    """A linear classifier on a frozen encoder.

    The encoder takes no gradient and stays in evaluation mode, so that its batch-norm statistics do not
    drift.
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module):
        super().__init__()
        self.encoder, self.classifier = encoder.requires_grad_(False).eval(), classifier

    def train(self, mode: bool = True) -> "LinearProbe":
        """Set the mode of the classifier alone."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Float[Tensor, "batch classes"]:
        """Logits of images with the channels last, 0 to 255."""
        with torch.no_grad():
            embedding = self.encoder(images)
        logits: Tensor = self.classifier(embedding)
        return logits


def build_contrastive_model(
    backbone: str,
    stem: str,
    mean: Sequence[float],
    std: Sequence[float],
    hidden_dim: int,
    dim: int,
) -> ContrastiveModel:
    """A contrastive model with new weights, laid out `channels_last`."""
    network, num_features = build_backbone(backbone, stem, num_channels=len(mean))
    model = ContrastiveModel(Encoder(network, mean, std), num_features, hidden_dim, dim)
    return model.to(memory_format=torch.channels_last)


def build_classifier(num_features: int, num_classes: int) -> nn.Linear:
    """A linear classifier of embeddings."""
    return nn.Linear(num_features, num_classes)


_BUILDERS = {"contrastive": build_contrastive_model, "classifier": build_classifier}


def build_model(description: Mapping[str, Any]) -> nn.Module:
    """The model that a checkpoint describes: `{"kind": "contrastive" or "classifier", <its arguments>}`.

    Raises:
        ValueError: where the kind is unknown.
    """
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in _BUILDERS:
        raise ValueError(f"kind of a model must be one of {', '.join(_BUILDERS)}, got {kind!r}")
    return _BUILDERS[kind](**arguments)  # type: ignore[operator, no-any-return]
