"""Says in which operators of a graph the time goes, on one thread, over the runs that the service makes of lists.

Knows ONNX Runtime's profile; does not know limits or threads.
Invariant: times are the runtime's own, which profiling makes longer; shares of them are what to read.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from benchmarks.engine.workload import Feeds


@dataclass(frozen=True, slots=True)
class Spent:
    """Milliseconds a list in one kind of operator, their share of all, and calls a list."""

    operator: str
    ms: float
    share: float
    calls: float


def profile(graph: bytes, runs: Sequence[Feeds], *, lists: int, repeats: int = 3) -> list[Spent]:
    """Replay the runs that `lists` lists were computed in; return where the time went, most first."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_mem_pattern = False
        options.enable_profiling = True
        options.log_severity_level = 3
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(repeats):
            for feeds in runs:
                session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent_us: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            spent_us[operator] += event["dur"]
            calls[operator] += 1
    whole_us, count = sum(spent_us.values()), lists * repeats
    return [
        Spent(operator, took_us / 1_000 / count, took_us / whole_us, calls[operator] / count)
        for operator, took_us in sorted(spent_us.items(), key=lambda item: -item[1])
    ]


def format_table(rows: Sequence[Spent], least_share: float = 0.01) -> str:
    """Return the operators as a Markdown table; those of less than `least_share` together in a last line."""
    shown = [row for row in rows if row.share >= least_share]
    rest = [row for row in rows if row.share < least_share]
    others = Spent(
        "all others",
        sum(row.ms for row in rest),
        sum(row.share for row in rest),
        sum(row.calls for row in rest),
    )
    lines = ["| operator | ms a list | share | calls a list |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {row.operator} | {row.ms:.3f} | {row.share:.1%} | {row.calls:.0f} |" for row in (*shown, others)
    ]
    return "\n".join(lines)
