"""`out_of_distribution`: does the embedding tell images of another kind from the test images?"""

from supcon_pipeline.pipelines.out_of_distribution.pipeline import create_pipeline

__all__ = ["create_pipeline"]
