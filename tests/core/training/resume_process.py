"""Trains once undisturbed, and once with every process killed at some moment; writes both results.

Usage: resume_process.py FOLDER. Each training is a forked process of its own, killed by SIGKILL: before or
after a step, in the middle of a checkpoint's file, or by the clock.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tests.core.training.trainings import CARD, make_data, stage1_parameters

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import join_parts
from supcon_pipeline.core.training import progress, resumable
from supcon_pipeline.core.training.recipes import contrastive_stage

torch.set_num_threads(1)


class NoLog:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Killer:
    """Kills its process at the n-th event."""

    def __init__(self, moment: int | None):
        self.moment, self.count = moment, 0

    def event(self) -> None:
        self.count += 1
        if self.count == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def killing_path(self, target: Path, *options: Any) -> Iterator[Path]:
        with atomic_path(target, *options) as temporary:
            yield temporary
            if target.name == "state.pt":
                content = temporary.read_bytes()
                temporary.write_bytes(content[: len(content) // 2])
                self.event()
                temporary.write_bytes(content)
        self.event()


def train(folder: Path, result: Path, moment: int | None) -> None:
    killer = Killer(moment)
    whole_step = resumable.ResumableTraining.take_step

    def take_step(session: resumable.ResumableTraining) -> None:
        killer.event()
        whole_step(session)

    resumable.ResumableTraining.take_step = take_step  # type: ignore[method-assign]
    data: LabelledImages = make_data()
    # A random state other than the one the resumed training must bring back.
    np.random.seed(os.getpid() % 2**31)  # noqa: NPY002
    schedule = {"name": "cosine", "num_epochs": 2, "warmup_epochs": 1}
    params = stage1_parameters(progress_minutes=0, ema={"decay_per_epoch": 0.5}, schedule=schedule)
    stage = contrastive_stage(data, CARD, params)
    progress.atomic_path = killer.killing_path  # type: ignore[assignment]
    store = progress.ProgressStore(folder)
    checkpoints, history = resumable.run_stage(stage, data, NoLog(), store, "run")
    joined = join_parts(checkpoints)
    with atomic_path(result) as temporary:
        tensors = {name: tensor.contiguous() for name, tensor in joined.tensors.items()}
        save_file(tensors, temporary, {"history": json.dumps(history)})


def fork(folder: Path, result: Path, moment: int | None, seconds: float | None = None) -> int:
    """Train in a process of its own; gives the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        train(folder, result, moment)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# What trainings import at their first use; here, so that it comes along with every fork.
IMPORTED = ("albumentations", "sklearn.metrics", "torch._dynamo", "torchvision")


def main() -> None:
    for name in IMPORTED:
        import_module(name)
    folder = Path(sys.argv[1])
    moments = random.Random(0)
    assert fork(folder / "a", folder / "whole.safetensors", None) == 0
    num_killed = 0
    while True:
        by_clock = num_killed % 5 == 4
        moment = None if by_clock else moments.randint(2, 8)
        code = fork(folder / "b", folder / "killed.safetensors", moment, 0.4 if by_clock else None)
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        num_killed += 1
    print(json.dumps({"num_killed": num_killed}))


if __name__ == "__main__":
    main()
