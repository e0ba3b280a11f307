"""The alert rules and the dashboard ask for metrics, labels and values that the service has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bundle import Bundle
from service.scoring.ranker import Ranker
from service.telemetry.drift import Drift
from service.telemetry.meters import CANDIDATE_ROLES
from service.telemetry.metrics import Metrics
from service.telemetry.served import Served
from tests.service.support import FakeSession, fake_app
from tests.service.support import Served as Running
from tests.service.telemetry.test_drift import manifest
from tests.tiny import tiny_files

ROOT = Path(__file__).parent.parent
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))[
        "groups"
    ]
    for rule in group["rules"]
]
BOARD = json.loads((ROOT / "deploy/grafana/shelfrank.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES),
    *(
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in PANELS
        for target in panel["targets"]
    ),
]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SELECTOR = re.compile(r"(?<![\w\"])(shelfrank_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'\s*(\w+)(=~|!=|=)"([^"]*)"\s*')
ADDED = {"instance", "job"}  # labels that Prometheus puts on everything


@pytest.fixture(scope="module")
def samples() -> dict[str, list[dict[str, str]]]:
    """Every series of a service that has all there can be: name -> its label sets."""
    metrics, files = Metrics(), tiny_files()
    bundle = Bundle(manifest(), files, "0" * 12)
    drift = Drift(bundle.manifest, window=1)
    drift.add(np.zeros(1, np.float32), rows=1, truncated=0, tokens=9, unknown=0)
    metrics.count_routes(["/v1/rerank"])
    metrics.served.show([Served("stable", bundle, "fp32", "cpu", drift)])
    for role in CANDIDATE_ROLES:
        metrics.rollout.set_agreement(role, overlap_at_10=1.0, kendall_tau=1.0, score_difference=0.0)
    found: dict[str, list[dict[str, str]]] = {}
    for family in metrics.registry.collect():
        found.setdefault(family.name, [])
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def _matchers(inside: str) -> Iterator[tuple[str, str, str]]:
    for part in filter(None, (part.strip() for part in inside.split(","))):
        found = MATCHER.fullmatch(part)
        assert found is not None, f"not a matcher: {part}"
        yield found[1], found[2], found[3]


def _is_met(labels: dict[str, str], name: str, operator: str, value: str) -> bool:
    if operator == "=":
        return labels.get(name) == value
    if operator == "!=":
        return labels.get(name, "") != value
    return re.fullmatch(value, labels.get(name, "")) is not None


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_exists(expression: str, samples: dict[str, list[dict[str, str]]]) -> None:
    """Each selector of a rule or panel finds a series, and each word of an alternative is one that a label has."""
    selectors = SELECTOR.findall(expression)

    assert selectors
    for name, inside in selectors:
        assert name in samples, f"there is no metric {name}"
        ours = [each for each in _matchers(inside) if each[0] not in ADDED]
        assert any(all(_is_met(labels, *each) for each in ours) for labels in samples[name])
        for label, operator, value in ours:
            for word in value.split("|") if operator == "=~" else [value]:
                assert word in {labels[label] for labels in samples[name]}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_groupings_are_by_labels_that_exist(
    expression: str, samples: dict[str, list[dict[str, str]]]
) -> None:
    """What a rule or panel groups by, or joins on, is a label of the metrics that it names."""
    known = ADDED | {
        label for name, _ in SELECTOR.findall(expression) for labels in samples[name] for label in labels
    }
    asked = re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", expression)

    assert {label.strip() for each in asked for label in each.split(",")} <= known | {"le"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_whole(expression: str) -> None:
    """Brackets pair up, rates are of counters over a range, and histograms are read by their parts."""
    pairs = {")": "(", "]": "[", "}": "{"}
    open_ones: list[str] = []
    for char in re.sub(r'"[^"]*"', '""', expression):
        if char in pairs.values():
            open_ones.append(char)
        elif char in pairs:
            assert open_ones.pop() == pairs[char]

    assert open_ones == []
    ranged = re.findall(r"(?:rate|increase)\(\s*(shelfrank_\w+)(?:\{[^}]*\})?\[", expression)
    assert len(ranged) == len(re.findall(r"\b(?:rate|increase)\(", expression))
    assert all(name.endswith(("_total", "_bucket", "_count", "_sum")) for name in ranged)


def test_there_is_a_rule_for_each_thing_that_is_paged_for() -> None:
    """Readiness, goodput, lateness, overload, degradation, drift, worker errors, cache and canary have a rule."""
    asked = {name for rule in RULES for name, _ in SELECTOR.findall(rule["expr"])}

    assert asked >= {
        "shelfrank_ready",
        "shelfrank_goodput_documents_total",
        "shelfrank_budget_slack_seconds_bucket",
        "shelfrank_rejected_total",
        "shelfrank_degraded_total",
        "shelfrank_drift_psi",
        "shelfrank_worker_errors_total",
        "shelfrank_cache_remote_troubles_total",
        "shelfrank_canary_overlap_at_10",
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_rule_says_how_grave_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    """Each rule has a severity, a duration that Prometheus reads, a summary and a first action, in those words alone."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert set(rule["annotations"]) == {"summary", "action"}


def test_a_real_500_fires_the_alert(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a request that ended in a bug, the series that ShelfrankInternalErrors watches has increased."""
    (rule,) = (rule for rule in RULES if rule["alert"] == "ShelfrankInternalErrors")
    found = re.fullmatch(r"increase\((\w+)\{([^}]*)\}\[\w+\]\) > 0", rule["expr"])
    assert found is not None
    labels = {name: value for name, _, value in _matchers(found[2])}

    async def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Ranker, "rank", bug)
    with Running(fake_app(tiny_bundle, FakeSession())) as served:
        before = served.metric(found[1], **labels)
        answer = served.post({"query": "red", "documents": ["red shoes"]})

        assert answer.status == 500
        assert served.metric(found[1], **labels) > before


def test_the_rules_are_documented() -> None:
    """docs/operations.md has a row for each alert, with its severity, and no other."""
    rows = re.findall(r"^\| `(Shelfrank\w+)` \| (page|ticket) \|", OPERATIONS, re.MULTILINE)

    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


def test_the_board_can_be_imported() -> None:
    """Panels have ids of their own, ask the data source that is chosen, and say what they show."""
    ids = [panel["id"] for panel in BOARD["panels"]]

    assert len(set(ids)) == len(ids)
    assert {each["name"] for each in BOARD["templating"]["list"]} == {"datasource", "instance"}
    for panel in PANELS:
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert all(first < second for first, second in pairwise(letters))


def test_no_panel_hides_another() -> None:
    """No two panels lie over each other."""
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x, y in product(
            range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"]),
            range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"]),
        )
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
