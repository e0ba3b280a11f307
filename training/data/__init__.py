"""Judged lists and unlabelled pairs, from files to one schema."""
