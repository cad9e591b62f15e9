"""An index of the embeddings of the training images."""

from supcon_pipeline.pipelines.index.pipeline import create_pipeline

__all__ = ["create_pipeline"]
