"""Graph of `index`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.index.nodes import index_embeddings, measure_index, tabulate_index


def create_pipeline() -> Pipeline:
    """Embeddings to an index of those of the training images, and what it is worth."""
    return Pipeline(
        [
            Node(
                func=index_embeddings,
                inputs=["embeddings", "samples", "params:index"],
                outputs="train_index",
                name="index_embeddings",
            ),
            Node(
                func=tabulate_index,
                inputs="samples",
                outputs="train_index_rows",
                name="tabulate_index",
            ),
            Node(
                func=measure_index,
                inputs=["train_index", "embeddings", "samples", "params:index"],
                outputs="train_index_card",
                name="measure_index",
            ),
        ],
        namespace="index",
        prefix_datasets_with_namespace=False,
        tags="evaluation",
    )
