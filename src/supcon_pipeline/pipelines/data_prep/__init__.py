"""Raw images to packed images, a table of samples and a dataset card."""

from supcon_pipeline.pipelines.data_prep.pipeline import create_pipeline

__all__ = ["create_pipeline"]
