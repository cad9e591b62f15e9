"""The learning-rate range test, for either stage."""
