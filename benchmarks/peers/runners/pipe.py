"""Lets a program time a reranking library over standard input and output, one list a line.

Knows lists and a clock; does not know what scores them. Imports the standard library alone: it runs with every peer.
Invariant: only answers go to standard output, whatever a library prints.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

_answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
os.dup2(2, 1)  # what libraries print goes to standard error


def serve(score: Callable[[str, list[Any]], Sequence[float]]) -> None:
    """Score one pair to be ready, say so, then answer each list with its seconds and its scores in order."""
    score("warm up", ["a first text"])
    _answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        began_s = time.perf_counter()
        scores = score(asked["query"], asked["documents"])
        took_s = time.perf_counter() - began_s
        _answers.write(json.dumps({"seconds": took_s, "scores": [float(each) for each in scores]}) + "\n")
