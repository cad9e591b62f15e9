"""Forward passes of a single view, by which batch-norm cannot normalise a map of one pixel."""

import math
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import Encoder
from supcon_pipeline.core.parameters.batches import LoaderParameters


@dataclass(frozen=True)
class ForwardPasses:
    """How the views of a training are shared out.

    Args:
        loader: of the training.
        num_images: images to train on.
        num_views: views of each image.
        micro_batch_size: images per forward pass; None for all of a batch.
        num_processes: processes that share each batch.
    """

    loader: LoaderParameters
    num_images: int
    num_views: int
    micro_batch_size: int | None
    num_processes: int

    def least_views(self) -> int:
        """The fewest views that a process passes through the network at once."""
        sizes = {self.loader.batch_size}
        if self.loader.images_per_class is None:
            # Shuffled batches, parts of a batch and what processes have of it are of nearly equal size each.
            num_batches = math.ceil(self.num_images / self.loader.batch_size)
            sizes = {self.num_images // num_batches, math.ceil(self.num_images / num_batches)}
        count = self.num_processes
        shares = {share for size in sizes for share in (size // count, math.ceil(size / count))}
        parts = {share: math.ceil(share / (self.micro_batch_size or share)) for share in shares if share}
        return min(share * self.num_views // num_parts for share, num_parts in parts.items())

    def with_sizes(self, micro_batch_size: int | None, batch_size: int) -> "ForwardPasses":
        """The same with batches and parts of other sizes."""
        loader = self.loader.model_copy(update={"batch_size": batch_size})
        return replace(self, loader=loader, micro_batch_size=micro_batch_size)


def require_views_to_normalise(
    model: nn.Module, shapes: Iterable[tuple[int, ...]], group: str, passes: ForwardPasses
) -> None:
    """Refuse single views before a training, not in the step that has the first of them.

    Args:
        model: to be trained; takes uint8 images, `[batch, h, w, c]`.
        shapes: `(h, w, c)` of views.
        group: the group of parameters that holds the loader, for the message.
        passes: how the views are shared out.

    Raises:
        InputError: where a forward pass may have one view, and batch-norm cannot take it.
    """

    def is_enough(micro: int | None, batch_size: int) -> bool:
        return passes.with_sizes(micro, batch_size).least_views() > 1

    micro, size = passes.micro_batch_size, passes.loader.batch_size
    if is_enough(micro, size) or not any(_rejects_single(model, shape) for shape in shapes):
        return
    if micro is not None and is_enough(None, size):
        name, value = "micro_batch_size", micro
        parts = next((more for more in range(micro + 1, size) if is_enough(more, size)), None)
        remedy = f"{group}.{name}={parts or 'null'}"
    else:
        name, value, step = "loader.batch_size", size, passes.loader.images_per_class or 1
        larger = range(size + step, size + 4 * passes.num_processes * step, step)
        # Parts of a single image make single views of any batch.
        whole = [f"{group}.micro_batch_size=null"] if micro == 1 else []
        more = next((more for more in larger if is_enough(None if whole else micro, more)), None)
        # As many processes may leave an image to each, whatever the batch.
        sizes = [*whole, f"{group}.{name}={more}"] if more else [f"{group}.num_views=2"]
        remedy = ",".join(sizes)
    raise InputError(
        f"{group}.{name} must give each forward pass at least 2 views where the last map of the network has "
        f"one pixel, or batch-norm has nothing to normalise by, got {value}; add --params {remedy}"
    )


def _rejects_single(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether batch-norm, as it is in training, cannot take one view."""
    tried = deepcopy(model)
    for module in tried.modules():
        # All else in evaluation mode, in which nothing is random.
        module.training = isinstance(module, Encoder | _BatchNorm)
    device = next(tried.parameters()).device
    try:
        with torch.no_grad():
            tried(torch.zeros(1, *shape, dtype=torch.uint8, device=device))
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    return False
