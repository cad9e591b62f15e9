"""What `kedro runs` does: list, show, compare, reproduce, delete and prune runs."""
