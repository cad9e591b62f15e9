"""The learning-rate range test."""

import math
from contextlib import closing
from itertools import chain, count
from typing import Any

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.training.loop import train_step
from supcon_pipeline.core.training.stage import Stage, build_training


def lr_curve(
    stage: Stage, data: LabelledImages, min_lr: float, max_lr: float, num_steps: int, smoothing: float
) -> list[dict[str, float]]:
    """Loss against a geometrically rising learning rate, one row per step.

    Trains the same model as the stage does, on the same batches and in the same precision, until the smoothed
    loss is not finite or above four times its lowest value.

    Args:
        stage: what is trained; its model is changed.
        data: images to train on are those of `train`.
        min_lr: learning rate of the first step.
        max_lr: learning rate of the last step.
        num_steps: at least 10.
        smoothing: weight of the past in the smoothed loss, from 0 to below 1.

    Returns:
        Rows with `lr`, `loss` and `smoothed_loss`, a bias-corrected exponential average.

    Source:
        Smith 2015, arXiv:1506.01186, section 3.3.
    """
    training = build_training(stage, data)
    rows: list[dict[str, float]] = []
    average = 0.0
    batches = chain.from_iterable(map(training.loader.epoch, count()))
    # After the epochs in which a part of the model is frozen.
    training.begin_epoch(stage.params.schedule.num_epochs)
    with closing(training.loader):
        for step, batch in zip(range(num_steps), batches, strict=False):
            lr = min_lr * (max_lr / min_lr) ** (step / (num_steps - 1))
            for group in training.optimizer.param_groups:
                # Rates that differ by layer keep their proportions.
                group["lr"] = lr * (group["initial_lr"] / stage.params.optimizer.lr)
            loss = float(train_step(training, batch, is_scheduled=False)[0])
            average = smoothing * average + (1 - smoothing) * loss
            smoothed = average / (1 - smoothing ** (step + 1))
            if not math.isfinite(smoothed) or smoothed > 4 * min(
                [row["smoothed_loss"] for row in rows] or [loss]
            ):
                break
            rows.append({"lr": lr, "loss": loss, "smoothed_loss": smoothed})
    return rows


def suggest_lr(curve: list[dict[Any, float]]) -> dict[str, Any]:
    """The learning rate where the smoothed loss falls fastest, the one where it is lowest, and one to try.

    The slope is taken over the logarithm of the learning rate. The first tenth of the curve is left out,
    where the average covers few losses and moves by chance. The two usual choices are the steepest point,
    which is cautious, and a tenth of the lowest, which is bold; the suggestion is their geometric mean.

    Raises:
        InputError: where the curve has fewer than three points.
    """
    if len(curve) < 3:
        lower = f"; add --params lr_finder.min_lr={curve[0]['lr'] / 100:.2g}" if curve else ""
        raise InputError(f"learning-rate curve must have at least 3 points, got {len(curve)}{lower}")
    slopes = [
        (after["smoothed_loss"] - before["smoothed_loss"]) / math.log(after["lr"] / before["lr"])
        for before, after in zip(curve[:-2], curve[2:], strict=True)
    ]
    lowest = min(curve, key=lambda row: row["smoothed_loss"])
    steepest = curve[1 + min(range(len(curve) // 10, len(slopes)), key=slopes.__getitem__)]
    return {
        "steepest_lr": steepest["lr"],
        "lowest_lr": lowest["lr"],
        "suggested_lr": math.sqrt(steepest["lr"] * lowest["lr"] / 10),
        "num_points": len(curve),
    }
