"""The quality of what will be served, on held-out lists."""
