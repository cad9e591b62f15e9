"""New images in; classes, nearest training images and a distance score out."""
