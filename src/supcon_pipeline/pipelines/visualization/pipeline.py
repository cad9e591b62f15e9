"""Graph of `visualization`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.core.pages.pictures import PICTURES
from supcon_pipeline.pipelines.visualization.nodes import (
    collect_projector_points,
    draw_calibration_curves,
    draw_confusion_matrix,
    draw_embedding_map,
    draw_interactive_map,
    draw_learning_curve,
    draw_near_duplicate_gallery,
    draw_retrieval_gallery,
    draw_suspicious_gallery,
    draw_training_curves,
    draw_verification_curve,
    map_embeddings,
    write_report,
)

# Of the report; out_of_distribution and lr_finder have something for it where they have run.
_TABLES = (
    "metrics",
    "dataset_card",
    "run_record",
    "confused_pairs",
    "classifier_metrics",
    "out_of_distribution_metrics",
)


def create_pipeline() -> Pipeline:
    """Embeddings, metrics and histories to pictures and a report."""
    return Pipeline(
        [
            *_draw_maps(),
            Node(
                func=collect_projector_points,
                inputs=["embeddings", "predictions", "samples", "prepared_images"],
                outputs="projector",
                name="collect_projector_points",
            ),
            Node(
                func=draw_confusion_matrix,
                inputs=["classifier_metrics", "dataset_card"],
                outputs="confusion_matrix",
                name="draw_confusion_matrix",
            ),
            *_draw_evidence(),
            Node(
                func=draw_training_curves,
                inputs=["stage1_history", "stage2_history", "baseline_history"],
                outputs="training_curves",
                name="draw_training_curves",
            ),
            Node(
                func=write_report,
                inputs={name: name for name in (*_TABLES, "interactive_map", *PICTURES)},
                outputs="report",
                name="write_report",
            ),
        ],
        namespace="visualization",
        prefix_datasets_with_namespace=False,
        tags="report",
    )


def _draw_maps() -> list[Node]:
    """The t-SNE maps, drawn and interactive."""
    return [
        Node(
            func=map_embeddings,
            inputs=[
                "embeddings",
                "baseline_embeddings",
                "samples",
                "predictions",
                "baseline_predictions",
                "params:visualization",
            ],
            outputs="tsne_points",
            name="map_embeddings",
        ),
        Node(
            func=draw_embedding_map,
            inputs=["tsne_points", "dataset_card"],
            outputs="embedding_map",
            name="draw_embedding_map",
        ),
        Node(
            func=draw_interactive_map,
            inputs=["tsne_points", "dataset_card"],
            outputs="interactive_map",
            name="draw_interactive_map",
        ),
    ]


def _draw_evidence() -> list[Node]:
    """The images behind the numbers, and how far the probabilities can be trusted."""
    return [
        Node(
            func=draw_retrieval_gallery,
            inputs=["neighbours", "samples", "prepared_images", "params:visualization"],
            outputs="retrieval_gallery",
            name="draw_retrieval_gallery",
        ),
        Node(
            func=draw_suspicious_gallery,
            inputs=["suspicious_labels", "prepared_images", "params:visualization"],
            outputs="suspicious_gallery",
            name="draw_suspicious_gallery",
        ),
        Node(
            func=draw_near_duplicate_gallery,
            inputs=["near_duplicates", "samples", "prepared_images", "params:visualization"],
            outputs="near_duplicate_gallery",
            name="draw_near_duplicate_gallery",
        ),
        Node(
            func=draw_calibration_curves,
            inputs=["classifier_metrics", "knn_metrics", "baseline_classifier_metrics"],
            outputs="calibration_curves",
            name="draw_calibration_curves",
        ),
        Node(
            func=draw_verification_curve,
            inputs=["verification_metrics", "baseline_verification_metrics"],
            outputs="verification_curve",
            name="draw_verification_curve",
        ),
        Node(
            func=draw_learning_curve,
            inputs=["learning_curve"],
            outputs="learning_curve_figure",
            name="draw_learning_curve",
        ),
    ]
