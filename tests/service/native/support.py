"""What tests of the native engine share: a bundle that it computes, and the mark of what runs only where it does."""

import pytest

from bundle import read_bundle
from service.native.session import why_not
from tests.service.support import ROOT

LAYOUT = read_bundle(ROOT / "models", "tiny").manifest.graph().layout
OBSTACLE = why_not(LAYOUT)
needs_native = pytest.mark.skipif(bool(OBSTACLE), reason=f"the native engine does not run here: {OBSTACLE}")
