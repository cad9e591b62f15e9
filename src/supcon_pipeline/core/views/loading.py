"""Batches of views, made in worker processes."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from supcon_pipeline.core.data.encoded_images import EncodedImages, StoredImages
from supcon_pipeline.core.data.mapping import MappedFile, file_of
from supcon_pipeline.core.data.workers import prepare_worker, require_short_temporary_folder
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.views.mixing import Mixing
from supcon_pipeline.core.views.policy import ViewPolicy
from supcon_pipeline.core.views.sampling import Batches, ClassBalancedBatches, ShuffledBatches

# Seconds that workers may take for a batch, far more than any takes. A worker that hangs, for example on a
# network disk, would else be waited for without end.
_TIME_LIMIT = 600


@dataclass(frozen=True)
class Batch:
    """Views and labels of a batch of images: `[batch, views, h, w, c]` uint8 and `[batch]` int64.

    Labels of mixed images are class probabilities, `[batch, classes]` float32. Where processes share a batch,
    each has the labels of all its images and the views of its own part.
    """

    views: Tensor
    labels: Tensor
    ranks: Ranks = ALONE

    @property
    def share(self) -> float:
        """The share of the images whose views this process has."""
        return len(self.views) / len(self.labels)

    @property
    def view_labels(self) -> Tensor:
        """The label of each view that this process has, those of one image after the other."""
        own = self.labels[self.ranks.part(len(self.labels))]
        return own.repeat_interleave(self.views.shape[1], dim=0)

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        views, labels = (tensor.to(device, non_blocking=True) for tensor in (self.views, self.labels))
        return type(self)(views, labels, self.ranks)

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, which a GPU copies from asynchronously."""
        return type(self)(self.views.pin_memory(), self.labels.pin_memory(), self.ranks)


class ViewDataset(Dataset[Batch]):
    """Returns a whole batch for an item `(seed, indices, epoch)`, stacked in the worker."""

    def __init__(
        self,
        images: StoredImages,
        labels: np.ndarray,
        policy: ViewPolicy,
        mixing: Mixing | None = None,
    ):
        self.images, self.labels, self.policy, self.mixing = images, labels, policy, mixing

    def __getitem__(self, item: tuple[int, np.ndarray, int]) -> Batch:
        seed, indices, epoch = item
        generator = np.random.default_rng(seed)
        views = self.policy(self._read(indices, epoch), generator, epoch)
        labels = np.asarray(self.labels[indices], dtype=np.int64)
        if self.mixing is not None:
            views, labels = self.mixing(views, labels, generator)
        return Batch(torch.from_numpy(views), torch.from_numpy(labels))

    def _read(self, indices: np.ndarray, epoch: int) -> np.ndarray | Iterator[np.ndarray]:
        """What views are made of: images with their own aspect, where they are stored so."""
        if isinstance(self.images, EncodedImages) and self.policy.has_transforms:
            return self.images.whole(indices, self.policy.least_side(epoch))
        return self.images[indices]

    def __getstate__(self) -> dict[str, Any]:
        """Send memory-mapped images to a spawned worker as the place of their file, not as pixels."""
        return {**self.__dict__, "images": file_of(self.images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        self.__dict__.update(state, images=images.open() if isinstance(images, MappedFile) else images)


class ViewLoader:
    """Batches of views, epoch by epoch.

    The views of a batch depend only on its seed: the number of workers changes nothing but the speed.
    Workers persist across epochs and make the first batches of the next one during validation. Of processes
    that share each batch, every one makes whole batches in turn and deals them out, because what a view draws
    follows on what the view before has drawn.
    """

    def __init__(self, dataset: ViewDataset, batches: Batches, num_workers: int = 0, ranks: Ranks = ALONE):
        self.dataset, self.batches, self.num_workers, self.ranks = dataset, batches, num_workers, ranks
        # The epoch whose views an epoch gets; a training of limited time may be ahead of its passes.
        self.planned_epoch: Callable[[int], int] = lambda epoch: epoch
        self._stream: Iterator[Batch] = iter(())
        self._position: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 0), starting at `first_batch`."""
        if self._position != (epoch, first_batch):
            stream = iter(self._loader(epoch, first_batch))
            self._stream = stream if self.ranks.count == 1 else _deal(stream, self.ranks)
        for index in range(first_batch, len(self)):
            batch = next(self._stream)
            self._position = (epoch, index + 1) if index + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def close(self) -> None:
        """Let the workers end now. At the end of the program it is too late for them to clean up."""
        self._stream, self._position = iter(()), None

    def _loader(self, epoch: int, first_batch: int) -> DataLoader[Batch]:
        if self.num_workers:
            require_short_temporary_folder()
        items = _items(self.batches, self.planned_epoch, epoch, first_batch)
        return DataLoader(
            self.dataset,
            sampler=itertools.islice(items, self.ranks.rank, None, self.ranks.count),
            batch_size=None,
            num_workers=self.num_workers,
            timeout=_TIME_LIMIT if self.num_workers else 0,
            worker_init_fn=prepare_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),
        )


def _items(
    batches: Batches, planned_epoch: Callable[[int], int], first_epoch: int, first_batch: int
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Seed, indices and epoch of the views, of the batches of this epoch and all that follow.

    It does not hold the loader: what holds itself is freed too late to tell its workers to end, and waits
    five seconds for each.
    """
    for epoch in itertools.count(first_epoch):
        items = batches.epoch(epoch)[first_batch if epoch == first_epoch else 0 :]
        yield from ((seed, indices, planned_epoch(epoch)) for seed, indices in items)


def _deal(batches: Iterator[Batch], ranks: Ranks) -> Iterator[Batch]:
    """This process's part of each batch; `batches` are those that it makes itself, in its turn."""
    for made in batches:
        for source in range(ranks.count):
            own = made if source == ranks.rank else None
            head = (own.labels, own.views.shape, own.views.dtype) if own else None
            labels, shape, dtype = ranks.agree(head, source)
            views = ranks.scatter(own.views if own else None, shape, dtype, source)
            yield Batch(views, labels, ranks)


def build_loader(
    images: StoredImages,
    labels: Int[np.ndarray, " n"],
    indices: Int[np.ndarray, " m"],
    policy: ViewPolicy,
    batch_size: int,
    num_workers: int,
    seed: int,
    sampler: str = "shuffled",
    images_per_class: int | None = None,
    categories: np.ndarray | None = None,
    mixing: Mixing | None = None,
    parameter_group: str = "",
    ranks: Ranks = ALONE,
) -> ViewLoader:
    """Batches of views of the images at `indices`, `shuffled` or, with `images_per_class`, `class_balanced`.

    Where there are `categories`, the classes of a class-balanced batch are of one. `parameter_group` stands
    before the names of parameters in messages; `ranks` share each batch.

    Raises:
        InputError: if the sizes of a class-balanced batch do not fit together.
        ValueError: if the sampler is unknown or lacks its number, or there is nothing to load.
    """
    batches: Batches
    if sampler == "shuffled":
        batches = ShuffledBatches(indices, batch_size, seed)
    elif sampler == "class_balanced" and images_per_class is not None:
        batches = ClassBalancedBatches(
            labels, indices, batch_size, images_per_class, seed, parameter_group, categories
        )
    else:
        raise ValueError(
            "sampler must be shuffled, or class_balanced with images_per_class, "
            f"got {sampler!r} with {images_per_class}"
        )
    return ViewLoader(ViewDataset(images, labels, policy, mixing), batches, num_workers, ranks)
