"""A bundle that is ready to compute."""
