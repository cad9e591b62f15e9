"""Pictures and the report, from artifacts alone."""
