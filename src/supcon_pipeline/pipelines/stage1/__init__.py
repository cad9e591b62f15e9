"""Contrastive pretraining of the encoder."""
