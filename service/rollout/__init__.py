"""Which models are served: hot reload, canary, shadow."""
