"""What every part of the service talks about: a query, its products, its terms, its ranking."""
