"""What the weights that training starts from are worth by themselves."""
