"""The edge of the service: connections, middleware, keys, and the routes of both listeners."""
