"""From an admitted request to an order of products: budget, queue, workers, engine."""
