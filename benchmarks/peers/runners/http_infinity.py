"""Server peer: infinity with its ONNX engine, made to start. Arguments: folder, port.

As released it cannot open a local folder with the version of optimum that it installs: it asks for a model file by an absolute
path. `_relative` undoes that and changes nothing else. Its reranker leaves out token types, which a BERT needs: its scores are
what they are, and the error column shows it.
"""

import os
import sys
from pathlib import Path
from typing import Any

folder, port = Path(sys.argv[1]).resolve(), sys.argv[2]
os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}  # before its libraries are imported

import infinity_emb.transformer.crossencoder.optimum as reranker  # noqa: E402
from infinity_emb.cli import cli  # noqa: E402

_found = reranker.get_onnx_files


def _relative(*args: Any, **options: Any) -> Path:
    path = Path(_found(*args, **options))
    return path.relative_to(folder) if path.is_absolute() else path


reranker.get_onnx_files = _relative
sys.argv = ["infinity_emb", "v2", "--model-id", str(folder), "--engine", "optimum", "--device", "cpu"]
sys.argv += ["--host", "127.0.0.1", "--port", port, "--served-model-name", "own", "--log-level", "warning"]
sys.argv += ["--onnx-disable-optimize", "--no-bettertransformer", "--no-vector-disk-cache"]
cli()
