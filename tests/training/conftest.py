"""What the training tests share: no hub, one torch thread.

Knows the environment; does not know the tests.
Invariant: a test never waits for a hub that cannot be reached.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of the hub's client, which reads it once
os.environ.setdefault("OMP_NUM_THREADS", "1")
