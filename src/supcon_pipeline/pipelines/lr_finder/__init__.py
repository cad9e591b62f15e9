"""The learning-rate range test, for either stage."""

from supcon_pipeline.pipelines.lr_finder.pipeline import create_pipeline

__all__ = ["create_pipeline"]
