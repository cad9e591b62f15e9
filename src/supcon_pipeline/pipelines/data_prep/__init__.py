"""Raw images to packed images, a table of samples and a dataset card."""
