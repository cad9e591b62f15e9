"""What training has gained over the weights that it started from."""

from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.messages import InputError

# What training is for, by group and name.
_COMPARED = {
    ("embedding", "precision_at_1"): "embedding precision@1",
    ("embedding", "recall_at_1"): "embedding recall@1",
    ("embedding", "mean_average_precision_at_r"): "embedding mAP@R",
    ("embedding", "knn_accuracy"): "k-NN accuracy",
    ("classifier", "accuracy"): "classifier accuracy",
}


def require_start(backbone: Mapping[str, Any] | None, trained: Mapping[str, Any]) -> None:
    """Make sure that what is shown as the start of a training is that.

    Args:
        backbone: the parameters that name the weights which were evaluated; none for no weights.
        trained: the same of the training.

    Raises:
        InputError: where they are others.
    """
    expected = dict(trained) if trained["pretrained"] or trained["weights"] is not None else None
    if (dict(backbone) if backbone else None) != expected:
        raise InputError(
            f"published_embeddings must be of the weights that the encoder started from ({_name(expected)}), "
            f"got those of {_name(backbone)}; type: kedro run --pipelines published,evaluation"
        )


def _name(backbone: Mapping[str, Any] | None) -> str:
    if backbone is None:
        return "no weights"
    return f"{backbone['name']} from {backbone['weights'] or 'its published weights'}"


def start_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """What there is to say where training ends no better than the weights it started from.

    Args:
        metrics: by group; `published` holds those of the start, where there is one.
    """
    start = metrics.get("published", {})
    stalled = [
        f"{name} {metrics[group][metric]:.4f} against {start[group][metric]:.4f}"
        for (group, metric), name in _COMPARED.items()
        if metric in start.get(group, {}) and _is_no_gain(metrics[group][metric], start[group][metric])
    ]
    if not stalled:
        return []
    return [
        f"Training gained nothing over the published weights in {', '.join(stalled)}. Try a lower "
        "stage1.optimizer.lr or more stage1.finetune.start_images, which keep more of them, other "
        "stage1.transforms, or larger images, as the weights were trained on."
    ]


def untrained_warnings(checkpoints: Mapping[str, Any]) -> list[str]:
    """What there is to say of models that are what their training started from.

    A layer behind the backbone is set by training images before the first step, so that such a model may be
    ahead of the published weights, and equal to the baseline.

    Args:
        checkpoints: `averaged_epochs` by model.
    """
    groups = {"encoder": "stage1", "baseline": "baseline"}
    kept = [model for model in groups if checkpoints.get(model, {}).get("averaged_epochs") == [0]]
    return [
        f"No epoch of {groups[model]} was better on validation than its start, so the {model} is that start: "
        "the published weights, and the layer behind them if there is stage1.embedding_dim. Try a lower "
        f"{groups[model]}.optimizer.lr or more stage1.schedule.num_epochs."
        for model in kept
    ]


def _is_no_gain(value: float, start: float) -> bool:
    # At 1, there was nothing to gain.
    return value <= start and value < 1
