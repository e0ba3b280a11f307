"""Compares the service's GPU engine with torch and sentence-transformers on the same card, in half precision.

Knows environments, processes and the table; does not know how an engine is asked.
Invariant: without a GPU nothing is measured and nothing is installed.

    python benchmarks/engine/gpu.py                         makes .venv-gpu once, then measures: some ten minutes
    python benchmarks/engine/gpu.py --tensorrt              with TensorRT too, whose libraries have to be there

For lists of 50 and 200 products, alone and 16 at once, of the default bundle's model and of BERT-base with random weights:
milliseconds from texts to logits, pairs per second, the GPU's utilisation and memory, and the largest distance of a logit
to torch in fp32. The last line is one JSON document. Exit codes: 0 measured, 1 could not measure, 3 no GPU.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.target import REPOSITORY, describe_commit, describe_machine

MEASURED, FAILED, NO_GPU = 0, 1, 3
ENVIRONMENT: Final = REPOSITORY / ".venv-gpu"
MODELS: Final = ("default", "bert-base")
PEERS: Final = ("torch", "sentence-transformers")
_PACKAGES: Final = (  # beside requirements/gpu.lock; torch is the build for CUDA, and its pins of CUDA libraries win
    "torch==2.13.0",
    "transformers>=5.20,<5.24",
    "sentence-transformers>=5,<7",
    "onnx>=1.20,<1.24",
    "onnxscript>=0.6,<0.8",
    "safetensors>=0.6,<0.9",
)
_TIMEOUT_S: Final = 3_600.0
_HEADS: Final = (
    "model",
    "engine",
    "products",
    "lists",
    "p50 ms",
    "p95 ms",
    "pairs/s",
    "GPU %",
    "GPU MiB",
    "worst",
)


def find_gpu() -> str | None:
    """Return the name, driver and memory of the first GPU; None if there is none, or no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        output = subprocess.run([tool, *query], check=True, capture_output=True, text=True, timeout=30).stdout  # noqa: S603 - the driver's own tool
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(output.splitlines()), None)


def make_environment(folder: Path) -> Path:
    """Return the Python of an environment with all engines: the lock of the GPU image, then the others, once."""
    install = [
        str(REPOSITORY / "requirements/install"),
        str(folder),
        str(REPOSITORY / "requirements/gpu.lock"),
    ]
    subprocess.run(install, check=True, timeout=_TIMEOUT_S)  # noqa: S603 - ours
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *_PACKAGES], check=True, timeout=_TIMEOUT_S)  # noqa: S603 - ours
        (folder / "complete").touch()
    return python


def measure(python: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of every model and engine, each engine in a process of its own."""
    engines = ["shelfrank", *(["shelfrank, TensorRT"] if options.tensorrt else []), *PEERS]
    found: list[dict[str, Any]] = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as scratch:
            _run(python, "-c", _MAKE, model, str(options.bundle), scratch)
            for engine in engines:
                told = ["--folder", scratch, "--model", model, "--engine", engine, "--device", options.device]
                told += ["--seconds", str(options.seconds), "--products", *map(str, options.products)]
                output = _run(python, str(Path(__file__).with_name("gpu_run.py")), *told)
                found += json.loads(output.splitlines()[-1])
    return found


_MAKE: Final = """
import sys
from pathlib import Path
from bundle import read_bundle
from benchmarks.engine.gpu_models import make_model
from benchmarks.engine.gpu_run import write_reference
source = Path(sys.argv[2])
folder = Path(sys.argv[3])
make_model(sys.argv[1], read_bundle(source.parent, source.name), folder)
write_reference(folder)
"""


def _run(python: Path, *arguments: str) -> str:
    """Run a program of this repository in the environment and return what it printed; its errors pass through."""
    command = [str(python), *arguments]
    return subprocess.run(  # noqa: S603 - ours
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, timeout=_TIMEOUT_S
    ).stdout


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table; of a model and load, the engine of most pairs per second comes first."""
    order = sorted(rows, key=lambda row: (row["model"], row["products"], row["lists"], -row["pairs_per_s"]))
    lines = ["| " + " | ".join(_HEADS) + " |", "| --- | --- |" + " ---: |" * (len(_HEADS) - 2)]
    for row in order:
        cells = [row["model"], row["engine"], str(row["products"]), str(row["lists"])]
        cells += [f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}", f"{row['pairs_per_s']:,.0f}"]
        cells += ["-" if row[name] is None else f"{row[name]:.0f}" for name in ("gpu_percent", "gpu_mib")]
        lines.append("| " + " | ".join([*cells, f"{row['worst']:.1e}"]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table and the JSON; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle", type=Path, default=REPOSITORY / "models/default", help="tokenizer and model `default`"
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="default, bert-base, small")
    parser.add_argument("--products", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line of the table")
    parser.add_argument("--tensorrt", action="store_true", help="measure device=tensorrt too")
    parser.add_argument(
        "--python", type=Path, help="an environment that has all engines, in place of .venv-gpu"
    )
    parser.add_argument(
        "--device",
        choices=["cuda", "cpu"],
        default="cuda",
        help="cpu tries the program out; its figures mean nothing",
    )
    options = parser.parse_args(arguments)
    gpu = find_gpu() if options.device == "cuda" else "none: tried out on the CPU, the figures mean nothing"
    if gpu is None:
        print(
            "There is no NVIDIA GPU here, or nvidia-smi does not find it; nothing was measured.",
            file=sys.stderr,
        )
        return NO_GPU
    try:
        rows = measure(options.python or make_environment(ENVIRONMENT), options)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"Could not measure: {error}", file=sys.stderr)
        return FAILED
    print(format_table(rows))
    print(
        json.dumps({"gpu": gpu, "machine": describe_machine(), "commit": describe_commit(), "figures": rows})
    )
    return MEASURED


if __name__ == "__main__":
    sys.exit(main())
