"""Embeddings of images, in input order."""

from collections.abc import Collection, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.models.encoder import Outputs, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.vectors import require_finite


def iterate_images(
    images: StoredImages,
    indices: Int[np.ndarray, " m"],
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The images at `indices` in their order, in batches of nearly equal size, with none left out."""
    for part in np.array_split(indices, max(1, -(-len(indices) // batch_size))):
        yield torch.from_numpy(np.ascontiguousarray(images[part])).to(device)


@torch.inference_mode()
def embed_images(
    model: nn.Module,
    images: StoredImages,
    indices: Int[np.ndarray, " m"],
    batch_size: int,
    ranks: Ranks = ALONE,
    names: Collection[str] | None = None,
    logits_for: Bool[np.ndarray, " m"] | None = None,
) -> Outputs:
    """The outputs of a model for the images at `indices`, in that order, on the CPU, float32.

    One forward pass in evaluation mode; the mode of the model is restored afterwards. The device holds the
    outputs of only one batch at a time.

    Args:
        model: returns named tensors for a batch of images.
        images: uint8, may be memory-mapped.
        indices: which images.
        batch_size: images per forward pass.
        ranks: processes that share the images; the first gets all outputs, the others their own.
        names: the outputs to keep; all if not given.
        logits_for: whether the logits of each image are kept, which may be more than all else; all if not
            given. Not for images that processes share.

    Raises:
        ValueError: if processes that share the images are to keep some of the logits.
    """
    if logits_for is not None and ranks.count > 1:
        raise ValueError(f"logits_for must be None with several processes, got it with {ranks.count}")
    # A process without an image would not know the shape of its outputs.
    ranks = ranks if len(indices) >= ranks.count else ALONE
    own = indices[ranks.part(len(indices))]
    is_kept = np.ones(len(own), dtype=bool)
    masks = {} if logits_for is None else {"logits": logits_for}
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: Outputs = {}
    first = 0
    for batch in iterate_images(images, own, batch_size, device):
        for name, part in model(batch).items():
            if names is None or name in names:
                _keep(rows, name, part, first, masks.get(name, is_kept))
        first += len(batch)
    model.train(was_training)
    return {name: ranks.bring(part, len(indices)) for name, part in rows.items()}


def _keep(rows: Outputs, name: str, part: Tensor, first: int, is_kept: Bool[np.ndarray, " m"]) -> None:
    """Write the rows of a batch that are kept behind those of the batches before."""
    if name not in rows:
        rows[name] = torch.empty(int(is_kept.sum()), *part.shape[1:])
    start, chosen = int(is_kept[:first].sum()), np.flatnonzero(is_kept[first : first + len(part)])
    if len(chosen) < len(part):
        part = part[torch.from_numpy(chosen)]
    rows[name][start : start + len(chosen)] = part


def embed_by(
    encoder: NamedTensors,
    images: StoredImages,
    batch_size: int,
    device: torch.device,
    logits_rows: Int[np.ndarray, " m"] | None = None,
) -> NamedTensors:
    """The outputs of a saved model for all images, in order; `model_hash` identifies the model.

    Args:
        encoder: the state of the model.
        images: uint8, may be memory-mapped.
        batch_size: images per forward pass.
        device: computes.
        logits_rows: the images whose logits are kept, ascending; all if not given. Where there are logits,
            the tensor `logits_rows` says whose they are.

    Raises:
        InputError: where an output is not finite.
    """
    model = restore_model(encoder).to(device)
    everything = np.arange(len(images))
    logits_for = None if logits_rows is None else np.isin(everything, logits_rows)
    outputs = embed_images(model, images, everything, batch_size, logits_for=logits_for)
    for name, rows in outputs.items():
        require_finite(name, rows.numpy())
    if logits_rows is not None and "logits" in outputs:
        outputs["logits_rows"] = torch.from_numpy(logits_rows)
    return NamedTensors(outputs, {"model_hash": fingerprint(encoder)})
