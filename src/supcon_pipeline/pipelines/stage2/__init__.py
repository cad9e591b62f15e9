"""A linear classifier on the frozen encoder."""
