"""Connections and requests, whatever their paths: received, bounded, numbered, counted, let in by a key."""
