"""The shipped small bundle as a model to tune, read once."""

from pathlib import Path

import pytest

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Give the folder of the small bundle that ships."""
    return MODELS / "tiny"
