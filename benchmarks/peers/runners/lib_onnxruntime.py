"""Library peer: ONNX Runtime by hand, see ort_scorer. Arguments: folder, threads, graph."""

import sys
from pathlib import Path

import pipe
from ort_scorer import OrtScorer

folder, threads, graph = sys.argv[1:]
pipe.serve(OrtScorer(Path(folder), int(threads), graph).scores)
