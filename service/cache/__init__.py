"""Logits that are known already: in memory, in a cache shared by replicas, or on their way."""
