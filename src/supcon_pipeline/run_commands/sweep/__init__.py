"""What `kedro runs sweep` does: a search of parameters whose trials are ordinary runs."""
