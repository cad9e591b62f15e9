"""Encoder and classifier as files for other programs, with a model card."""

from supcon_pipeline.pipelines.export.pipeline import create_pipeline

__all__ = ["create_pipeline"]
