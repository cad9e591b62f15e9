"""Contrastive pretraining of the encoder."""

from supcon_pipeline.pipelines.stage1.pipeline import create_pipeline

__all__ = ["create_pipeline"]
