"""Graph of `data_prep`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.data_prep.nodes import describe_dataset, pack_images, tabulate_samples


def create_pipeline() -> Pipeline:
    """Raw images to packed images, samples and dataset card; what cannot be decoded is listed."""
    return pipeline(
        [
            node(
                pack_images,
                ["raw_images", "packing_store", "params:data_prep"],
                ["prepared_images", "packed_samples", "rejected_images", "ignored_files"],
                name="pack_images",
            ),
            node(
                tabulate_samples,
                ["packed_samples", "prepared_images", "rejected_images", "params:data_prep"],
                "samples",
                name="tabulate_samples",
            ),
            node(
                describe_dataset,
                [
                    "prepared_images",
                    "samples",
                    "rejected_images",
                    "ignored_files",
                    "params:data_prep",
                ],
                "dataset_card",
                name="describe_dataset",
            ),
        ],
        namespace="data_prep",
        prefix_datasets_with_namespace=False,
    )
