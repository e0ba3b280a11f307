"""How good a ranking is, and what it has to beat."""
