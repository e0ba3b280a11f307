"""Connections and requests, whatever their paths: received, counted, let in, bounded."""
