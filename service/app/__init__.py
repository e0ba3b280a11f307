"""The application: every path of both listeners, and what is done there."""
