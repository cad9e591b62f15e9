"""The weights between those that fine-tuning started from and those it has reached."""

from copy import deepcopy

import torch
from torch import nn

from supcon_pipeline.core.optim.groups import BACKBONE


class StartBlend:
    """Blends the backbone of a model with the weights it had at the beginning; heads are taken as they are.

    What lies between is often better on new images than either end: it keeps what the start knew of images
    beyond those that it was trained on further.

    Args:
        model: with the weights it starts from, and a backbone.
        start_share: weight of the start, from 0 to below 1.

    Source:
        Wortsman et al. 2021, arXiv:2109.01903, Eq. 1 with alpha = 1 - `start_share`.
    """

    def __init__(self, model: nn.Module, start_share: float):
        self._start, self._blended, self.start_share = deepcopy(model), deepcopy(model), start_share

    @torch.no_grad()
    def of(self, model: nn.Module) -> nn.Module:
        """The blended model, which the next call changes."""
        self._blended.load_state_dict(model.state_dict())
        start = self._start.get_submodule(BACKBONE).state_dict()
        for name, value in self._blended.get_submodule(BACKBONE).state_dict().items():
            if value.is_floating_point():
                value.lerp_(start[name], self.start_share)
        return self._blended
