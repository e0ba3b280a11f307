"""A bundle taught by the judgments or clicks of one shop: `python -m training tune`."""
