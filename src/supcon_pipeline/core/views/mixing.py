"""Mixup and CutMix: each image of a batch is mixed with another, and so is its label."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8


@dataclass(frozen=True)
class Mixing:
    """Mixes the views of a batch with one another and turns labels into class probabilities.

    Every image has its own partner (from a random permutation, so an image is occasionally its own partner),
    its own coefficient from Beta(alpha, alpha) and, with `both`, its own method. All views of an image share
    partner and coefficient, because the losses take one label for all of them; each view is mixed with the
    view of the partner at the same position.

    Mixup rounds to whole grey levels: views stay uint8, a quarter of the size of float32 on their way to the
    device, with an error of at most half a level. CutMix is exact.

    Args:
        name: `mixup`, `cutmix`, or `both`: either one, with equal probability.
        alpha: above 0; 1 draws the coefficient uniformly, less draws it near 0 and 1.
        probability: share of the images that are mixed, above 0 and at most 1.
        num_classes: number of classes.

    Source:
        Zhang et al. 2018, arXiv:1710.09412, Eq. 1 (one coefficient per pair; its code has one per
        batch). Yun et al. 2019, arXiv:1905.04899, Eq. 1 and 2, with a box inside the image instead of one
        clipped at the border, so that it covers the same share wherever it is in each view. In a contrastive
        loss: GenSCL, arXiv:2206.00384.
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
    """`share * views + (1 - share) * others`, rounded."""
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
    """The views with a box pasted from the others, and the share of each view that remains.

    The box has the aspect ratio of the image and covers `1 - share` of it as nearly as whole pixels allow.
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
    """Class probabilities, float32: `shares` for the labels, the rest for the others."""
    probabilities = np.zeros((len(labels), num_classes))
    rows = np.arange(len(labels))
    probabilities[rows, labels] = shares
    probabilities[rows, others] += 1 - shares
    return probabilities.astype(np.float32)
