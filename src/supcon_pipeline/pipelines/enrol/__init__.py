"""Classes that come after training, added to the index of a run."""
