"""Metrics on the test images, from artifacts alone."""
