"""Tests of benchmarks/peers/compare.py and its turns: real rerankers of this environment, and what becomes of those that fail."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import compare
from benchmarks.peers.figures import logits_of, sigmoid
from benchmarks.peers.lists import Ask, Lists
from benchmarks.peers.process import Machine, PeerError, Running, resident_mb, started
from benchmarks.peers.roster import ENVIRONMENTS, OURS, PEERS, Peer
from benchmarks.peers.turns import Run, chosen, half_the_slowest, take_turns
from benchmarks.shared.target import REPOSITORY
from bundle import PairEncoder, Product, read_bundle
from bundle.rows import assemble
from service.engine.sessions import Engine, open_sessions
from training.export.checkpoint import write_tokenizer

BUNDLE = read_bundle(REPOSITORY / "models", "tiny")
LISTS = Lists(BUNDLE)
ASK = LISTS.make(10, 1, seed=1)[0]
HERE = [peer for peer in PEERS if peer.environment in {None, "onnxruntime"}]
"""Peers that need nothing beyond what tests have."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """This interpreter as the peers' environment, and the tiny bundle's own graph as their model."""
    folder = tmp_path_factory.mktemp("peers")
    (folder / "env").mkdir()
    (folder / "env" / "onnxruntime").symlink_to(sys.prefix)
    for path in ("int8/model.onnx", "fp32/onnx/model.onnx"):
        file = folder / "models" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(BUNDLE.files[BUNDLE.manifest.graph(None).file])
    for name in ("int8", "fp32"):
        write_tokenizer(BUNDLE, folder / "models" / name)
    return Machine(folder / "models", folder / "env", "tiny", 2, BUNDLE.manifest.text.max_length)


@pytest.mark.parametrize("peer", HERE, ids=lambda peer: peer.key)
def test_every_peer_gives_the_model_s_scores(peer: Peer, machine: Machine, tmp_path: Path) -> None:
    """Over its pipe or over HTTP, in the order of the list, whatever its batches: the graph's scales are constants."""
    contract = BUNDLE.manifest.text
    rows = PairEncoder(BUNDLE.files[BUNDLE.manifest.tokenizer], contract).encode(
        ASK.query, [Product(**each) for each in ASK.products]
    )
    engine: Engine = "auto" if peer.name == OURS else "onnxruntime"
    (session,) = open_sessions(BUNDLE, precision=None, workers=1, engine=engine)
    wanted = sigmoid(session.run(assemble(rows, contract.template)))
    with started(peer, machine, ASK, tmp_path / "log") as (running, pid):
        (took_s, scores), _ = running.ask([ASK, ASK])
        memory_mb = resident_mb(pid)
    found = sigmoid(logits_of(scores, BUNDLE.manifest)) if peer.is_gain else np.asarray(scores)

    assert np.allclose(wanted, found, atol=1e-4)
    assert 0 < took_s < running.startup_s + 60
    assert memory_mb > 10 > resident_mb(pid) == 0, "nothing is left of it"


def test_a_peer_that_does_not_start_says_why(machine: Machine, tmp_path: Path) -> None:
    """The reason holds the last line that it wrote."""
    peer = replace(HERE[1], command=("{python}", "-c", "raise SystemExit('no such model')"))

    with pytest.raises(PeerError, match="no such model"), started(peer, machine, ASK, tmp_path / "log"):
        pass


class _Fake:
    """Takes as many seconds as there are products, and fails from its nth list on."""

    startup_s = 0.0

    def __init__(self, name: str, seen: list[str], lists: int = 1_000) -> None:
        self._name, self._seen, self._left = name, seen, lists

    def ask(self, asks: list[Ask]) -> list[tuple[float, list[float]]]:
        self._seen.append(self._name)
        self._left -= len(asks)
        if self._left < 0:
            raise PeerError("it has ended")
        return [(float(len(ask.texts)), [0.5] * len(ask.texts)) for ask in asks]


def _run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("benchmarks.peers.turns.PAUSE_S", 0.0)
    options = compare._parser().parse_args(["--rounds", "2"])
    return Run(options, machine, LISTS, {10: LISTS.make(10, 4, seed=1)}, BUNDLE.manifest, {}, Path(), {})


def test_peers_take_turns_and_begin_in_turns(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a turn in a round, another one first each time; the warm-up and a turn's first list are not timed."""
    this, seen = _run(machine, monkeypatch), []
    running: dict[Peer, Running] = {peer: _Fake(peer.name, seen) for peer in PEERS[:2]}
    times_s = take_turns(this, running, 10)
    first, second = (peer.name for peer in PEERS[:2])

    assert [first, second, second, first, first, second] == seen
    assert {peer: [10.0] * 6 for peer in PEERS[:2]} == times_s


def test_a_peer_that_fails_is_out_and_the_others_go_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted with its reason, and has no row of half a run."""
    this = _run(machine, monkeypatch)
    running: dict[Peer, Running] = {PEERS[0]: _Fake("a", []), PEERS[1]: _Fake("b", [], lists=5)}
    times_s = take_turns(this, running, 10)

    assert [PEERS[0]] == list(times_s)
    assert {PEERS[1].key: "lists of 10: it has ended"} == this.missing


def test_some_can_be_chosen_and_shelfrank_is_always_among_them() -> None:
    """Parts of names choose, in any case."""
    assert [OURS, "FlashRank"] == [peer.name for peer in chosen(["flash"], "library")]
    assert 2 <= len(chosen([], "http"))


def test_every_environment_of_the_roster_is_described() -> None:
    """A peer names one that can be set up, or none."""
    assert {peer.environment for peer in PEERS} - {None} == set(ENVIRONMENTS)
    assert len(PEERS) == len({peer.key for peer in PEERS})


def test_the_rate_needs_a_server_that_was_measured() -> None:
    """Without one there is nothing to derive it from."""
    with pytest.raises(PeerError, match="give --rate"):
        half_the_slowest([], 50)


def test_what_is_not_set_up_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the environment that makes the graphs there is nothing to compare, and the command says so."""
    code = compare.main(["--skip-setup", "--cache", str(tmp_path)])

    assert compare.FAILED == code
    assert "it is not set up" in capsys.readouterr().err
