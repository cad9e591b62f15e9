"""Graph of `data_prep`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.data_prep.nodes import describe_dataset, pack_images, tabulate_samples


def create_pipeline() -> Pipeline:
    """Raw images to packed images, samples and dataset card."""
    return pipeline(
        [
            node(pack_images, ["raw_images", "params:data_prep"], "prepared_images", name="pack_images"),
            node(tabulate_samples, ["raw_images", "params:data_prep"], "samples", name="tabulate_samples"),
            node(describe_dataset, ["prepared_images", "samples"], "dataset_card", name="describe_dataset"),
        ],
        namespace="data_prep",
        prefix_datasets_with_namespace=False,
    )
