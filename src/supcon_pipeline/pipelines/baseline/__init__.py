"""Cross-entropy from scratch, with the backbone, views, batches and epochs of stage 1."""

from supcon_pipeline.pipelines.baseline.pipeline import create_pipeline

__all__ = ["create_pipeline"]
