"""Mixup and CutMix: each image of a batch is mixed with another, and so are their labels."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8


@dataclass(frozen=True)
class Mixing:
    """Mixes the views of a batch with one another and gives class probabilities for labels.

    Every image is mixed by itself: with its own partner (the batch in a random order, so that now and then
    an image meets itself), its own coefficient from Beta(alpha, alpha), and, of `both`, its own method. All
    views of an image share partner and coefficient, because the losses take one label for all of them; each
    view is mixed with the view of the partner in its place.

    Mixup rounds to whole grey levels: views stay uint8, a quarter of the memory of float32 on their way to
    the device, at an error of at most half a level. CutMix is exact.

    Args:
        name: `mixup`, `cutmix`, or `both`: one or the other, evenly.
        alpha: above 0; 1 draws the coefficient evenly, less draws it near 0 and 1.
        probability: share of the images that are mixed, above 0 and at most 1.
        num_classes: of the labels.

    Source:
        Zhang et al. 2018, arXiv:1710.09412, Eq. 1 (one coefficient for each pair, where its code has one for
        the batch). Yun et al. 2019, arXiv:1905.04899, Eq. 1 and 2, with a box that lies inside the image
        instead of one that is clipped at its border, so that it can lie elsewhere in each view and still
        cover the same share. In a contrastive loss: GenSCL, arXiv:2206.00384.
    """

    name: Literal["mixup", "cutmix", "both"]
    alpha: float
    probability: float
    num_classes: int

    def __call__(
        self,
        views: UInt8[np.ndarray, "batch views h w c"],
        labels: Int[np.ndarray, " batch"],
        generator: np.random.Generator,
    ) -> tuple[UInt8[np.ndarray, "batch views h w c"], Float[np.ndarray, "batch classes"]]:
        """Mixed views and the class probabilities of each image, float32."""
        num_images = len(views)
        partners = generator.permutation(num_images)
        shares = generator.beta(self.alpha, self.alpha, num_images)
        shares[generator.random(num_images) >= self.probability] = 1.0
        is_cut = generator.random(num_images) < {"mixup": 0.0, "cutmix": 1.0, "both": 0.5}[self.name]
        mixed = np.empty_like(views)
        for index, partner in enumerate(partners):
            if is_cut[index]:
                mixed[index], shares[index] = cut_in(views[index], views[partner], shares[index], generator)
            else:
                mixed[index] = blend(views[index], views[partner], shares[index])
        return mixed, mix_labels(labels, labels[partners], shares, self.num_classes)


def blend(
    views: UInt8[np.ndarray, "views h w c"], others: UInt8[np.ndarray, "views h w c"], share: float
) -> UInt8[np.ndarray, "views h w c"]:
    """`share` of the views and the rest of the others, rounded."""
    import cv2

    rows, other_rows = (array.reshape(len(array), -1) for array in (views, others))
    mixed: np.ndarray = cv2.addWeighted(rows, share, other_rows, 1 - share, 0)
    return mixed.reshape(views.shape)


def cut_in(
    views: UInt8[np.ndarray, "views h w c"],
    others: UInt8[np.ndarray, "views h w c"],
    share: float,
    generator: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "views h w c"], float]:
    """The views with a box of the others in each, and the share of the views that is left of them.

    The box has the proportions of the image and covers what comes nearest to `1 - share` in whole pixels.
    """
    height, width = views.shape[1:3]
    side = math.sqrt(1 - share)
    box_height, box_width = round(height * side), round(width * side)
    tops = generator.integers(0, height - box_height, len(views), endpoint=True)
    lefts = generator.integers(0, width - box_width, len(views), endpoint=True)
    mixed = views.copy()
    for view, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        box = view, slice(top, top + box_height), slice(left, left + box_width)
        mixed[box] = others[box]
    return mixed, 1 - box_height * box_width / (height * width)


def mix_labels(
    labels: Int[np.ndarray, " batch"],
    others: Int[np.ndarray, " batch"],
    shares: Float[np.ndarray, " batch"],
    num_classes: int,
) -> Float[np.ndarray, "batch classes"]:
    """Class probabilities: `shares` of the labels and the rest of the others, float32."""
    probabilities = np.zeros((len(labels), num_classes))
    rows = np.arange(len(labels))
    probabilities[rows, labels] = shares
    probabilities[rows, others] += 1 - shares
    return probabilities.astype(np.float32)
