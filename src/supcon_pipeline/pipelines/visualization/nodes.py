"""Nodes of `visualization`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.class_splits import has_unseen_classes, rows_without_match
from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import SPLITS, LabelledEmbeddings, rows_of
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.visualization import TsneParameters, VisualizationParameters

# Of matplotlib and plotly, and a `ProjectorPoints`, whose module loads torch.
Figure = Any
InteractiveFigure = Any
Points = Any


def map_embeddings(
    embeddings: NamedTensors,
    baseline_embeddings: NamedTensors,
    samples: pd.DataFrame,
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    params: VisualizationParameters,
) -> pd.DataFrame:
    """Two t-SNE coordinates for each image shown, in a map per model and seed, with its prediction if any."""
    from supcon_pipeline.core.figures.tsne import largest_perplexity, tsne_map

    shown = _choose_rows(samples, params.tsne)
    options = params.tsne.model_dump(exclude={"seeds", "max_points"})
    options["perplexity"] = min(params.tsne.perplexity, largest_perplexity(len(shown)))
    models = {
        "contrastive": (embeddings, predictions),
        "cross-entropy baseline": (baseline_embeddings, baseline_predictions),
    }
    maps = []
    for model, (features, predicted) in models.items():
        rows = LabelledEmbeddings.of(features, samples).outputs["embedding"][shown]
        predicted_class = samples["id"].map(predicted.set_index("id")["predicted_class"])
        columns = samples.assign(predicted_class=predicted_class, model=model).iloc[shown]
        for seed in params.tsne.seeds:
            x, y = tsne_map(rows, seed=seed, **options).T
            maps.append(columns.assign(seed=seed, x=x, y=y))
    points: pd.DataFrame = pd.concat(maps, ignore_index=True)
    return points


def _choose_rows(samples: pd.DataFrame, params: TsneParameters) -> np.ndarray:
    """The images that are shown: a share of every split and class, none that was removed from all splits."""
    from supcon_pipeline.core.data.subsets import choose_points

    in_use = rows_of(samples, *SPLITS)
    strata = samples["split"] + " " + samples["label"].astype(str)
    rows: np.ndarray = in_use[choose_points(strata.iloc[in_use], params.max_points, params.seeds[0])]
    return rows


def draw_embedding_map(tsne_points: pd.DataFrame, dataset_card: dict[str, Any]) -> Figure:
    """The maps, the contrastive encoder beside the baseline."""
    from supcon_pipeline.core.figures.maps import draw_tsne

    return draw_tsne(tsne_points, dataset_card["class_names"], _split_sizes(dataset_card))


def draw_interactive_map(tsne_points: pd.DataFrame, dataset_card: dict[str, Any]) -> InteractiveFigure:
    """The same maps, in which every image says what it is."""
    from supcon_pipeline.core.figures.interactive import draw_interactive_tsne

    return draw_interactive_tsne(tsne_points, dataset_card["class_names"], _split_sizes(dataset_card))


def _split_sizes(dataset_card: dict[str, Any]) -> dict[str, int]:
    return {split: sum(counts.values()) for split, counts in dataset_card["counts"].items()}


def collect_projector_points(
    embeddings: NamedTensors, predictions: pd.DataFrame, samples: pd.DataFrame, prepared_images: StoredImages
) -> Points:
    """The embeddings of the test images for TensorBoard, with labels, predictions and pictures."""
    from supcon_pipeline.core.figures.projector import ProjectorPoints, small_pictures

    test = LabelledEmbeddings.of(embeddings, samples).rows_of("test")
    predicted = dict(zip(predictions["id"], predictions["predicted_class"], strict=True))
    table = samples.iloc[test][["class_name", "id"]].reset_index(drop=True)
    # Classes that train lacks have no predictions.
    table.insert(1, "predicted_class", [predicted.get(name, "") for name in table["id"]])
    vectors = embeddings.tensors["embedding"][test]
    return ProjectorPoints(vectors, table, small_pictures(prepared_images, test))


def draw_confusion_matrix(classifier_metrics: dict[str, Any], dataset_card: dict[str, Any]) -> Figure:
    """The confusion matrix of the classifier on test."""
    from supcon_pipeline.core.figures.confusion import draw_confusion
    from supcon_pipeline.core.metrics.classification import unpack_confusion

    if not classifier_metrics:
        return _draw_absence("a confusion matrix")
    names = dataset_card["class_names"]
    return draw_confusion(unpack_confusion(classifier_metrics["confusion_matrix"], len(names)), names)


def draw_retrieval_gallery(
    neighbours: pd.DataFrame,
    samples: pd.DataFrame,
    prepared_images: StoredImages,
    params: VisualizationParameters,
) -> Figure:
    """Test images with their nearest training images: some found right, and the worst failures.

    Of classes that train lacks, those that are not scored are no failures, unless there are no others.
    """
    from supcon_pipeline.core.figures.image_grids import choose_queries, draw_retrieval

    gallery, labels, scored = params.gallery, samples["label"].to_numpy(), neighbours
    if has_unseen_classes(labels, samples["split"].to_numpy()):
        scored = neighbours[~neighbours["query"].isin(rows_without_match(samples, "test"))]
    shown = scored if len(scored) else neighbours
    queries = choose_queries(shown, labels, gallery.num_right, gallery.num_wrong, gallery.seed)
    return draw_retrieval(prepared_images, samples, neighbours, queries, gallery.num_references)


def draw_suspicious_gallery(
    suspicious_labels: pd.DataFrame, prepared_images: StoredImages, params: VisualizationParameters
) -> Figure:
    """The images whose label is most probably wrong."""
    from supcon_pipeline.core.figures.image_grids import draw_suspicious

    return draw_suspicious(prepared_images, suspicious_labels, params.gallery.num_suspicious)


def draw_near_duplicate_gallery(
    near_duplicates: pd.DataFrame,
    samples: pd.DataFrame,
    prepared_images: StoredImages,
    params: VisualizationParameters,
) -> Figure:
    """Pairs of images that show one photograph, those in two splits first."""
    from supcon_pipeline.core.figures.image_grids import draw_pairs

    return draw_pairs(prepared_images, samples, near_duplicates, params.gallery.num_near_duplicates)


def draw_calibration_curves(
    classifier_metrics: dict[str, Any],
    knn_metrics: dict[str, Any],
    baseline_classifier_metrics: dict[str, Any],
) -> Figure:
    """Accuracy against confidence of every classifier."""
    from supcon_pipeline.core.figures.calibration import draw_calibration

    if not classifier_metrics:
        return _draw_absence("a calibration curve")
    return draw_calibration(
        {"linear": classifier_metrics, "k-NN": knn_metrics, "baseline": baseline_classifier_metrics}
    )


def draw_verification_curve(
    verification_metrics: dict[str, Any], baseline_verification_metrics: dict[str, Any]
) -> Figure:
    """Missed matches against false ones, of the contrastive encoder and of the baseline."""
    from supcon_pipeline.core.figures.verification import draw_errors
    from supcon_pipeline.core.figures.words import draw_words

    if not verification_metrics or not baseline_verification_metrics:
        return draw_words("There is no curve: validation or test has no two images of one class")
    models = {"contrastive": verification_metrics, "cross-entropy baseline": baseline_verification_metrics}
    return draw_errors(models)


def draw_learning_curve(learning_curve: pd.DataFrame) -> Figure:
    """Accuracy by the number of labelled images per class."""
    from supcon_pipeline.core.figures.learning_curve import draw_accuracies

    if learning_curve.empty:
        return _draw_absence("a learning curve")
    return draw_accuracies(learning_curve)


def draw_training_curves(
    stage1_history: pd.DataFrame, stage2_history: pd.DataFrame, baseline_history: pd.DataFrame
) -> Figure:
    """Loss, learning rate and validation metrics of all trainings."""
    from supcon_pipeline.core.figures.curves import draw_curves

    histories = {"stage 1": stage1_history, "stage 2": stage2_history, "baseline": baseline_history}
    return draw_curves({title: history for title, history in histories.items() if len(history)})


def _draw_absence(what: str) -> Figure:
    """A figure that says why there is none."""
    from supcon_pipeline.core.figures.words import draw_words

    return draw_words(f"There is no {what}: train has none of the classes of test")


def write_report(
    metrics: dict[str, Any],
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    interactive_map: InteractiveFigure,
    confused_pairs: pd.DataFrame,
    classifier_metrics: dict[str, Any],
    out_of_distribution_metrics: dict[str, Any] | None,
    **pictures: bytes | None,
) -> str:
    """One page that opens from disk: metrics, pictures, data and parameters."""
    from supcon_pipeline.core.pages.report import render_report

    return render_report(
        metrics,
        dataset_card,
        run_record,
        {name: picture for name, picture in pictures.items() if picture is not None},
        interactive_map.to_json(),
        confused_pairs,
        classifier_metrics,
        out_of_distribution_metrics,
    )
