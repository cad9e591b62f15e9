"""Classes that come after training, added to the index of a run."""

from supcon_pipeline.pipelines.enrol.pipeline import create_pipeline

__all__ = ["create_pipeline"]
