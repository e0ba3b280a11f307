"""Distil a slow relevance teacher into a small, fast student and export it as a bundle.

Knows data, models and losses; does not know HTTP or how a bundle is served.
Invariant: every stage is a function of its recipe and its inputs, and is written whole or not at all.
"""

import os

# onnxruntime's wheels send usage events to their maker unless they are told not to before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
