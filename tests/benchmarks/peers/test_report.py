"""Tests of benchmarks/peers/report.py: tables, page and figure hold what the document holds."""

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.peers import report
from benchmarks.peers.figures import Fact, Row
from benchmarks.peers.roster import BASELINE, OURS, PEERS

BY_KEY = {peer.key: peer for peer in PEERS}


def _row(peer: str, products: int, p50_ms: float, kind: str = "library") -> dict[str, Any]:
    row = Row(
        kind, products, peer, 12, p50_ms, 2 * p50_ms, 3 * p50_ms, 100.0, 1.25, score_error=0.01, spearman=0.9
    )
    return dataclasses.asdict(row)


def _document() -> dict[str, Any]:
    rows = [_row(OURS, 50, 20.0), _row(BASELINE, 50, 60.0), _row(OURS, 10, 5.0), _row(BASELINE, 10, 4.0)]
    rows += [_row(OURS, 50, 21.0, "http"), {**_row(OURS, 50, 22.0, "poisson"), "rate": 2.5}]
    keys = (f"{OURS} (library)", f"{BASELINE} (library)", f"{OURS} (http)")
    return {
        "rows": rows,
        "facts": {key: dataclasses.asdict(Fact.of(BY_KEY[key], 1.5)) for key in keys},
        "foreign_cpu": {"library, lists of 50": 0.03},
        "missing": {"LitServe (http)": "it could not be set up: no network"},
        "packages": {"onnxruntime": {"onnxruntime": "1.2.3", "idna": "9"}},
        "bundle": {"name": "default", "id": "abc"},
        "weights": "bundle",
        "products": "products.jsonl",
        "threads": 2,
        "machine": {"cpu": "a processor", "cores": 2, "load_before": 0.1, "system": "Linux"},
        "versions": {"python": "3.11"},
        "commit": "0123",
    }


def test_medians_stand_beside_shelfrank() -> None:
    """A line a peer in the roster's order, a column a size, and the ratio to shelfrank at the same size."""
    table = report.medians(_document(), "library").splitlines()

    assert "| p50 ms, lists of | 10 | 50 |" == table[0]
    assert f"| {OURS} | 5.0 | 20.0 |" == table[2]
    assert f"| {BASELINE} | 4.0 (0.8x) | 60.0 (3.0x) |" == table[3]


def test_a_peer_that_is_ahead_is_named() -> None:
    """The verdict gives the ratio to the yardstick, and says where shelfrank is behind."""
    verdict = report.goals(_document())

    assert f"{BASELINE} 3.00" in verdict
    assert f"- {BASELINE} is ahead of shelfrank: library, lists of 10" in verdict
    assert "lists of 50\n" not in verdict


def test_the_page_names_everything() -> None:
    """What was not measured is there with its reason, and versions of what matters."""
    page = report.page(_document())

    assert "LitServe (http): it could not be set up: no network" in page
    assert "onnxruntime 1.2.3" in page
    assert "idna" not in page
    assert "2.5 lists/s" in page
    assert "library, lists of 50 0.03" in page
    assert "| 0.0100 | 0.9000 |" in page


def test_page_and_figure_are_written(tmp_path: Path) -> None:
    """The same document gives the same bytes."""
    report.write(_document(), tmp_path)
    figure = (tmp_path / "figures" / "peers.svg").read_bytes()
    report.write(_document(), tmp_path)

    assert figure == (tmp_path / "figures" / "peers.svg").read_bytes()
    assert b"<svg" in figure
    assert report.page(_document()) == (tmp_path / "peers.md").read_text(encoding="utf-8")
