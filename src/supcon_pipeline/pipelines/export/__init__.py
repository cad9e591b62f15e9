"""Encoder and classifier as files for other programs, with a model card."""
