"""Trained models at work: on new images, and in other programs."""
