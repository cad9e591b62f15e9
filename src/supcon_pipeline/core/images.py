"""Labelled images: as a source gives them, and packed for training."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8


@dataclass(frozen=True)
class RawImages:
    """Labelled images as a source gives them, of any size.

    Args:
        images: one array per image, `[height, width]` or `[height, width, channels]`, uint8.
        labels: one class index per image, `[n]`, from 0 to `len(class_names) - 1`.
        class_names: one name per class.
        ids: one name per image, unique.
        source: where the images come from, in words.

    Raises:
        ValueError: where the counts differ, an id repeats or a label is out of range.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    class_names: Sequence[str]
    ids: Sequence[str]
    source: str

    def __post_init__(self) -> None:
        counts = {"images": len(self.images), "labels": len(self.labels), "ids": len(self.ids)}
        if len(set(counts.values())) != 1 or not len(self.ids):
            raise ValueError(f"raw images must have one label and one id each, got {counts}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"ids must be unique, got {len(self.ids) - len(set(self.ids))} repeated")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"labels must be class indices below {len(self.class_names)}, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )


@dataclass(frozen=True)
class LabelledImages:
    """Packed images with the label and the split of each.

    Args:
        images: uint8, may be memory-mapped.
        labels: class indices.
        splits: `train`, `validation` or `test`.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    splits: np.ndarray

    @property
    def num_classes(self) -> int:
        """One more than the highest label."""
        return int(self.labels.max()) + 1

    def indices(self, split: str) -> Int[np.ndarray, " m"]:
        """Where the images of a split are, ascending.

        Raises:
            ValueError: where the split has no image.
        """
        found = np.flatnonzero(np.asarray(self.splits) == split)
        if not len(found):
            raise ValueError(f"split must be one of {', '.join(sorted(set(self.splits)))}, got {split!r}")
        return found


def pack_image(image: np.ndarray, image_size: int, num_channels: int) -> UInt8[np.ndarray, "size size c"]:
    """One image at storage size: square, uint8, with `num_channels` channels (1 or 3).

    The longer side is fitted to `image_size` by cubic (growing) or area (shrinking) interpolation and the
    rest is filled by repeating the border, so that nothing is cut off and the aspect is kept.

    Raises:
        ValueError: where the image is not uint8 or has neither 1 nor 3 channels.
    """
    import cv2

    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(
            f"image must be uint8 with 1 or 3 channels, got {image.dtype} with shape {image.shape}"
        )
    if channels == 1 and num_channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    elif channels == 3 and num_channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = image.shape[:2]
    scale = image_size / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    image = cv2.resize(image, size, interpolation=interpolation)
    top, left = (image_size - size[1]) // 2, (image_size - size[0]) // 2
    bottom, right = image_size - size[1] - top, image_size - size[0] - left
    image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return image.reshape(image_size, image_size, num_channels)


def split_samples(
    labels: Int[np.ndarray, " n"], validation_fraction: float, test_fraction: float, seed: int
) -> np.ndarray:
    """A stratified split: `train`, `validation` or `test` for each sample, in the order of `labels`.

    Every class is in every split, with at least one sample.

    Args:
        labels: class indices, `[n]`.
        validation_fraction: share of each class, in (0, 1).
        test_fraction: share of each class, in (0, 1).
        seed: the same seed and labels give the same split.

    Raises:
        ValueError: where a class has fewer than three samples, or the fractions leave nothing to train on.
    """
    if validation_fraction + test_fraction >= 1:
        raise ValueError(
            f"validation_fraction + test_fraction must be below 1, got {validation_fraction + test_fraction}"
        )
    generator = np.random.default_rng(seed)
    splits = np.full(len(labels), "train", dtype=object)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < 3:
            raise ValueError(
                "every class must have at least 3 samples, one for each split, "
                f"got {count} of class {label}; add images or leave the class out"
            )
        num_test = min(max(1, round(count * test_fraction)), count - 2)
        num_validation = min(max(1, round(count * validation_fraction)), count - num_test - 1)
        order = generator.permutation(np.flatnonzero(labels == label))
        splits[order[:num_test]] = "test"
        splits[order[num_test : num_test + num_validation]] = "validation"
    return splits


def channel_statistics(images: UInt8[np.ndarray, "n h w c"]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels, on the scale 0 to 1."""
    total, square, count = np.zeros(images.shape[-1]), np.zeros(images.shape[-1]), 0
    for start in range(0, len(images), 4096):
        pixels = images[start : start + 4096].reshape(-1, images.shape[-1]) / 255.0
        total, square, count = total + pixels.sum(0), square + (pixels**2).sum(0), count + len(pixels)
    mean = total / count
    return mean.tolist(), np.sqrt(np.maximum(square / count - mean**2, 0)).tolist()


def content_hash(images: UInt8[np.ndarray, "n h w c"], *columns: Iterable[object]) -> str:
    """SHA-256 over the shape, the pixels and the columns of the samples, as 64 hexadecimal digits."""
    from hashlib import sha256

    digest = sha256(repr(images.shape).encode())
    for start in range(0, len(images), 4096):
        digest.update(np.ascontiguousarray(images[start : start + 4096]).tobytes())
    for column in columns:
        digest.update(json.dumps([str(value) for value in column]).encode())
    return digest.hexdigest()
