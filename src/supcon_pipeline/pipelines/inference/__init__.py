"""New images in; classes, nearest training images and a distance score out."""

from supcon_pipeline.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
