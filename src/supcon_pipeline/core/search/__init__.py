"""Nearest neighbours, exact or by an index, and k-NN classification."""
