"""Server peer: Triton Inference Server as it is in the nvidia-pytriton wheel. Arguments: folder, port, threads.

Writes a model repository with triton_model.py in it and becomes the server: python backend, one instance, dynamic batcher on.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytriton

CONFIG = """name: "own"
backend: "python"
max_batch_size: 256
input [
  { name: "query" data_type: TYPE_STRING dims: [1] },
  { name: "document" data_type: TYPE_STRING dims: [1] }
]
output [{ name: "score" data_type: TYPE_FP32 dims: [1] }]
dynamic_batching { }
instance_group [{ kind: KIND_CPU count: 1 }]
"""

folder, port, threads = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
here, root = Path(__file__).resolve().parent, Path(pytriton.__file__).parent / "tritonserver"
packages = root.parents[1]
repository = folder.parent / "triton"
version = repository / "own" / "1"
version.mkdir(parents=True, exist_ok=True)
shutil.copy(here / "triton_model.py", version / "model.py")
given = {"folder": str(folder), "threads": threads}
parameters = "".join(
    f"parameters {{ key: {json.dumps(name)} value: {{ string_value: {json.dumps(value)} }} }}\n"
    for name, value in given.items()
)
(repository / "own" / "config.pbtxt").write_text(CONFIG + parameters, encoding="utf-8")
backends = repository.with_name("triton-backends") / "python"
if not backends.exists():
    shutil.copytree(root / "backends" / "python", backends)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(root / "python_backend_stubs" / python / "triton_python_backend_stub", backends)
    # Its stub drops PYTHONPATH and would take whatever NumPy the system has; with NumPy 2 it reads texts wrongly.
    utilities = backends / "triton_python_backend_utils.py"
    own = f"import sys; sys.path[:0] = {[str(here), str(packages)]!r}\n"
    utilities.write_text(own + utilities.read_text(encoding="utf-8"), encoding="utf-8")
os.environ["LD_LIBRARY_PATH"] = f"{packages / 'nvidia_pytriton.libs'}:{Path(sys.base_prefix) / 'lib'}"
command = [str(root / "bin" / "tritonserver"), "--model-repository", str(repository)]
command += ["--backend-directory", str(backends.parent), "--http-address", "127.0.0.1", "--http-port", port]
command += ["--allow-grpc", "0", "--allow-metrics", "0", "--log-verbose", "0", "--log-info", "0"]
os.execv(command[0], command)  # noqa: S606 - our own arguments
