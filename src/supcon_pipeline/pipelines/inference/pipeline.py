"""Graph of `inference`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.inference.nodes import (
    draw_gallery,
    embed_new_images,
    predict_new_images,
    read_new_images,
    search_new_images,
)


def create_pipeline() -> Pipeline:
    """New images to a table of classes, neighbours and distances, and a gallery."""
    return Pipeline(
        [
            Node(
                func=read_new_images,
                inputs=["inference_images", "encoder", "params:inference"],
                outputs=["new_images", "new_samples", "unreadable_images"],
                name="read_new_images",
            ),
            Node(
                func=embed_new_images,
                inputs=["encoder", "new_images", "params:inference"],
                outputs="new_embeddings",
                name="embed_new_images",
            ),
            *_predict(),
            Node(
                func=draw_gallery,
                inputs=[
                    "inference_predictions",
                    "new_images",
                    "prepared_images",
                    "samples",
                    "gallery_rows",
                    "enrolled_images",
                    "unreadable_images",
                    "run_record",
                    "params:inference",
                ],
                outputs="inference_gallery",
                name="draw_gallery",
            ),
        ],
        namespace="inference",
        prefix_datasets_with_namespace=False,
        tags="inference",
    )


def _predict() -> list[Node]:
    """What the training images and the classifier say of the new images."""
    return [
        Node(
            func=search_new_images,
            inputs=[
                "new_embeddings",
                "embeddings",
                "train_index",
                "train_index_card",
                "gallery_index",
                "gallery_rows",
                "enrolled_embeddings",
                "samples",
                "new_samples",
                "dataset_card",
                "knn_metrics",
                "params:inference",
            ],
            outputs="new_neighbours",
            name="search_new_images",
        ),
        Node(
            func=predict_new_images,
            inputs=["classifier", "new_embeddings", "new_neighbours", "classifier_metrics", "dataset_card"],
            outputs=["inference_predictions", "inference_table"],
            name="predict_new_images",
        ),
    ]
