"""Using trained models: on new images and, exported, in other programs."""
