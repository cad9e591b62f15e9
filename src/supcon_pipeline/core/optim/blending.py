"""The weights between those that fine-tuning started from and those it has reached."""

from copy import deepcopy

import torch
from torch import nn

from supcon_pipeline.core.optim.low_rank import FIRST_FACTOR

# Backbone and neck; all else are heads.
_BLENDED = ("encoder.backbone.", "encoder.neck.")


class StartBlend:
    """Blends the encoder of a model with the weights it had at the beginning; heads are taken as they are.

    What lies between is often better on new images than either end: it keeps what the start knew of images
    beyond those that it was trained on further.

    Args:
        model: with the weights it starts from, and an encoder.
        start_share: weight of the start, from 0 to below 1.

    Source:
        Wortsman et al. 2021, arXiv:2109.01903, Eq. 1 with alpha = 1 - `start_share`.
    """

    def __init__(self, model: nn.Module, start_share: float):
        state = model.state_dict()
        # The product of two factors is blended by blending one of them, the one that starts at zero.
        self._start = {
            name: value.clone()
            for name, value in state.items()
            if name.startswith(_BLENDED) and not name.endswith(FIRST_FACTOR)
        }
        self._blended, self.start_share = deepcopy(model), start_share

    @torch.no_grad()
    def of(self, model: nn.Module) -> nn.Module:
        """The blended model, which the next call changes."""
        self._blended.load_state_dict(model.state_dict())
        blended = self._blended.state_dict()
        for name, value in self._start.items():
            if value.is_floating_point():
                blended[name].lerp_(value, self.start_share)
        return self._blended
