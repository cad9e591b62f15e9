"""Drop path: whole residual branches left out at random while training.

Source: Huang et al. 2016, arXiv:1603.09382, section 3, with the linear rule for the rates.
"""

from torch import nn

from supcon_pipeline.core.messages import InputError


def set_drop_path(network: nn.Module, name: str, rate: float) -> None:
    """Set the rates of a torchvision network: from 0 in the first branch to `rate` in the last.

    Raises:
        InputError: if the network has no such branches.
    """
    from torchvision.ops import StochasticDepth

    branches = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    if not branches:
        raise no_drop_path(name, rate)
    for index, branch in enumerate(branches):
        branch.p = rate * index / max(1, len(branches) - 1)


def no_drop_path(name: str, rate: float) -> InputError:
    """The error for a network that cannot leave out branches."""
    return InputError(
        f"stage1.finetune.drop_path must be null for {name}, got {rate}; it has no drop path: "
        "use --params stage1.finetune.drop_path=null"
    )
