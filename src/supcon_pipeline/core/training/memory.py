"""Projections of earlier batches, with which a loss compares those of a batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ProjectionMemory:
    """The projections of the last batches and their labels, without gradient.

    Args:
        size: projections that are kept, the newest.
        warmup_epochs: epochs without memory, in which projections change too fast to be compared later.

    Source:
        Wang et al. 2020, XBM, arXiv:1912.06798, section 3.
    """

    def __init__(self, size: int, warmup_epochs: int):
        self.size, self.warmup_epochs = size, warmup_epochs
        self.is_used = False
        self.projections, self.labels = torch.empty(0, 0), torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def begin_epoch(self, epoch: int) -> None:
        """Decide whether the memory is used in an epoch, counted from 0."""
        self.is_used = epoch >= self.warmup_epochs

    def add(self, projections: Tensor, labels: Tensor) -> None:
        """Remember rows in place of the oldest, where the memory is full."""
        rows = projections.detach()
        kept = self.projections.to(rows) if len(self) else rows[:0]
        self.projections = torch.cat([kept, rows])[-self.size :].clone()
        self.labels = torch.cat([self.labels.to(labels), labels])[-self.size :].clone()

    def state_dict(self) -> dict[str, Any]:
        """What is remembered."""
        return {"projections": self.projections, "labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what another memory did."""
        self.projections, self.labels = state["projections"], state["labels"]
