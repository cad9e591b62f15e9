"""What the weights that training starts from are worth by themselves."""

from supcon_pipeline.pipelines.published.pipeline import create_pipeline

__all__ = ["create_pipeline"]
