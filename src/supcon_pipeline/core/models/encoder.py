"""The encoder, its heads, and models rebuilt from a description."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.weights import with_versions
from supcon_pipeline.core.named_tensors import NamedTensors

# What a model gives for a batch of images, rows in their order: `embedding` `[batch, num_features]` and,
# where it has the head, the L2-normalised `projection` `[batch, dim]` and the `logits` `[batch, classes]`.
Outputs = dict[str, Tensor]


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
    """Encoder and projection head, and a classifier head where there are classes; one forward gives all.

    The projection head is the two-layer perceptron of Khosla et al. 2020 (arXiv:2004.11362, section 3.1).

    Args:
        encoder: gives embeddings.
        num_features: of an embedding.
        hidden_dim: of the projection head.
        dim: of a projection.
        num_classes: of the classifier head; none where 0.
    """

    def __init__(self, encoder: Encoder, num_features: int, hidden_dim: int, dim: int, num_classes: int = 0):
        super().__init__()
        self.encoder = encoder
        self.projection_head = nn.Sequential(
            nn.Linear(num_features, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, dim)
        )
        self.classifier = nn.Linear(num_features, num_classes) if num_classes else None

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Outputs:
        """Embedding, projection and logits of images with the channels last, 0 to 255."""
        embedding = self.encoder(images)
        projection = functional.normalize(self.projection_head(embedding).float(), dim=1)
        outputs = {"embedding": embedding, "projection": projection}
        return outputs if self.classifier is None else {**outputs, "logits": self.classifier(embedding)}


class ImageClassifier(nn.Module):
    """Encoder and linear classifier, trained together."""

    def __init__(self, encoder: nn.Module, classifier: nn.Module):
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Outputs:
        """Embedding and logits of images with the channels last, 0 to 255."""
        embedding = self.encoder(images)
        return {"embedding": embedding, "logits": self.classifier(embedding)}


class LinearProbe(ImageClassifier):
    """A linear classifier on a frozen encoder.

    The encoder takes no gradient and stays in evaluation mode, so that its batch-norm statistics do not
    drift.
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module):
        super().__init__(encoder.requires_grad_(False).eval(), classifier)

    def train(self, mode: bool = True) -> "LinearProbe":
        """Set the mode of the classifier alone."""
        super().train(mode)
        self.encoder.eval()
        return self


def build_encoder(
    backbone: str,
    stem: str,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | None = None,
) -> tuple[Encoder, int]:
    """An encoder and its feature width; all but the weights of a pretrained backbone are new.

    The description of a checkpoint leaves `pretrained` and `weights` out, because it brings its own weights.
    """
    network, num_features = build_backbone(
        backbone, stem, len(mean), pretrained=pretrained, weights=weights, image_size=image_size
    )
    return Encoder(network, mean, std), num_features


def build_contrastive_model(
    backbone: str,
    stem: str,
    mean: Sequence[float],
    std: Sequence[float],
    hidden_dim: int,
    dim: int,
    num_classes: int = 0,
    **start: Any,
) -> ContrastiveModel:
    """A contrastive model, laid out `channels_last`; `start` is as for `build_encoder`."""
    encoder, num_features = build_encoder(backbone, stem, mean, std, **start)
    model = ContrastiveModel(encoder, num_features, hidden_dim, dim, num_classes)
    return model.to(memory_format=torch.channels_last)


def build_image_classifier(
    backbone: str, stem: str, mean: Sequence[float], std: Sequence[float], num_classes: int, **start: Any
) -> ImageClassifier:
    """An encoder with a classifier, laid out `channels_last`; `start` is as for `build_encoder`."""
    encoder, num_features = build_encoder(backbone, stem, mean, std, **start)
    model = ImageClassifier(encoder, build_classifier(num_features, num_classes))
    return model.to(memory_format=torch.channels_last)


def build_classifier(num_features: int, num_classes: int) -> nn.Linear:
    """A linear classifier of embeddings."""
    return nn.Linear(num_features, num_classes)


_BUILDERS = {
    "contrastive": build_contrastive_model,
    "image_classifier": build_image_classifier,
    "classifier": build_classifier,
}


def build_model(description: Mapping[str, Any]) -> nn.Module:
    """The model that a checkpoint describes: `{"kind": <one of three>, <its arguments>}`.

    Raises:
        InputError: where the kind is unknown.
    """
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in _BUILDERS:
        raise InputError(f"kind of a model must be one of {', '.join(_BUILDERS)}, got {kind!r}")
    return _BUILDERS[kind](**arguments)  # type: ignore[operator, no-any-return]


def restore_model(state: NamedTensors) -> nn.Module:
    """The model that a state belongs to, with its weights, in evaluation mode.

    Raises:
        RuntimeError: where the weights do not fit the description, entry by entry.
    """
    model = build_model(state.metadata["model"])
    model.load_state_dict(with_versions(state.tensors, model), strict=True)
    return model.eval()
