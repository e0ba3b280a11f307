"""Tests of service/__init__.py."""

import json
import subprocess
import sys
from pathlib import Path

from tests.service.support import ROOT

HEAVY = {"torch", "transformers", "optimum", "sklearn", "scipy", "pyarrow", "onnx"}
SERVE = """
import asyncio, json, sys
from pathlib import Path
from service import create_app
from service.settings import Settings
light = sorted(sys.modules)
app = create_app(Settings(models_root=Path(sys.argv[1]), bundle="tiny", workers=1))
async def serve():
    async with app.router.lifespan_context(app):
        pass
asyncio.run(serve())
print(json.dumps([light, sorted(sys.modules)]))
"""


def test_serving_needs_no_training_library(tiny_bundle: Path) -> None:
    """Importing the package loads no framework or runtime; serving a bundle loads no training library."""
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tiny_bundle)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    light, serving = map(set, json.loads(done.stdout))

    assert light.isdisjoint({*HEAVY, "fastapi", "onnxruntime", "numpy"})
    assert {"fastapi", "onnxruntime", "numpy"} <= serving
    assert serving.isdisjoint(HEAVY)
