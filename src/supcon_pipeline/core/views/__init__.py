"""Views: random transforms of images, and batches of them."""
