"""Parameters of the pipelines: names, types and ranges. Unknown names are refused."""
