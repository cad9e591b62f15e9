"""Graph of `data_prep`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.data_prep.nodes import (
    describe_dataset,
    find_near_duplicates,
    pack_images,
    tabulate_samples,
)


def create_pipeline() -> Pipeline:
    """Raw images to packed images, samples and dataset card; what cannot be decoded is listed."""
    return Pipeline(
        [
            Node(
                func=pack_images,
                inputs=["raw_images", "packing_store", "params:data_prep"],
                outputs=["prepared_images", "packed_samples", "rejected_images", "ignored_files"],
                name="pack_images",
            ),
            Node(
                func=find_near_duplicates,
                inputs=["prepared_images", "packed_samples", "params:data_prep"],
                outputs="near_duplicates",
                name="find_near_duplicates",
            ),
            Node(
                func=tabulate_samples,
                inputs=[
                    "packed_samples",
                    "prepared_images",
                    "rejected_images",
                    "near_duplicates",
                    "params:data_prep",
                ],
                outputs="samples",
                name="tabulate_samples",
            ),
            Node(
                func=describe_dataset,
                inputs=[
                    "prepared_images",
                    "samples",
                    "rejected_images",
                    "ignored_files",
                    "near_duplicates",
                    "params:data_prep",
                ],
                outputs="dataset_card",
                name="describe_dataset",
            ),
        ],
        namespace="data_prep",
        prefix_datasets_with_namespace=False,
        tags="data",
    )
