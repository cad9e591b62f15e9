"""Metrics of embeddings and classifiers."""
