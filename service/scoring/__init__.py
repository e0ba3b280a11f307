"""From an admitted request to an order of products: what is known of it, admission, the queue, its workers."""
