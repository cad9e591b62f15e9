"""Datasets that Kedro's catalog lacks."""
