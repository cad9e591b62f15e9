"""What launched processes do in the tests."""

import logging
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.distributed as dist
from tests.core.training.trainings import CARD, make_data, stage1_parameters

from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.training.monitoring import NoLog, epoch_logger
from supcon_pipeline.core.training.pickling import from_bytes
from supcon_pipeline.core.training.progress import Progress
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.resumable import train
from supcon_pipeline.core.training.stage import Stage, build_training
from supcon_pipeline.core.training.state import Criterion
from supcon_pipeline.core.views.loading import Batch

# A process that has computed gradients may not be forked to compute more. So a server forks these, which has
# imported everything, as that takes longer than what they do, and computed nothing. The last two are what a
# training imports only once it needs them.
START_METHOD = "forkserver"
multiprocessing.set_forkserver_preload(
    [__name__, "tests.core.training.shared_work", "albumentations.pytorch", "torchvision"]
)


@dataclass
class KillingOnce:
    """A loss that once kills its process, of that rank, at that step."""

    criterion: Criterion
    rank: int
    step: int
    mark: Path

    def __call__(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        if batch.ranks.rank == self.rank and not self.mark.exists():
            self.step -= 1
            if not self.step:
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.criterion(outputs, batch)


def make_stage(**changes: Any) -> Stage:
    """Two epochs of three steps, saved after each."""
    schedule = {"name": "cosine", "num_epochs": 2, "warmup_epochs": 1}
    params = stage1_parameters(schedule=schedule, progress_minutes=0, **changes)
    return contrastive_stage(make_data(), CARD, params)


def make_killing_stage(rank: int, step: int, mark: Path, **changes: Any) -> Stage:
    """The same, one of whose processes dies once."""
    stage = make_stage(**changes)
    return replace(stage, criterion=KillingOnce(stage.criterion, rank, step, mark))


def train_together(rank: int, count: int, folder: Path, packed: bytes) -> None:
    """Train as one of several processes that no launcher looks after."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count)
    ranks = replace(ALONE, rank=rank, count=count, control=dist.group.WORLD, patient=dist.group.WORLD)
    data, stage = make_data(), from_bytes(packed)
    train(build_training(stage, data, ranks), stage, data, NoLog(), Progress(folder), "run")
    dist.destroy_process_group()


def speak(ranks: Ranks) -> None:
    """Say something, as an epoch ends and as a warning."""
    epoch_logger.info("epoch told by %d", ranks.rank)
    logging.getLogger("supcon_pipeline.core.training.loop").warning("warned by %d", ranks.rank)
    ranks.agree(None)


def fail(ranks: Ranks) -> None:
    """Fail in the second process while the first waits for it."""
    if ranks.rank == 1:
        _ = 1 / 0
    ranks.agree(None, source=1)
