"""Layers that the images of train set before training starts: by their patches, or by their embeddings."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.data.images import LabelledImages, spread_evenly
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.embed import iterate_images
from supcon_pipeline.core.models.encoder import Encoder
from supcon_pipeline.core.models.whitened_cnn import PatchWhitening

# Of the mean variance within classes, what is added to each: few images say little about many directions.
SHRINKAGE = 1.0
# For classes that train lacks, which may vary in other directions and differ in those that train's do not.
UNSEEN_SHRINKAGE = 10.0

# Added to the variance of each direction of patches, in normalised pixels: the smallest are noise.
_PATCH_RIDGE = 5e-4
# Images that patches are taken from: these have more patches by far than a patch has pixels.
_PATCH_IMAGES = 5000


def whiten_within_classes(
    features: Float[np.ndarray, "n features"],
    labels: Int[np.ndarray, " n"],
    dim: int,
    shrinkage: float = SHRINKAGE,
) -> tuple[Float[np.ndarray, "dim features"], Float[np.ndarray, " dim"]]:
    """Weight and bias of the layer that whitens within classes and keeps the `dim` widest directions.

    What varies within classes is shrunk to the same size in all directions, so that what is left of distance
    is what tells classes apart; of that, the directions of largest variance are kept. The result has mean 0
    and, on average, the norm of the features.

    Args:
        features: rows of known classes.
        labels: class of each row.
        dim: width of the result, at most that of the features.
        shrinkage: what is added to the variance of each direction, as a share of their mean. The larger it
            is, the more the result is that of centring alone.

    Source:
        Mikolajczyk and Matas 2007 (doi:10.1109/ICCV.2007.4408871), as used by Radenović et al. 2017,
        arXiv:1711.02512 ("Whitening and dimensionality reduction"), with the covariance within classes in
        place of that of matching pairs, and a ridge.
    """
    rows = features.astype(np.float64)
    classes, members = np.unique(labels, return_inverse=True)
    means = np.stack([rows[members == index].mean(axis=0) for index in range(len(classes))])
    deviations, center = rows - means[members], rows.mean(axis=0)
    within = deviations.T @ deviations / len(rows)
    # Where no class has two different images, there is nothing to whiten by.
    ridge = shrinkage * np.trace(within) / len(within) or 1.0
    variances, axes = np.linalg.eigh(within + ridge * np.eye(len(within)))
    whitener = axes / np.sqrt(variances) @ axes.T
    whitened = (rows - center) @ whitener
    widest = np.linalg.eigh(whitened.T @ whitened)[1][:, ::-1][:, :dim]
    weight = (whitener @ widest).T
    norm = np.linalg.norm(whitened @ widest, axis=1).mean()
    scale = np.linalg.norm(rows, axis=1).mean() / norm if norm > 0 else 1.0
    return scale * weight, -scale * weight @ center


@torch.no_grad()
def start_neck(encoder: Encoder, data: LabelledImages, batch_size: int) -> None:
    """Set the neck of an encoder to what whitens the features of its backbone for the images of train.

    A backbone that was trained before has features worth keeping; a random layer behind it would mix them,
    and the first steps would bend the backbone to fit that layer. Where train lacks the classes that are
    held out, it is mostly centred, and little of what the features know of other classes is lost.

    Raises:
        InputError: if the neck is wider than the features.

    Source:
        Kumar et al. 2022, arXiv:2202.10054, for fitting the last layer before fine-tuning all.
    """
    if encoder.neck is None:
        return
    dim, num_features = encoder.neck.weight.shape
    indices, is_unseen = data.indices("train"), data.has_unseen_classes
    name = "unseen_embedding_dim" if is_unseen else "embedding_dim"
    if dim > num_features:
        raise InputError(
            f"stage1.{name} must be at most the {num_features:,} features of a backbone that starts "
            f"from weights, got {dim:,}; use --params stage1.{name}={num_features}"
        )
    device = pick_device()
    was_training = encoder.training
    encoder.to(device).eval()
    batches = iterate_images(data.images, indices, batch_size, device)
    features = torch.cat([encoder.features(batch).float().cpu() for batch in batches]).numpy()
    shrinkage = UNSEEN_SHRINKAGE if is_unseen else SHRINKAGE
    weight, bias = whiten_within_classes(features, data.labels[indices], dim, shrinkage)
    encoder.cpu().train(was_training)
    encoder.neck.weight.copy_(torch.from_numpy(weight))
    encoder.neck.bias.copy_(torch.from_numpy(bias))


def whiten_patches(covariance: Float[Tensor, "pixels pixels"]) -> Float[Tensor, "pixels pixels"]:
    """The principal directions of patches as rows, each scaled to a response of about unit variance.

    Source:
        Jordan 2024, arXiv:2404.00498, section 3.1, with its ridge of 5e-4.
    """
    variances, directions = torch.linalg.eigh(covariance)
    scaled: Tensor = directions / (variances + _PATCH_RIDGE).sqrt()
    return scaled.T


@torch.no_grad()
def start_patches(encoder: Encoder, data: LabelledImages, batch_size: int) -> None:
    """Set the kernels of an encoder whose first layer whitens patches by the images of train."""
    for layer in encoder.backbone.modules():
        if isinstance(layer, PatchWhitening):
            covariance = _patch_covariance(encoder, layer, data, batch_size)
            layer.set_directions(whiten_patches(covariance).float())


def _patch_covariance(
    encoder: Encoder, layer: PatchWhitening, data: LabelledImages, batch_size: int
) -> Float[Tensor, "pixels pixels"]:
    """That of normalised pixels, of the patches that a layer sees in images of train."""
    size, total, count = layer.weight.shape[-1], torch.zeros(()).double(), 0
    chosen = spread_evenly(data.indices("train"), _PATCH_IMAGES)
    for batch in iterate_images(data.images, chosen, batch_size, torch.device("cpu")):
        patches = functional.unfold(encoder.pixels(batch), size, stride=layer.stride)
        rows = patches.transpose(1, 2).flatten(0, 1).double()
        total, count = total + rows.T @ rows, count + len(rows)
    return total / count
