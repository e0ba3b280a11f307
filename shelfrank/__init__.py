"""The one door to serving and training."""
