"""A linear classifier on the frozen encoder."""

from supcon_pipeline.pipelines.stage2.pipeline import create_pipeline

__all__ = ["create_pipeline"]
