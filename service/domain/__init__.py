"""What every part speaks of: a query, its products, its terms, its ranking."""
