"""Batches: which images go together in which order, and the loaders that fetch them."""

import itertools
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from supcon_pipeline.core.mixing import Mixing
from supcon_pipeline.core.views import ViewPolicy


@dataclass(frozen=True)
class Batch:
    """Views and labels of some images: `[batch, views, h, w, c]` uint8 and `[batch]` int64.

    Labels of mixed images are class probabilities, `[batch, classes]` float32.
    """

    views: Tensor
    labels: Tensor

    def pin_memory(self) -> Self:
        """The same in page-locked memory, from which a GPU is fed without waiting."""
        return type(self)(self.views.pin_memory(), self.labels.pin_memory())


class Batches(Protocol):
    """Which images go together, epoch by epoch."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch, each a seed for its views and its indices."""


class ShuffledBatches:
    """Every index once per epoch, in batches of nearly equal size.

    An epoch is split evenly instead of leaving a small last batch: 1,000 images in batches of at most 256
    are four batches of 250. The order depends on the seed and the epoch alone.

    Args:
        indices: what to shuffle, `[n]`.
        batch_size: the largest batch, at least 1.
        seed: of the order and of the views.

    Raises:
        ValueError: where there is nothing to shuffle or `batch_size` is below 1.
    """

    def __init__(self, indices: Int[np.ndarray, " n"], batch_size: int, seed: int):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not len(indices):
            raise ValueError("indices must hold at least one image, got none")
        self.indices, self.seed = np.asarray(indices), seed
        self.num_batches = -(-len(indices) // batch_size)

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch, each a seed for its views and its indices."""
        sequence = np.random.SeedSequence([self.seed, epoch])
        order = np.random.default_rng(sequence).permutation(self.indices)
        seeds = sequence.generate_state(self.num_batches, np.uint64)
        return [
            (int(seed), batch)
            for seed, batch in zip(seeds, np.array_split(order, self.num_batches), strict=True)
        ]


class ClassBalancedBatches:
    """Batches of some classes with equally many images of each, whatever the classes' sizes.

    Over an epoch, which has as many batches as a shuffled one, every class comes equally often, give or take
    one batch, and so does every image of a class: those of a rare class come several times, of a frequent
    one not all. Images of a batch differ, unless their class has fewer than `images_per_class`.

    Args:
        labels: the class of every image, `[n]`.
        indices: which of them to draw from, `[m]`.
        batch_size: of every batch, a multiple of `images_per_class`.
        images_per_class: at least 1.
        seed: of the order and of the views.

    Raises:
        ValueError: where the numbers do not go together, or a batch would hold more classes than there are.
    """

    def __init__(
        self,
        labels: Int[np.ndarray, " n"],
        indices: Int[np.ndarray, " m"],
        batch_size: int,
        images_per_class: int,
        seed: int,
    ):
        require_balanced(batch_size, images_per_class)
        of_images = np.asarray(labels)[indices]
        self.members = [np.asarray(indices)[of_images == label] for label in np.unique(of_images)]
        largest = len(self.members) * images_per_class
        if batch_size > largest:
            raise ValueError(
                f"batch_size must be at most {largest}, {images_per_class} images of each of "
                f"{len(self.members)} classes, got {batch_size}; lower it or raise images_per_class"
            )
        self.num_classes, self.images_per_class = batch_size // images_per_class, images_per_class
        self.num_batches, self.seed = -(-len(indices) // batch_size), seed

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch, each a seed for its views and its indices."""
        sequence = np.random.SeedSequence([self.seed, epoch])
        generator = np.random.default_rng(sequence)
        num_uses = np.zeros(len(self.members), dtype=np.int64)
        decks = [members[:0] for members in self.members]
        batches = []
        for seed in sequence.generate_state(self.num_batches, np.uint64):
            ties = generator.random(len(num_uses))
            chosen = np.lexsort((ties, num_uses))[: self.num_classes]
            num_uses[chosen] += 1
            for label in chosen:
                decks[label] = self._fill(decks[label], self.members[label], generator)
            drawn = [decks[label][: self.images_per_class] for label in chosen]
            for label in chosen:
                decks[label] = decks[label][self.images_per_class :]
            batches.append((int(seed), np.concatenate(drawn)))
        return batches

    def _fill(self, deck: np.ndarray, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A deck with enough images for one draw; those that are left come first, and not again soon."""
        if len(deck) >= self.images_per_class:
            return deck
        if len(members) < self.images_per_class:
            return np.resize(generator.permutation(members), self.images_per_class)
        fresh = generator.permutation(members)
        is_left = np.isin(fresh, deck)
        return np.concatenate([deck, fresh[~is_left], fresh[is_left]])


def require_balanced(batch_size: int, images_per_class: int) -> None:
    """Refuse a batch that cannot hold equally many images of each of its classes.

    Raises:
        ValueError: where `batch_size` is no multiple of `images_per_class`, or that is below 1.
    """
    if images_per_class < 1:
        raise ValueError(f"images_per_class must be at least 1, got {images_per_class}")
    if batch_size < 1 or batch_size % images_per_class:
        raise ValueError(
            f"batch_size must be a multiple of images_per_class ({images_per_class}), got {batch_size}; "
            f"the next is {(batch_size // images_per_class + 1) * images_per_class}"
        )


class ViewDataset(Dataset[Batch]):
    """Gives a whole batch for one item `(seed, indices)`, stacked where it is asked for."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        labels: np.ndarray,
        policy: ViewPolicy,
        mixing: Mixing | None = None,
    ):
        self.images, self.labels, self.policy, self.mixing = images, labels, policy, mixing

    def __getitem__(self, item: tuple[int, np.ndarray]) -> Batch:
        seed, indices = item
        generator = np.random.default_rng(seed)
        views = self.policy(self.images[indices], generator)
        labels = np.asarray(self.labels[indices], dtype=np.int64)
        if self.mixing is not None:
            views, labels = self.mixing(views, labels, generator)
        return Batch(torch.from_numpy(views), torch.from_numpy(labels))

    def __getstate__(self) -> dict[str, Any]:
        """Mapped images go to a worker that is not forked as the place of their file, not as pixels."""
        images = self.images
        # A part of a map has another map as its base, and does not know where in the file it starts.
        if not (isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)):
            return self.__dict__
        place = {"filename": images.filename, "offset": images.offset, "shape": images.shape}
        return {**self.__dict__, "images": place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["images"], dict):
            state = {**state, "images": np.memmap(**state["images"], dtype=np.uint8, mode="r")}
        self.__dict__.update(state)


