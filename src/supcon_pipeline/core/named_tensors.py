"""Named tensors with what belongs to them: checkpoints, averaged models, embeddings.

Nodes say in their types that they take them, so this loads torch only where it computes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from supcon_pipeline.core.messages import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NamedTensors:
    """Tensors by name, and metadata that JSON can hold.

    The metadata of a model's state has `model` (what `build_model` takes), the `run_id`, `parameters` and
    `data_hash` of its training, and for a classifier the `encoder_hash` of its encoder. A checkpoint adds its
    `epoch` and validation `metrics`, an average the list of those that were `averaged`.
    """

    tensors: dict[str, "Tensor"]
    metadata: dict[str, Any] = field(default_factory=dict)


def join_parts(parts: Sequence[NamedTensors]) -> NamedTensors:
    """Several as one, in their order; `split_parts` takes them apart again."""
    tensors = {
        f"{index}/{name}": tensor for index, part in enumerate(parts) for name, tensor in part.tensors.items()
    }
    return NamedTensors(tensors, {"parts": [part.metadata for part in parts]})


def split_parts(joined: NamedTensors) -> list[NamedTensors]:
    """What `join_parts` was given."""
    parts = [NamedTensors({}, metadata) for metadata in joined.metadata["parts"]]
    for name, tensor in joined.tensors.items():
        index, _, rest = name.partition("/")
        parts[int(index)].tensors[rest] = tensor
    return parts


def fingerprint(state: NamedTensors) -> str:
    """SHA-256 over the names, types, shapes and values of the tensors, as 64 hexadecimal digits."""
    import torch

    digest = sha256()
    for name, tensor in sorted(state.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_origin(name: str, metadata: Mapping[str, Any], key: str, expected: str, remedy: str) -> None:
    """Make sure that an artifact comes from what it is used with.

    Raises:
        InputError: where its metadata has another value for `key`.
    """
    found = str(metadata.get(key))
    if found != expected:
        raise InputError(f"{key} of the {name} must be {expected[:12]}, got {found[:12]}; {remedy}")


def require_encoder(classifier: NamedTensors, encoder_hash: str) -> None:
    """Make sure that a classifier was trained on the encoder with this fingerprint.

    Raises:
        InputError: where it was trained on another.
    """
    remedy = "type: kedro run --pipelines stage2,stage2_swa"
    require_origin("classifier", classifier.metadata, "encoder_hash", encoder_hash, remedy)


def require_order(embeddings: NamedTensors, sample_ids: Iterable[str]) -> None:
    """Make sure that each row of the embeddings is of the sample at its place.

    Raises:
        InputError: where they are of other samples, or of the same in another order.
    """
    rows = enumerate(zip_longest(embeddings.metadata["sample_ids"], sample_ids))
    for row, (found, expected) in rows:
        if found != expected:
            raise InputError(
                f"embeddings must have sample {expected!r} at row {row}, as the samples have, got {found!r}; "
                "type: kedro run --pipelines evaluation"
            )
