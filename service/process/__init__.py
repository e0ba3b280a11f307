"""A serving process from start to drain, and several of them side by side."""
