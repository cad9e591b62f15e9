"""Optimizers by name."""

from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RAdam

from supcon_pipeline.core.optim.groups import parameter_groups
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
) -> Optimizer:
    """An optimizer of torch's or timm's over `parameter_groups`.

    Args:
        model: whose trainable parameters are optimized.
        name: one of `OPTIMIZERS`; `lookahead` goes around SGD, `ranger` is Lookahead around RAdam.
        lr: of every group.
        weight_decay: of weights; coupled (in the gradient) but for AdamW and Muon.
        momentum: of SGD, Lookahead, LARS and Muon; None here and below for the usual value.
        nesterov: of the same.
        betas: decays of the two moments of Adam's kin, and of Muon for what is no matrix.
        sync_period: fast steps to one slow step, of Lookahead and Ranger.
        slow_step_size: the share of the way to the fast weights that a slow step goes.

    Raises:
        InputError: where the name is unknown, or an option is given that it does not use.

    Source:
        Lookahead: Zhang et al. 2019, arXiv:1907.08610, but timm's slow weights begin as the fast ones of the
        first slow step, which so changes nothing. LARS: You et al. 2017, arXiv:1708.03888, on weights alone.
        Muon: Jordan 2024 with the step sizes of Liu et al. 2025, arXiv:2502.16982. It orthogonalises matrices
        and flattened kernels; kernels of one channel and what does not decay go to AdamW (or NAdamW).
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
    groups = parameter_groups(model, weight_decay)
    if name == "lars":
        # Else timm adapts only groups that decay: without weight decay, LARS would be SGD.
        groups[0]["always_adapt"] = True
    if name == "muon":
        # Else it would orthogonalise tables of positions as it does matrices.
        groups[1]["use_fallback"] = True
    optimizer = _step_taker(name)(groups, lr=lr, **options)
    return _look_ahead(optimizer, sync_period, slow_step_size) if sync_period else optimizer


def _step_taker(name: str) -> Callable[..., Optimizer]:
    """The optimizer of a name; of Lookahead and Ranger, the one that takes the fast steps."""
    if name == "lars":
        from timm.optim.lars import Lars

        return Lars
    if name == "muon":
        # Torch's own takes nothing but matrices: no kernels, and no fallback for the rest.
        from timm.optim.muon import Muon

        return Muon
    adams = {"adam": Adam, "adamw": AdamW, "radam": RAdam, "ranger": RAdam}
    return adams.get(name, SGD)


def _look_ahead(fast: Optimizer, sync_period: int, slow_step_size: float) -> Optimizer:
    from timm.optim.lookahead import Lookahead

    return Lookahead(fast, alpha=slow_step_size, k=sync_period)