class ViewLoader:
    """Batches of views, epoch by epoch.

    The views of a batch depend on its seed alone: the number of workers changes nothing but the speed.
    Workers stay from epoch to epoch, and make the first batches of the next one while this one is validated.
    """

    def __init__(self, dataset: ViewDataset, batches: Batches, num_workers: int = 0):
        self.dataset, self.batches, self.num_workers = dataset, batches, num_workers
        self._stream: Iterator[Batch] = iter(())
        self._position: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from `first_batch` on."""
        if self._position != (epoch, first_batch):
            self._stream = iter(self._loader(epoch, first_batch))
        for index in range(first_batch, len(self)):
            batch = next(self._stream)
            self._position = (epoch, index + 1) if index + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def _loader(self, epoch: int, first_batch: int) -> DataLoader[Batch]:
        return DataLoader(
            self.dataset,
            sampler=self._items(epoch, first_batch),
            batch_size=None,
            num_workers=self.num_workers,
            worker_init_fn=_use_one_thread,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),
        )

    def _items(self, epoch: int, first_batch: int) -> Iterator[tuple[int, np.ndarray]]:
        """What the batches are made of, without end."""
        yield from self.batches.epoch(epoch)[first_batch:]
        for following in itertools.count(epoch + 1):
            yield from self.batches.epoch(following)


def _use_one_thread(_worker: int) -> None:
    """There are as many workers as cores are to be used; threads in each would take turns with them."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def build_loader(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    indices: Int[np.ndarray, " m"],
    policy: ViewPolicy,
    batch_size: int,
    num_workers: int,
    seed: int,
    sampler: str = "shuffled",
    images_per_class: int | None = None,
    mixing: Mixing | None = None,
) -> ViewLoader:
    """Batches of views of the images at `indices`, `shuffled` or, with `images_per_class`, `class_balanced`.

    Raises:
        ValueError: where the sampler is unknown or its numbers do not go together.
    """
    batches: Batches
    if sampler == "shuffled":
        batches = ShuffledBatches(indices, batch_size, seed)
    elif sampler == "class_balanced" and images_per_class is not None:
        batches = ClassBalancedBatches(labels, indices, batch_size, images_per_class, seed)
    else:
        raise ValueError(
            "sampler must be shuffled, or class_balanced with images_per_class, "
            f"got {sampler!r} with {images_per_class}"
        )
    return ViewLoader(ViewDataset(images, labels, policy, mixing), batches, num_workers)
