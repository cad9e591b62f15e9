"""LoRA: instead of a linear layer's weight, an update of low rank is trained.

The update is a parametrization of the weight and not, as in peft, a layer around the layer: attention in
torch, Swin of torchvision, BEiT and EVA of timm take `layer.weight` without calling the layer, and what is
around it would be trained without any effect.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from supcon_pipeline.core.messages import InputError

# Last part of the name of the first factor, which is drawn at random.
FIRST_FACTOR = "lora_a_weight"
# The matrices by which an attention layer of torch makes queries, keys and values.
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
# Of all parameters of a network. Below, LoRA would leave most of what the network computes as it is.
_LEAST_SHARE = 0.5


class LowRankUpdate(nn.Module):
    """The weight W of a layer as W + alpha / rank B A, at first W itself because B is zero.

    Args:
        weight: of a linear layer, `[outputs, inputs]`.
        rank: rows of A `[rank, inputs]` and columns of B `[outputs, rank]`.
        alpha: strength of the update; with `alpha / rank` in front, a rate that suits one rank suits others.
        dropout: probability that an input is left out of the update in a training step.

    Source:
        Hu et al. 2021, arXiv:2106.09685, section 4.1, but A is uniform, as in their code and in peft. Inputs
        are left out for all images of a batch at once, as in Lin et al. 2024, arXiv:2404.09610.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], rank: int, alpha: float, dropout: float):
        super().__init__()
        self.lora_a_weight = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.lora_b_weight = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.lora_a_weight, a=math.sqrt(5))
        self.scale, self.dropout = alpha / rank, nn.Dropout(dropout)

    def forward(self, weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs inputs"]:
        """The weight that the layer uses."""
        is_kept = self.dropout(torch.ones_like(self.lora_a_weight[0]))
        return self._updated(weight, self.lora_a_weight * is_kept)

    def merge(self, weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs inputs"]:
        """The weight that the layer uses outside of training."""
        return self._updated(weight, self.lora_a_weight)

    def _updated(self, weight: Tensor, first_factor: Tensor) -> Tensor:
        update: Tensor = self.scale * self.lora_b_weight @ first_factor
        return weight + update


def add_low_rank_updates(network: nn.Module, rank: int, alpha: float, dropout: float) -> None:
    """Freeze a network except for an update of low rank of each of its linear layers.

    All of them, in attention and between, as in Dettmers et al. 2023, arXiv:2305.14314, figure 2: updates of
    attention alone do not reach what training of all weights does.
    """
    network.requires_grad_(False)
    for layer, name in _linear_weights(network):
        update = LowRankUpdate(getattr(layer, name), rank, alpha, dropout)
        parametrize.register_parametrization(layer, name, update)


def require_linear_layers(network: nn.Module, name: str, rank: int) -> None:
    """Refuse a network that does not consist of linear layers for the most part, as transformers do.

    Raises:
        InputError: with the share of its parameters that these layers hold.
    """
    weights = sum(getattr(layer, weight).numel() for layer, weight in _linear_weights(network))
    share = weights / sum(parameter.numel() for parameter in network.parameters())
    if share < _LEAST_SHARE:
        raise InputError(
            f"finetune.lora must be null for {name}, got rank {rank}; {share:.0%} of its weights are in "
            "linear layers, which are all that LoRA trains: set finetune.lora=null"
        )


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network that are trained when it is not frozen: its updates of low rank, or all."""
    return [parameter for part in _updates(network) or [network] for parameter in part.parameters()]


def has_low_rank_updates(network: nn.Module) -> bool:
    """Whether a network has been given updates of low rank."""
    return bool(_updates(network))


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model with its updates of low rank in the weights: that of the model without them."""
    state = model.state_dict()
    for path, part in model.named_modules(remove_duplicate=False):
        update = part[0] if isinstance(part, parametrize.ParametrizationList) else None
        if isinstance(update, LowRankUpdate):
            for name in part.state_dict():
                del state[f"{path}.{name}"]
            layer, _, weight = path.rpartition("parametrizations.")
            state[f"{layer}{weight}"] = update.merge(part.get_parameter("original"))
    return state


def _updates(network: nn.Module) -> list[nn.Module]:
    return [part for part in network.modules() if isinstance(part, LowRankUpdate)]


def _linear_weights(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """The linear layers of a network, each with the name of its weight."""
    found: list[tuple[nn.Module, str]] = []
    for part in network.modules():
        if isinstance(part, nn.Linear):
            found.append((part, "weight"))
        elif isinstance(part, nn.MultiheadAttention):
            found += [(part, name) for name in _PROJECTIONS if getattr(part, name) is not None]
    return found
