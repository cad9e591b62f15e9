"""Graph of `index`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.index.nodes import index_embeddings, measure_index


def create_pipeline() -> Pipeline:
    """Embeddings to an index of those of the training images, and what it is worth."""
    return pipeline(
        [
            node(
                index_embeddings,
                ["embeddings", "samples", "params:index"],
                "train_index",
                name="index_embeddings",
            ),
            node(
                measure_index,
                ["train_index", "embeddings", "samples", "params:index"],
                "train_index_card",
                name="measure_index",
            ),
        ],
        namespace="index",
        prefix_datasets_with_namespace=False,
    )
