"""Nearest neighbours: exact, by an index, and what they vote for."""
