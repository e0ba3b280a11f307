"""The sections of a recipe, a module for each folder of stages."""
