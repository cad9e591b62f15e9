"""Which images each batch holds: shuffled or class-balanced."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int

from supcon_pipeline.core.messages import InputError, name_some


class Batches(Protocol):
    """Which images make up each batch, epoch by epoch."""

    def __len__(self) -> int:
        """Number of batches per epoch."""

    def epoch(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch, each a seed for its views and its indices."""


class ShuffledBatches:
    """Every index once per epoch, in batches of nearly equal size.

    An epoch is split evenly instead of leaving a small last batch: 1,000 images in batches of at most 256
    are four batches of 250. The order depends only on the seed and the epoch.

    Args:
        indices: images to shuffle, `[n]`.
        batch_size: size of the largest batch, at least 1.
        seed: of the order and of the views.

    Raises:
        ValueError: if there is nothing to shuffle or `batch_size` is below 1.
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
    """Batches with equally many images of each of some classes, whatever the class sizes.

    An epoch has as many batches as a shuffled one. Every class appears equally often in it, give or take one
    batch, and so does every image of a class: those of a rare class repeat, some of a frequent class are left
    out. The images of a batch differ unless their class has fewer than `images_per_class`.

    With categories, the classes of a batch are of one category, and of another only where that has too few.
    The category with the fewest uses for each of its classes comes next, so that over the epochs every class
    appears about equally often.

    Args:
        labels: the class of every image, `[n]`.
        indices: images to draw from, `[m]`.
        batch_size: of every batch, a multiple of `images_per_class`.
        images_per_class: at least 1.
        seed: of the order and of the views.
        parameter_group: what stands before `batch_size` in messages.
        categories: of every image, the same for all that are drawn of a class.

    Raises:
        InputError: if the sizes do not fit together, a batch would hold more classes than there are, or a
            class is of several categories.
    """

    def __init__(
        self,
        labels: Int[np.ndarray, " n"],
        indices: Int[np.ndarray, " m"],
        batch_size: int,
        images_per_class: int,
        seed: int,
        parameter_group: str = "",
        categories: np.ndarray | None = None,
    ):
        require_balanced(batch_size, images_per_class)
        drawn_labels = np.asarray(labels)[indices]
        self.members = [np.asarray(indices)[drawn_labels == label] for label in np.unique(drawn_labels)]
        largest = len(self.members) * images_per_class
        if batch_size > largest:
            raise InputError(
                f"{parameter_group}batch_size must be at most {largest} ({images_per_class} images of each "
                f"of {len(self.members)} classes), got {batch_size}; "
                f"add --params {parameter_group}batch_size={largest}"
            )
        self.num_classes, self.images_per_class = batch_size // images_per_class, images_per_class
        self.num_batches, self.seed = -(-len(indices) // batch_size), seed
        self.category = None if categories is None else _category_of_each(self.members, categories)

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
            keys = [ties, num_uses, *self._turns(num_uses, generator)]
            chosen = np.lexsort(keys)[: self.num_classes]
            num_uses[chosen] += 1
            for label in chosen:
                decks[label] = self._fill(decks[label], self.members[label], generator)
            drawn = [decks[label][: self.images_per_class] for label in chosen]
            for label in chosen:
                decks[label] = decks[label][self.images_per_class :]
            batches.append((int(seed), np.concatenate(drawn)))
        return batches

    def _turns(self, num_uses: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        """When the category of each class has its turn, where there are categories."""
        if self.category is None:
            return []
        sizes = np.bincount(self.category)
        mean_uses = np.bincount(self.category, num_uses) / sizes
        # Of those used alike, one comes first as often as it has classes: an epoch may not get to the others.
        order = np.lexsort((generator.exponential(size=len(sizes)) / sizes, mean_uses))
        return [np.argsort(order)[self.category]]

    def _fill(self, deck: np.ndarray, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A deck with enough images for one draw; leftover images come first and do not repeat soon."""
        if len(deck) >= self.images_per_class:
            return deck
        if len(members) < self.images_per_class:
            return np.resize(generator.permutation(members), self.images_per_class)
        fresh = generator.permutation(members)
        is_left = np.isin(fresh, deck)
        return np.concatenate([deck, fresh[~is_left], fresh[is_left]])


def _category_of_each(members: Sequence[np.ndarray], categories: np.ndarray) -> Int[np.ndarray, " classes"]:
    """A number for the category of each class."""
    of_classes = [np.unique(categories[images]) for images in members]
    several = [found for found in of_classes if len(found) > 1]
    if several:
        raise InputError(
            f"category must be the same for all images of a class, got {name_some(several[0])} for one of "
            f"{len(several)} classes; give each class one category in the table of images"
        )
    numbers: np.ndarray = np.unique(np.concatenate(of_classes), return_inverse=True)[1]
    return numbers


def require_balanced(batch_size: int, images_per_class: int) -> None:
    """Reject a batch that cannot hold equally many images of each of its classes.

    Raises:
        InputError: if `batch_size` is not a multiple of `images_per_class`, or the latter is below 1.
    """
    if images_per_class < 1:
        raise InputError(f"images_per_class must be at least 1, got {images_per_class}")
    if batch_size < 1 or batch_size % images_per_class:
        # Of two classes at least: one has no negatives.
        num_classes = max(2, batch_size // images_per_class + 1)
        raise InputError(
            f"batch_size must be a multiple of images_per_class ({images_per_class}), got {batch_size}; "
            f"set batch_size={num_classes * images_per_class}"
        )
