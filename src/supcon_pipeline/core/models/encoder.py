"""The encoder, its heads, and models rebuilt from a description."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from supcon_pipeline.core.losses.inputs import at_least_float32
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.image_size import REJECTIONS
from supcon_pipeline.core.models.weights import shorten_error, with_versions
from supcon_pipeline.core.named_tensors import NamedTensors

# The outputs of a model for a batch of images, in their order: `embedding` `[batch, num_features]` and, with
# the head for it, the L2-normalised `projection` `[batch, dim]` and the `logits` `[batch, classes]`. In
# training, with proxies, the `similarities` of projections to them `[batch, classes]`.
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Sight:
    """What a network sees of an image in evaluation: its middle, at another size.

    As torchvision's `CenterCrop` and `Resize`, but without rounding to whole numbers after the latter.

    Args:
        stored_size: height and width of the images that this is done to; others are views already.
        image_size: height and width that the network sees.
        center_crop: share of the side that is kept, above 0 and at most 1.
    """

    stored_size: int
    image_size: int
    center_crop: float

    @property
    def side(self) -> int:
        """Height and width of the middle, of the size at which images are stored."""
        return round(self.stored_size * self.center_crop)

    def apply(self, pixels: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c size size"]:
        """The middle, by linear interpolation over as many pixels as one of the result covers."""
        if pixels.shape[-1] != self.stored_size:
            return pixels
        side = self.side
        start = round((self.stored_size - side) / 2)
        middle = pixels[:, :, start : start + side, start : start + side]
        if side == self.image_size:
            return middle
        size = (self.image_size, self.image_size)
        return functional.interpolate(middle, size, mode="bilinear", antialias=True)


def input_size(description: Mapping[str, Any]) -> int:
    """Height and width of the images that a described encoder takes."""
    size: int = description.get("stored_size") or description["image_size"]
    return size


class Encoder(nn.Module):
    """Backbone with built-in normalisation: uint8 images in, embeddings out.

    Args:
        backbone: headless network.
        mean: mean of each channel, on the scale 0 to 1.
        std: standard deviation of each channel, on the scale 0 to 1.
        sight: how images are seen that come at the size at which they are stored; None for as they are.
        neck: from the features of the backbone to the embedding; None where they are the embedding.
        mirror_average: whether an embedding, outside of training, is the mean of those of an image and of its
            mirror image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        sight: Sight | None = None,
        neck: nn.Linear | None = None,
        mirror_average: bool = False,
    ):
        super().__init__()
        self.backbone, self.sight, self.neck = backbone, sight, neck
        self.mirror_average = mirror_average
        # Whether, in training, views are as they are to be seen, even of the size of stored images.
        self.sees_views_whole = False
        # Whether it takes views although it is in evaluation mode, for a classifier that is trained on it.
        self.is_probed = False
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        # A constant channel has no spread; dividing by one keeps it at zero.
        spread = torch.tensor([value if value > 0 else 1.0 for value in std])
        self.register_buffer("std", spread.view(1, -1, 1, 1))

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Float[Tensor, "batch dim"]:
        """Embeddings of channels-last images, 0 to 255."""
        if self.training or not self.mirror_average:
            return self._embed(images)
        return (self._embed(images) + self._embed(images.flip(2))) / 2

    def _embed(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return features if self.neck is None else self.neck(features)

    def features(self, images: UInt8[Tensor, "batch h w c"]) -> Float[Tensor, "batch features"]:
        """What the backbone makes of channels-last images, 0 to 255."""
        features: Tensor = self.backbone(self.pixels(images))
        return features

    def pixels(self, images: UInt8[Tensor, "batch h w c"]) -> Float[Tensor, "batch c h2 w2"]:
        """Channels-last images, 0 to 255, as the backbone sees them."""
        # The input is already in `channels_last` layout: no copy.
        pixels = images.permute(0, 3, 1, 2).float() / 255.0
        takes_views = self.training or self.is_probed
        if self.sight is not None and not (takes_views and self.sees_views_whole):
            pixels = self.sight.apply(pixels)
        return (pixels - self.mean) / self.std


class ContrastiveModel(nn.Module):
    """Encoder with a projection head and, given classes, a classifier head; one pass gives all outputs.

    The projection head is the two-layer perceptron of Khosla et al. 2020 (arXiv:2004.11362, section 3.1).
    Without it, the projection is the embedding, normalised.

    Args:
        encoder: images to embeddings.
        num_features: width of an embedding.
        hidden_dim: hidden width of the projection head; None for no head.
        dim: width of a projection; None without a head.
        num_classes: classes of the classifier head; 0 for no head.
        num_proxies: classes with a learned row that projections are compared with; 0 for none.
    """

    def __init__(
        self,
        encoder: Encoder,
        num_features: int,
        hidden_dim: int | None = None,
        dim: int | None = None,
        num_classes: int = 0,
        num_proxies: int = 0,
    ):
        super().__init__()
        self.encoder, self.num_features = encoder, num_features
        self.projection_head: nn.Module = nn.Identity()
        if hidden_dim and dim:
            self.projection_head = nn.Sequential(
                nn.Linear(num_features, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, dim)
            )
        self.classifier = nn.Linear(num_features, num_classes) if num_classes else None
        width = dim or num_features
        self.proxies = nn.Parameter(torch.randn(num_proxies, width) / width**0.5) if num_proxies else None

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Outputs:
        """Embedding, projection and what the heads say of channels-last images, 0 to 255."""
        embedding = self.encoder(images)
        projection = functional.normalize(at_least_float32(self.projection_head(embedding)), dim=1)
        outputs = {"embedding": embedding, "projection": projection}
        if self.classifier is not None:
            outputs["logits"] = self.classifier(embedding)
        if self.training and self.proxies is not None:
            outputs["similarities"] = projection @ functional.normalize(self.proxies, dim=1).T
        return outputs


class ImageClassifier(nn.Module):
    """Encoder and linear classifier, trained together."""

    def __init__(self, encoder: nn.Module, classifier: nn.Module):
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> Outputs:
        """Embedding and logits of channels-last images, 0 to 255."""
        embedding = self.encoder(images)
        return {"embedding": embedding, "logits": self.classifier(embedding)}


class LinearProbe(ImageClassifier):
    """A linear classifier on a frozen encoder.

    The encoder gets no gradient and stays in evaluation mode, so that its batch-norm statistics do not
    drift.
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module):
        super().__init__(encoder.requires_grad_(False).eval(), classifier)

    def train(self, mode: bool = True) -> "LinearProbe":
        """Set the mode of the classifier only; the encoder is told whether it is given views."""
        super().train(mode)
        self.encoder.eval()
        if isinstance(self.encoder, Encoder):
            self.encoder.is_probed = mode
        return self


def build_encoder(
    backbone: str,
    stem: str,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int | None = None,
    stored_size: int | None = None,
    center_crop: float = 1.0,
    embedding_dim: int | None = None,
    mirror_average: bool = False,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float | None = None,
) -> tuple[Encoder, int]:
    """An encoder and the width of its embedding, newly initialised except for a pretrained backbone.

    The description in a checkpoint omits `pretrained` and `weights`, because it comes with its own weights,
    and `drop_path`, which matters in training alone.
    """
    network, num_features = build_backbone(
        backbone,
        stem,
        len(mean),
        pretrained=pretrained,
        weights=weights,
        image_size=image_size,
        drop_path=drop_path,
    )
    sight = Sight(stored_size, image_size, center_crop) if stored_size and image_size else None
    neck = nn.Linear(num_features, embedding_dim) if embedding_dim else None
    return Encoder(network, mean, std, sight, neck, mirror_average), embedding_dim or num_features


def build_contrastive_model(
    backbone: str,
    stem: str,
    mean: Sequence[float],
    std: Sequence[float],
    hidden_dim: int | None = None,
    dim: int | None = None,
    num_classes: int = 0,
    num_proxies: int = 0,
    **start: Any,
) -> ContrastiveModel:
    """A contrastive model in `channels_last` layout; `start` is passed to `build_encoder`."""
    encoder, num_features = build_encoder(backbone, stem, mean, std, **start)
    model = ContrastiveModel(encoder, num_features, hidden_dim, dim, num_classes, num_proxies)
    return model.to(memory_format=torch.channels_last)


def build_image_classifier(
    backbone: str, stem: str, mean: Sequence[float], std: Sequence[float], num_classes: int, **start: Any
) -> ImageClassifier:
    """An encoder with a classifier in `channels_last` layout; `start` is passed to `build_encoder`."""
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
# The kinds of model that have an encoder.
ENCODER_KINDS = ("contrastive", "image_classifier")


def build_model(description: Mapping[str, Any]) -> nn.Module:
    """The model that a checkpoint describes: `{"kind": <one of three>, <its arguments>}`.

    Raises:
        ValueError: if the kind is unknown.
    """
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in _BUILDERS:
        raise ValueError(f"kind of a model must be one of {', '.join(_BUILDERS)}, got {kind!r}")
    return _BUILDERS[kind](**arguments)  # type: ignore[operator, no-any-return]


def restore_model(state: NamedTensors) -> nn.Module:
    """The model that a state describes, with its weights, in evaluation mode.

    Raises:
        RuntimeError: if the weights do not fit the description, listing the entries.
    """
    model = build_model(state.metadata["model"])
    model.load_state_dict(with_versions(state.tensors, model), strict=True)
    return model.eval()


@torch.no_grad()
def require_fitting_views(model: nn.Module, shapes: Iterable[tuple[int, ...]], group: str) -> None:
    """Refuse views that a model cannot take before a training, not in the epoch that has the first of them.

    Args:
        model: to be trained; takes uint8 images, `[batch, h, w, c]`.
        shapes: `(h, w, c)` of views.
        group: the group of parameters that the views are of, for the message.

    Raises:
        InputError: with the first size that does not suit the model.
    """
    device = next(model.parameters()).device
    model.train()
    for module in model.modules():
        # An encoder may see views otherwise than stored images; all else is in evaluation mode, in which
        # nothing is random and no statistics change.
        module.training = module.training and isinstance(module, Encoder)
    for shape in dict.fromkeys(shapes):
        try:
            model(torch.zeros(1, *shape, dtype=torch.uint8, device=device))
        except REJECTIONS as error:
            raise InputError(
                f"{group}.transforms must give views that suit the network, got {shape[0]} x {shape[1]} "
                f"pixels ({shorten_error(error)}); choose other sizes, such as stage1.view_sizes, or another "
                "stage1.backbone"
            ) from error
    model.train()
