"""Metrics on the test images, from artifacts alone."""

from supcon_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
