"""Losses: pure functions of projections, logits and labels."""

from supcon_pipeline.core.losses.joint import joint_loss
from supcon_pipeline.core.losses.memory import supcon_memory_loss
from supcon_pipeline.core.losses.proxy_anchor import proxy_anchor_loss
from supcon_pipeline.core.losses.sincere import sincere_loss
from supcon_pipeline.core.losses.supcon import supcon_loss

__all__ = ["joint_loss", "proxy_anchor_loss", "sincere_loss", "supcon_loss", "supcon_memory_loss"]
