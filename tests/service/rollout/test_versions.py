"""Tests of service/rollout/versions.py."""

import gc
import json
import weakref
from pathlib import Path

import pytest

from service.boot import load_model
from service.rollout.trial import Agreement, is_sampled
from service.rollout.versions import Candidate, Version, Versions
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.tiny import build_tiny

NAMES = ("one", "two", "three", "four")
QUERIES = [f"query {number}" for number in range(2_000)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of one model in four versions."""
    root = tmp_path_factory.mktemp("versions")
    for number, name in enumerate(NAMES, start=1):
        build_tiny(root, name, version=f"{number}", seed=number)
    return root


def load(root: Path, name: str) -> Version:
    """A bundle that is ready to be served."""
    return Version(load_model(name, Settings(models_root=root, workers=1)), name)


@pytest.fixture
def one(root: Path) -> Version:
    """Version 1."""
    return load(root, "one")


@pytest.fixture
def two(root: Path) -> Version:
    """Version 2."""
    return load(root, "two")


@pytest.fixture
def three(root: Path) -> Version:
    """Version 3."""
    return load(root, "three")


def test_a_canary_has_its_share_and_keeps_its_queries(one: Version, two: Version) -> None:
    """About a tenth of the queries go to the canary, the same ones each time; all others to the stable model."""
    versions = Versions(one)
    versions.admit("canary", Candidate(two, 0.1))
    chosen = [versions.choose(None, query) for query in QUERIES]

    assert chosen == [versions.choose(None, query) for query in QUERIES]
    assert {one, two} == set(chosen)
    assert 0.07 < chosen.count(two) / len(chosen) < 0.13


def test_who_names_a_model_gets_it(one: Version, two: Version, three: Version) -> None:
    """A canary of all requests answers none that name another model; newcomers can be named themselves."""
    versions = Versions(one, [three])
    versions.admit("canary", Candidate(two, 1.0))

    assert [two, one, one, two, three] == [
        versions.choose(name, "mug") for name in (None, "tiny", "tiny@1", "tiny@2", "tiny@3")
    ]
    assert versions.choose("tiny@4", "mug") is None
    assert versions.by_name(None) is one


def test_a_shadow_answers_nobody(one: Version, two: Version) -> None:
    """Even a shadow of all requests is never chosen unless it is named."""
    versions = Versions(one)
    versions.admit("shadow", Candidate(two, 1.0))

    assert {one} == {versions.choose(None, query) for query in QUERIES}
    assert versions.choose("tiny@2", "mug") is two


def test_roles_are_told(one: Version, two: Version, three: Version) -> None:
    """The list of models and each model's facts say in which role it is, the stable one first."""
    versions = Versions(one, [three])
    versions.admit("canary", Candidate(two, 0.5))
    told = json.loads(versions.list_json())["data"]

    assert [("tiny@1", "stable"), ("tiny@2", "canary"), ("tiny@3", "named")] == [
        (model["id"], model["role"]) for model in told
    ]
    assert versions.facts(two).role == "canary"


def test_a_change_of_the_stable_model_begins_trials_anew(one: Version, two: Version, three: Version) -> None:
    """Newcomers stay with their shares, but what was compared with the old model is forgotten."""
    versions = Versions(one)
    canary = Candidate(two, 0.25)
    canary.trial.compared(Agreement(1.0, 1.0, 0.0))
    versions.admit("canary", canary)
    versions.replace(three)
    kept = versions.candidates["canary"]

    assert (three, two, 0.25, 0) == (versions.stable, kept.version, kept.share, kept.trial.lists)
    assert versions.by_name("tiny") is three
    assert versions.by_name("tiny@1") is None


def test_a_model_has_one_role(one: Version, two: Version, root: Path) -> None:
    """A model of the same name and version is taken in any role but the one that it would replace."""
    versions = Versions(one)
    versions.admit("canary", Candidate(two, 0.5))
    again = load(root, "two").model

    assert [True, False, True] == [versions.is_taken(again, role) for role in ("stable", "canary", "shadow")]


def test_what_is_gone_is_returned_once(one: Version, two: Version) -> None:
    """A newcomer that is dismissed is given back, and after that there is none."""
    versions = Versions(one)
    canary = Candidate(two, 1.0)
    versions.admit("canary", canary)

    assert (canary, None) == (versions.dismiss("canary"), versions.dismiss("canary"))
    assert versions.choose(None, "mug") is one


def test_the_metrics_follow(one: Version, two: Version, three: Version) -> None:
    """A scrape shows who is served in which role after each change."""
    metrics, versions = Metrics(), Versions(one)
    versions.report_to(metrics)
    versions.admit("canary", Candidate(two, 0.5))
    versions.replace(three)
    samples = next(iter(metrics.served.collect())).samples

    assert {("3", "stable"), ("2", "canary")} == {
        (sample.labels["version"], sample.labels["role"]) for sample in samples
    }


@pytest.mark.parametrize("role", ["stable", "canary"])
def test_a_model_that_is_replaced_is_let_go(root: Path, role: str) -> None:
    """Nothing here refers to a model that has lost its role, so the runtime's memory goes back."""
    metrics, versions = Metrics(), Versions(load(root, "one"))
    versions.report_to(metrics)
    versions.admit("canary", Candidate(load(root, "two"), 0.5))
    held = versions.stable if role == "stable" else versions.candidates["canary"].version
    session = weakref.ref(held.model.sessions[0]._session)  # type: ignore[attr-defined]
    del held
    gc.collect()
    assert session() is not None
    if role == "stable":
        versions.replace(load(root, "three"))
    else:
        versions.admit("canary", Candidate(load(root, "three"), 0.5))
    gc.collect()

    assert session() is None


def test_the_share_is_that_of_the_query(one: Version, two: Version) -> None:
    """Who is in the canary's share is said by the query's text alone, the same in every process and replica."""
    versions = Versions(one)
    versions.admit("canary", Candidate(two, 0.3))

    for query in QUERIES[:100]:
        assert (versions.choose(None, query) is two) == is_sampled(query, 0.3, "canary")
