"""Cross-entropy from scratch, with the backbone, views, batches and epochs of stage 1."""
