"""Parts of an encoder that are not trained."""

from dataclasses import dataclass

from torch import nn

from supcon_pipeline.core.optim.averaging import batch_norms
from supcon_pipeline.core.optim.groups import BACKBONE
from supcon_pipeline.core.optim.low_rank import trained_parameters


@dataclass(frozen=True)
class Freezing:
    """What of a model with a backbone is not trained in an epoch.

    Args:
        freeze_epochs: the first epochs, in which the backbone as a whole is frozen.
        freeze_batch_norm: whether the backbone's batch-norm keeps and uses its running statistics; its
            weights are trained nevertheless.
    """

    freeze_epochs: int
    freeze_batch_norm: bool

    def apply(self, model: nn.Module, epoch: int) -> None:
        """Set gradients and mode of the backbone of a model in training mode, for an epoch counted from 0."""
        backbone, is_frozen = model.get_submodule(BACKBONE), epoch < self.freeze_epochs
        for parameter in trained_parameters(backbone):
            parameter.requires_grad_(not is_frozen)
        if is_frozen:
            backbone.eval()
        elif self.freeze_batch_norm:
            for norm in batch_norms(backbone):
                norm.eval()
