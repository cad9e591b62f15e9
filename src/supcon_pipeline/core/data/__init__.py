"""Images: from a file to packed squares with labels and splits."""
