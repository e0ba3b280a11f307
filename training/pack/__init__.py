"""The bundle, made and read back."""
