"""Training: a stage from its first step to its best checkpoints."""
