"""Warnings where a set has fewer images than a training asks for."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import name_some
from supcon_pipeline.core.parameters.batches import LoaderParameters
from supcon_pipeline.core.parameters.stages import EncoderTraining, Stage1Parameters, TrainingParameters

logger = logging.getLogger(__name__)
# With fewer images, one of them counts for more than 4 % of a metric.
_LEAST_VALIDATION = 25
_MANY_CLASSES = 10


def warn_of_small_sets(
    group: str, params: TrainingParameters, data: LabelledImages, has_positives_by_class: bool
) -> None:
    """Warn of what a training asks of its images that they cannot give, in one line each.

    Args:
        group: what stands before the names of parameters.
        params: of the training.
        data: its images.
        has_positives_by_class: whether an image's positives are the others of its class in the batch.
    """
    labels, counts = np.unique(data.labels[data.indices("train")], return_counts=True)
    names = [data.class_names.get(int(label), f"class {label}") for label in labels]
    classes = _Classes(group, names, counts)
    # The baseline's batches are those of stage 1, which need positives.
    classes.warn_of_single_steps(params, has_positives_by_class or isinstance(params, EncoderTraining))
    if has_positives_by_class:
        classes.warn_of_single_images(
            isinstance(params, Stage1Parameters) and params.loss.classifier_weight > 0
        )
        if params.loader.images_per_class is None:
            classes.warn_of_rare_class(params.loader)
        else:
            classes.warn_of_repeats(params.loader, params.loader.images_per_class, "are their own positives")
    elif isinstance(params, Stage1Parameters) and params.loss.name == "simclr":
        what = "simclr takes an image beside itself for another"
        classes.warn_of_repeats(params.loader, params.loader.images_per_class or 1, what)
    _warn_of_validation(params.checkpoints.metric, data)


@dataclass(frozen=True)
class _Classes:
    """The classes of train.

    Args:
        group: what stands before the names of parameters.
        names: of the classes.
        counts: their images, in the same order.
    """

    group: str
    names: list[str]
    counts: Int[np.ndarray, " classes"]

    def warn_of_single_steps(self, params: TrainingParameters, needs_positives: bool) -> None:
        """Warn where a batch takes all images, so that an epoch is one step."""
        loader, total, num_epochs = params.loader, int(self.counts.sum()), params.schedule.num_epochs
        if loader.batch_size < total:
            return
        size = self._smaller_batch(loader, needs_positives)
        remedy = f"loader.batch_size={size}" if size else f"schedule.num_epochs={4 * num_epochs}"
        logger.warning(
            "a batch of %s takes all %s training images, so that the training has no more than %s steps, one "
            "an epoch; for more, add --params %s.%s",
            *(f"{loader.batch_size:,}", f"{total:,}", f"{num_epochs:,}", self.group, remedy),
        )

    def _smaller_batch(self, loader: LoaderParameters, needs_positives: bool) -> int | None:
        """A size for about four steps an epoch or else two, in which images still have positives."""
        total, unit, least = int(self.counts.sum()), loader.images_per_class or 1, 1
        if needs_positives:
            # Two classes, or on average two images of the rarest class that has any.
            several = self.counts[self.counts > 1]
            rarest = several.min() if len(several) else total
            least = 2 * unit if loader.images_per_class else max(2, math.ceil(2 * total / rarest))
        sizes = [least, *(unit * 2**power for power in range(total.bit_length()))]
        fitting = [size for size in sizes if least <= size <= total / 2]
        return max((size for size in fitting if size <= total / 4), default=min(fitting, default=None))

    def warn_of_single_images(self, has_classifier: bool) -> None:
        """Warn of classes in which an image has no other as its positive, in whatever batch."""
        single = [name for name, count in zip(self.names, self.counts, strict=True) if count == 1]
        remedy = f", or learn its label too with --params {self.group}.loss.classifier_weight=1"
        if single:
            logger.warning(
                "single training image of %s: its only positives are its own views; add images%s",
                *(name_some(single), "" if has_classifier else remedy),
            )

    def warn_of_rare_class(self, loader: LoaderParameters) -> None:
        """Warn where a shuffled batch holds, on average, fewer than two images of the rarest class.

        Of many classes, where that is so for most of them, no single one is named.
        """
        name, count = self._rarest()
        total, batch_size = int(self.counts.sum()), loader.batch_size
        if count == 1 or count * batch_size >= 2 * total:
            return
        # A batch takes as many images of each of its classes, of which there must be enough.
        least = max(2, -(-batch_size // len(self.counts)))
        images_per_class = next((size for size in range(least, batch_size) if batch_size % size == 0), None)
        num_rare, num_classes = np.count_nonzero(self.counts * batch_size < 2 * total), len(self.counts)
        is_most = num_classes >= _MANY_CLASSES and 2 * num_rare > num_classes
        logger.warning(
            "%s: a shuffled batch of %s often holds one of them or none, and an image alone has no positives "
            "but its own views%s",
            f"{num_rare:,} of {num_classes:,} classes have few of the {total:,} training images each"
            if is_most
            else f"{name} has {count:,} of {total:,} training images",
            f"{batch_size:,}",
            f"; balance the classes with --params {self.group}.loader.sampler=class_balanced,"
            f"{self.group}.loader.images_per_class={images_per_class}"
            if images_per_class
            else "",
        )

    def warn_of_repeats(self, loader: LoaderParameters, images_per_class: int, what: str) -> None:
        """Warn where a batch takes more images of a class than there are, and of what comes of it."""
        name, count = self._rarest()
        if not 1 < count < images_per_class:
            return
        batch_size = min(loader.batch_size, len(self.counts) * count) // count * count
        logger.warning(
            "%s has %s training images, but a batch takes %s of a class: they repeat, and %s; for batches "
            "without repeats, add --params %s.loader.images_per_class=%d,%s.loader.batch_size=%d",
            *(name, f"{count:,}", f"{images_per_class:,}", what, self.group, count, self.group, batch_size),
        )

    def _rarest(self) -> tuple[str, int]:
        """Name and images of the smallest class with more than one image; of any, where none has."""
        candidates = np.where(self.counts > 1, self.counts, self.counts.max() + 1)
        rarest = int(candidates.argmin())
        return self.names[rarest], int(self.counts[rarest])


def _warn_of_validation(metric: str, data: LabelledImages) -> None:
    """Warn where single images decide which checkpoint is the best."""
    labels, splits = data.labels[data.indices("validation")], np.asarray(data.splits)
    count, num_classes = len(labels), len(np.unique(labels))
    is_one_each = count == num_classes and not data.has_unseen_classes
    if count >= _LEAST_VALIDATION and not is_one_each:
        return
    num_train = np.count_nonzero(splits == "train")
    total = np.count_nonzero(np.isin(splits, ("train", "validation", "test")))
    # In steps of 0.05, and at most half of what is not tested.
    wanted = math.ceil(20 * max(_LEAST_VALIDATION, 2 * num_classes) / total)
    fraction = min(wanted, math.floor(10 * (num_train + count) / total)) / 20
    is_remedy = _count_held_out(data, fraction) > (num_classes if data.has_unseen_classes else count)
    logger.warning(
        "the checkpoints are chosen by %s of %s validation images of %s classes: one image is %.1f %% of it; "
        "add images%s",
        *(metric, f"{count:,}", f"{num_classes:,}", 100 / count),
        ", or, where their source has no validation split of its own, --params "
        f"data_prep.validation_fraction={fraction:g}"
        if is_remedy
        else "",
    )


def _count_held_out(data: LabelledImages, fraction: float) -> int:
    """How many images, or classes where train lacks them, a fraction for validation gives at least.

    Of each class two images stay in train, and of classes two: few give no more, whatever the fraction.
    """
    left = data.labels[np.isin(np.asarray(data.splits), ("train", "validation"))]
    counts = np.unique(left, return_counts=True)[1]
    if data.has_unseen_classes:
        return min(round(fraction * len(counts)), int((counts > 1).sum()) - 2)
    return int(np.minimum(np.round(fraction * counts), counts - 2).clip(min=1).sum())
