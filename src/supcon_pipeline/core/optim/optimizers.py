"""Optimizers by name."""

from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RAdam

from supcon_pipeline.core.optim.groups import groups_by_depth, groups_by_part, parameter_groups
from supcon_pipeline.core.optim.options import OPTIMIZERS, complete_options


def build_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    weight_decay: float,
    momentum: float | None = None,
    nesterov: bool | None = None,
    betas: tuple[float, float] | None = None,
    sync_period: int | None = None,
    slow_step_size: float | None = None,
    layer_decay: float | None = None,
    head_lr_factor: float = 1.0,
) -> Optimizer:
    """A torch or timm optimizer over `parameter_groups` or, given a `layer_decay`, `groups_by_depth`.

    Args:
        model: its trainable parameters are optimized.
        name: one of `OPTIMIZERS`; `lookahead` wraps SGD, `ranger` wraps RAdam in Lookahead.
        lr: learning rate of every group, or of the deepest layer.
        weight_decay: of weights; coupled (part of the gradient) except in AdamW and Muon.
        momentum: for SGD, Lookahead, LARS and Muon; here and below, None is the default.
        nesterov: for the same optimizers.
        betas: decay of both moments, for the Adam family and for non-matrices in Muon.
        sync_period: fast steps per slow step, for Lookahead and Ranger.
        slow_step_size: how far a slow step moves towards the fast weights, as a share of the way.
        layer_decay: factor of the rate from one layer to the one before it.
        head_lr_factor: factor of the rate of the heads, where there is a `layer_decay`.

    Raises:
        InputError: if the name is unknown or does not use a given option.

    Source:
        Lookahead: Zhang et al. 2019, arXiv:1907.08610, but in timm the slow weights start as the fast weights
        at the first slow step, which thus changes nothing. LARS: You et al. 2017, arXiv:1708.03888, on
        weights only. Muon: Jordan 2024 with the step sizes of Liu et al. 2025, arXiv:2502.16982. It
        orthogonalises the matrices and flattened kernels of a backbone; heads, kernels of one channel and
        parameters without decay use AdamW (or NAdamW). In a model without a backbone, it does so with all.
    """
    options = complete_options(
        OPTIMIZERS,
        name,
        {
            "momentum": momentum,
            "nesterov": nesterov,
            "betas": betas,
            "sync_period": sync_period,
            "slow_step_size": slow_step_size,
        },
    )
    sync_period, slow_step_size = options.pop("sync_period", None), options.pop("slow_step_size", None)
    if layer_decay is not None:
        groups = groups_by_depth(model, weight_decay, lr, layer_decay, head_lr_factor)
    else:
        groups = (groups_by_part if name == "muon" else parameter_groups)(model, weight_decay)
    if name == "lars":
        for weights in groups[::2]:
            # Otherwise timm adapts only groups with decay: without weight decay, LARS would be SGD.
            weights["always_adapt"] = True
    if name == "muon":
        # Otherwise it would orthogonalise position tables like matrices.
        for others in groups[1::2]:
            others["use_fallback"] = True
        if len(groups) > 2:
            # The weights of the heads, which come last.
            groups[-2]["use_fallback"] = True
    optimizer = _optimizer_class(name)(groups, lr=lr, **options)
    return _wrap_in_lookahead(optimizer, sync_period, slow_step_size) if sync_period else optimizer


def _optimizer_class(name: str) -> Callable[..., Optimizer]:
    """The optimizer of a name; for Lookahead and Ranger, that of the fast steps."""
    if name == "lars":
        from timm.optim.lars import Lars

        return Lars
    if name == "muon":
        # Torch's own accepts only matrices: no kernels, and no fallback for the rest.
        from timm.optim.muon import Muon

        return Muon
    adams = {"adam": Adam, "adamw": AdamW, "radam": RAdam, "ranger": RAdam}
    return adams.get(name, SGD)


def _wrap_in_lookahead(fast: Optimizer, sync_period: int, slow_step_size: float) -> Optimizer:
    from timm.optim.lookahead import Lookahead

    return Lookahead(fast, alpha=slow_step_size, k=sync_period)
