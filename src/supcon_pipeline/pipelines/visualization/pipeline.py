"""Graph of `visualization`."""

from kedro.pipeline import Node, Pipeline, node, pipeline

from supcon_pipeline.core.pages.pictures import PICTURES
from supcon_pipeline.pipelines.visualization.nodes import (
    collect_projector_points,
    draw_calibration_curves,
    draw_confusion_matrix,
    draw_embedding_map,
    draw_interactive_map,
    draw_retrieval_gallery,
    draw_suspicious_gallery,
    draw_training_curves,
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
    return pipeline(
        [
            *_draw_maps(),
            node(
                collect_projector_points,
                ["embeddings", "predictions", "samples", "prepared_images"],
                "projector",
                name="collect_projector_points",
            ),
            node(
                draw_confusion_matrix,
                ["classifier_metrics", "dataset_card"],
                "confusion_matrix",
                name="draw_confusion_matrix",
            ),
            *_draw_evidence(),
            node(
                draw_training_curves,
                ["stage1_history", "stage2_history", "baseline_history"],
                "training_curves",
                name="draw_training_curves",
            ),
            node(
                write_report,
                {name: name for name in (*_TABLES, "interactive_map", *PICTURES)},
                "report",
                name="write_report",
            ),
        ],
        namespace="visualization",
        prefix_datasets_with_namespace=False,
    )


def _draw_maps() -> list[Node]:
    """t-SNE, to look at and to point at."""
    return [
        node(
            map_embeddings,
            [
                "embeddings",
                "baseline_embeddings",
                "samples",
                "predictions",
                "baseline_predictions",
                "params:visualization",
            ],
            "tsne_points",
            name="map_embeddings",
        ),
        node(
            draw_embedding_map,
            ["tsne_points", "dataset_card"],
            "embedding_map",
            name="draw_embedding_map",
        ),
        node(
            draw_interactive_map,
            ["tsne_points", "dataset_card"],
            "interactive_map",
            name="draw_interactive_map",
        ),
    ]


def _draw_evidence() -> list[Node]:
    """The images behind the numbers, and how far the probabilities can be trusted."""
    return [
        node(
            draw_retrieval_gallery,
            ["neighbours", "samples", "prepared_images", "params:visualization"],
            "retrieval_gallery",
            name="draw_retrieval_gallery",
        ),
        node(
            draw_suspicious_gallery,
            ["suspicious_labels", "prepared_images", "params:visualization"],
            "suspicious_gallery",
            name="draw_suspicious_gallery",
        ),
        node(
            draw_calibration_curves,
            ["classifier_metrics", "knn_metrics", "baseline_classifier_metrics"],
            "calibration_curves",
            name="draw_calibration_curves",
        ),
    ]
