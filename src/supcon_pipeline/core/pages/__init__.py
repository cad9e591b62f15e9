"""Pages: report, gallery of new images and model card."""
