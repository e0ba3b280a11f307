"""The routes' handlers: requests read strictly, answers written, the schema page made of the same types."""
