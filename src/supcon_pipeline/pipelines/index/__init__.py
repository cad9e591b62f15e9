"""An index of the embeddings of the training images."""
