"""The pipelines, each a namespace that runs alone from what the catalog holds."""
