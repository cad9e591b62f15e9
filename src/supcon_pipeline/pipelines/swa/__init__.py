"""The average of the best checkpoints of a stage, with its batch-norm statistics estimated anew."""

from supcon_pipeline.pipelines.swa.pipeline import create_pipeline

__all__ = ["create_pipeline"]
