"""What the shipped model makes of queries that a person typed."""

import json

import pytest

from benchmarks.service.by_hand import QUERIES, main


def test_the_shipped_model_finds_the_right_product(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default bundle, served as it ships, puts the right product first in eleven of twelve queries at least."""
    monkeypatch.setattr("sys.argv", ["by_hand.py"])
    main()
    *lines, last = capsys.readouterr().out.splitlines()

    assert len(lines) == len(QUERIES) == 12
    assert json.loads(last)["right"] >= 11
