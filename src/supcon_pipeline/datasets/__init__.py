"""Datasets that Kedro does not have."""
