"""Train image encoders by supervised contrastive learning, as Kedro pipelines."""

__version__ = "0.1.0"
