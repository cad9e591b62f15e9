"""The average of the best checkpoints of a stage, with its batch-norm statistics estimated anew."""
