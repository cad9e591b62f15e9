"""Tables."""

from kedro_datasets import pandas

from supcon_pipeline.datasets.artifacts import CheckedFile


class CSVDataset(CheckedFile, pandas.CSVDataset):
    """A table as CSV."""


class ParquetDataset(CheckedFile, pandas.ParquetDataset):
    """A table as Parquet."""
