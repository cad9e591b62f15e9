"""The learning library: torch, numpy and faiss, usable without Kedro."""
