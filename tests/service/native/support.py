"""What tests of the native libraries share: a bundle, and the marks of what runs only where they do."""

import pytest

from bundle import read_bundle
from service.native import words
from service.native.session import why_not
from tests.service.support import ROOT

LAYOUT = read_bundle(ROOT / "models", "tiny").manifest.graph().layout
OBSTACLE = why_not(LAYOUT)
needs_native = pytest.mark.skipif(bool(OBSTACLE), reason=f"the native engine does not run here: {OBSTACLE}")
NO_WORDS = words.why_not()
needs_words = pytest.mark.skipif(bool(NO_WORDS), reason=f"the table of words does not run here: {NO_WORDS}")
