"""Documents."""

from kedro_datasets import json, text

from supcon_pipeline.datasets.checked_file import CheckedFile


class JSONDataset(CheckedFile, json.JSONDataset):
    """A JSON document."""


class TextDataset(CheckedFile, text.TextDataset):
    """A text, such as a page."""
