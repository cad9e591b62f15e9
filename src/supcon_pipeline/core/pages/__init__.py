"""Pages: the report, the gallery and the model card."""
