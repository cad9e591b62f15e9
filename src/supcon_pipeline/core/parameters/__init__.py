"""Parameters of the pipelines: names, types and ranges. A name that is not here is an error."""
