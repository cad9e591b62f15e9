"""Nodes of `visualization`."""

from typing import Any

import pandas as pd

from supcon_pipeline.core.parameters import VisualizationParameters


def map_embeddings(
    embeddings: Any, baseline_embeddings: Any, samples: pd.DataFrame, params: VisualizationParameters
) -> pd.DataFrame:
    """Two t-SNE coordinates for each train and test image, in one map per model."""
    from supcon_pipeline.core.figures import tsne_map

    is_shown = samples["split"].isin(["train", "test"]).to_numpy()
    maps = []
    for model, features in (("contrastive", embeddings), ("cross-entropy baseline", baseline_embeddings)):
        points = tsne_map(features.tensors["embedding"].numpy()[is_shown], **params.tsne.model_dump())
        maps.append(samples[is_shown].assign(model=model, x=points[:, 0], y=points[:, 1]))
    return pd.concat(maps, ignore_index=True)


def draw_embedding_map(tsne_points: pd.DataFrame, dataset_card: dict[str, Any]) -> Any:
    """The maps, train beside test, the contrastive encoder above the baseline."""
    from supcon_pipeline.core.figures import draw_tsne

    return draw_tsne(tsne_points, dataset_card["class_names"])


def draw_confusion_matrix(classifier_metrics: dict[str, Any], dataset_card: dict[str, Any]) -> Any:
    """The confusion matrix of the classifier on test."""
    from supcon_pipeline.core.figures import draw_confusion

    return draw_confusion(classifier_metrics["confusion_matrix"], dataset_card["class_names"])


def draw_training_curves(
    stage1_history: pd.DataFrame, stage2_history: pd.DataFrame, baseline_history: pd.DataFrame
) -> Any:
    """Loss, learning rate and validation metrics of all trainings."""
    from supcon_pipeline.core.figures import draw_curves

    histories = {"stage 1": stage1_history, "stage 2": stage2_history, "baseline": baseline_history}
    return draw_curves(histories)


def write_report(
    metrics: dict[str, Any],
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    embedding_map: bytes,
    confusion_matrix: bytes,
    training_curves: bytes,
) -> str:
    """One page that opens from disk: metrics, pictures, data and parameters."""
    from supcon_pipeline.core.report import render_report

    figures = {
        "t-SNE of the embeddings": embedding_map,
        "Confusion of the classifier": confusion_matrix,
        "Training curves": training_curves,
    }
    return render_report(metrics, dataset_card, run_record, figures)
