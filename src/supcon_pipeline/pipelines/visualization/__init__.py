"""Pictures and the report, from artifacts alone."""

from supcon_pipeline.pipelines.visualization.pipeline import create_pipeline

__all__ = ["create_pipeline"]
