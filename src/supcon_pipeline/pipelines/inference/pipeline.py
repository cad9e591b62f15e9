"""Graph of `inference`."""

from kedro.pipeline import Node, Pipeline, node, pipeline

from supcon_pipeline.pipelines.inference.nodes import (
    draw_gallery,
    embed_new_images,
    predict_new_images,
    read_new_images,
    search_new_images,
)


def create_pipeline() -> Pipeline:
    """New images to a table of classes, neighbours and distances, and a gallery."""
    return pipeline(
        [
            node(
                read_new_images,
                ["inference_images", "encoder", "params:inference"],
                ["new_images", "new_samples", "unreadable_images"],
                name="read_new_images",
            ),
            node(
                embed_new_images,
                ["encoder", "new_images", "params:inference"],
                "new_embeddings",
                name="embed_new_images",
            ),
            *_predict(),
            node(
                draw_gallery,
                [
                    "inference_predictions",
                    "new_images",
                    "prepared_images",
                    "samples",
                    "unreadable_images",
                    "run_record",
                    "params:inference",
                ],
                "inference_gallery",
                name="draw_gallery",
            ),
        ],
        namespace="inference",
        prefix_datasets_with_namespace=False,
    )


def _predict() -> list[Node]:
    """What the training images and the classifier say of the new images."""
    return [
        node(
            search_new_images,
            [
                "new_embeddings",
                "embeddings",
                "train_index",
                "train_index_card",
                "samples",
                "new_samples",
                "dataset_card",
                "knn_metrics",
                "params:inference",
            ],
            "new_neighbours",
            name="search_new_images",
        ),
        node(
            predict_new_images,
            ["classifier", "new_embeddings", "new_neighbours", "classifier_metrics", "dataset_card"],
            ["inference_predictions", "inference_table"],
            name="predict_new_images",
        ),
    ]
