"""A serving process from start to drain."""
