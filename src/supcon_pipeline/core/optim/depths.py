"""How deep in a network its parameters lie."""

from collections.abc import Iterator
from typing import Any

from torch import nn

# Of the parameters of a network: a module that holds as much is the network itself by another name.
_NEARLY_ALL = 0.9


def parameter_depths(network: nn.Module) -> dict[str, int]:
    """The depth of each parameter by name: 0 next to the input, and one more with each layer.

    A layer is a block, such as a residual or an attention block, or what stands alone between blocks. timm's
    networks say themselves which layers they have. In others, layers are the parts of their sequences, and
    what comes before the first block belongs to it.
    """
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        matcher: Any = network.group_matcher
        found: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
        return found
    layers = list(_layers(network, "", sum(p.numel() for p in network.parameters())))
    depths: dict[str, int] = {}
    depth = 0
    for name, _ in network.named_parameters():
        inside = [index for index, layer in enumerate(layers) if name.startswith(f"{layer}.")]
        # A norm or a position table belongs to the layer before it.
        depth = inside[0] if inside else depth
        depths[name] = depth
    return depths


def _layers(module: nn.Module, name: str, total: int) -> Iterator[str]:
    """The names of the layers that a module consists of, in order."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        size = sum(p.numel() for p in child.parameters())
        if _is_sequence_of_blocks(child) or (size >= _NEARLY_ALL * total and list(child.children())):
            yield from _layers(child, path, total)
        elif any(p.ndim > 1 for p in child.parameters()):
            yield path


def _is_sequence_of_blocks(module: nn.Module) -> bool:
    """Whether a module is a sequence whose parts consist of parts themselves."""
    is_sequence = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    return is_sequence and any(list(part.children()) for part in module.children())
