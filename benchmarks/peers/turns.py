"""Lets rerankers take turns: over lists one by one, and over the same random times.

Knows running rerankers, lists and the order of turns; does not know how anything is set up, nor pages.
Invariant: one reranker is busy at a time, and one that fails is noted with its reason while the others go on.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers.figures import Fact, Row, Scores, closed_row, open_row, padding_share, score_errors
from benchmarks.peers.lists import Ask, Lists
from benchmarks.peers.process import (
    ASK_TIMEOUT_S,
    CONNECTIONS,
    Machine,
    PeerError,
    Running,
    Server,
    busy_seconds,
    cpu_seconds,
    resident_mb,
    started,
)
from benchmarks.peers.roster import OURS, PEERS, Level, Peer
from benchmarks.shared.load import Pool, Sample, open_loop, poisson_times, run
from benchmarks.shared.target import REPOSITORY
from bundle.manifest import Manifest

AT_ONCE: Final = 3  # lists that are timed in a turn, after one that wakes threads and caches
PAUSE_S: Final = 0.1  # before a turn: the runtime's threads of whoever was last go on spinning for a while
LEAST_ROUNDS: Final = 3
BOXES_S: Final = {10: 25.0, 50: 80.0, 100: 50.0, 200: 70.0}
BOX_S: Final = 60.0  # of another size
OPEN_SEGMENTS: Final = 3
OPEN_SEGMENT_S: Final = 7.0
OPEN_SIZE: Final = 50
IDLE_S: Final = 2.0


@dataclass(slots=True)
class Run:
    """What is known so far, and what is needed to go on; `foreign` is what other programs took meanwhile, in cores."""

    options: argparse.Namespace
    machine: Machine
    lists: Lists
    asks: Mapping[int, list[Ask]]
    manifest: Manifest
    reference: Scores
    logs: Path
    missing: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    foreign: dict[str, float] = field(default_factory=dict)

    def fail(self, peer: Peer, reason: object) -> None:
        """Note why a peer is not measured."""
        self.missing[peer.key] = str(reason).replace(f"{REPOSITORY}/", "")  # pages name no machine's folders
        print(f"{peer.key}: {reason}", file=sys.stderr, flush=True)


@contextmanager
def all_started(this: Run, level: Level) -> Iterator[tuple[dict[Peer, Running], dict[Peer, int]]]:
    """Start every peer of a level, one after the other, and give them with their process ids.

    At the end note their memory, and how busy they are while nobody asks them.
    """
    first = next(iter(this.asks.values()))[0]
    with ExitStack() as stack:
        running: dict[Peer, Running] = {}
        leaders: dict[Peer, int] = {}
        for peer in chosen(this.options.only, level):
            if peer.key in this.missing:
                continue
            log = this.logs / f"{len(this.facts)}-{level}.log"
            try:
                running[peer], leaders[peer] = stack.enter_context(started(peer, this.machine, first, log))
            except PeerError as error:
                this.fail(peer, error)
                continue
            this.facts[peer.key] = Fact.of(peer, running[peer].startup_s)
            print(f"{peer.key}: ready in {running[peer].startup_s:.1f} s", file=sys.stderr, flush=True)
        yield running, leaders
        before_s = {peer: cpu_seconds(leaders[peer]) for peer in running}
        time.sleep(IDLE_S)
        for peer in running:
            fact = this.facts[peer.key]
            fact.idle_cpu = (cpu_seconds(leaders[peer]) - before_s[peer]) / IDLE_S
            fact.memory_mb = resident_mb(leaders[peer])


def closed(this: Run, level: Level) -> None:
    """Let the peers of a level take turns over the lists of every size, one list at a time."""
    with all_started(this, level) as (running, leaders):
        for size, asks in this.asks.items():
            with watched(this, f"{level}, lists of {size}", leaders.values()):
                times_s = take_turns(this, running, size)
            for peer, took_s in times_s.items():
                padding = padding_share(peer.padding, asks, this.lists)
                manifest = this.manifest if peer.is_gain else None
                scores = this.scores[peer.key]
                reference = {key: logits for key, logits in this.reference.items() if key[0] == size}
                this.rows.append(
                    closed_row(peer, size, took_s, padding, score_errors(scores, reference, manifest))
                )


@contextmanager
def watched(this: Run, what: str, leaders: Iterable[int]) -> Iterator[None]:
    """Note how many cores other programs took meanwhile; figures of a busy machine are worth little."""

    def foreign_s() -> float:
        return busy_seconds() - time.process_time() - sum(map(cpu_seconds, leaders))

    began_s, before_s = time.monotonic(), foreign_s()
    yield
    this.foreign[what] = max(0.0, foreign_s() - before_s) / (time.monotonic() - began_s)
    print(f"{what}: other programs took {this.foreign[what]:.2f} of a core", file=sys.stderr, flush=True)


def take_turns(this: Run, running: dict[Peer, Running], size: int) -> dict[Peer, list[float]]:
    """Return the seconds of each peer's lists; a peer that fails is out from then on."""
    options, asks = this.options, this.asks[size]
    times_s: dict[Peer, list[float]] = {peer: [] for peer in running}
    box_s = BOXES_S.get(size, BOX_S)
    began_s = time.monotonic()
    for turn in range(1_000_000):
        rounds = turn - 1  # the first turn warms up
        if rounds == options.rounds or (
            options.rounds is None and rounds >= LEAST_ROUNDS and time.monotonic() - began_s > box_s
        ):
            break
        places = [(turn * AT_ONCE + step) % len(asks) for step in range(1 + AT_ONCE)]
        order = list(running)
        for peer in order[turn % len(order) :] + order[: turn % len(order)]:
            time.sleep(PAUSE_S)
            try:
                answers = running[peer].ask([asks[place] for place in places])
            except PeerError as error:
                this.fail(peer, f"lists of {size}: {error}")
                del running[peer], times_s[peer]
                continue
            if turn:
                times_s[peer] += [took_s for took_s, _ in answers[1:]]
            known = this.scores.setdefault(peer.key, {})
            known |= {(size, place): scores for place, (_, scores) in zip(places, answers, strict=True)}
    return times_s


def poisson(this: Run) -> None:
    """Send the same requests at the same random times to each server, some seconds each in turns."""
    size = OPEN_SIZE if OPEN_SIZE in this.asks else next(iter(this.asks))
    asks = this.asks[size]
    rate = this.options.rate or half_the_slowest(this.rows, size)
    samples: dict[Peer, list[Sample]] = {}
    with all_started(this, "http") as (running, leaders), watched(this, "poisson", leaders.values()):
        for segment in range(OPEN_SEGMENTS):
            rng = random.Random(f"{this.options.seed}/{segment}")  # noqa: S311 - load, not secrets
            due_times = poisson_times(rate, OPEN_SEGMENT_S, 100_000, rng)
            for peer, server in running.items():
                time.sleep(PAUSE_S)
                assert isinstance(server, Server)
                server.ask(asks[:1])
                samples.setdefault(peer, []).extend(run_open(server, asks, due_times))
    this.rows += [open_row(peer, size, rate, found) for peer, found in samples.items()]


def run_open(server: Server, asks: Sequence[Ask], due_times: Sequence[float]) -> list[Sample]:
    """Send lists at their due times."""

    async def send() -> list[Sample]:
        pool = Pool(server.url, CONNECTIONS, ASK_TIMEOUT_S)
        try:
            await pool.open()
            payloads = [server.payload(pool, ask) for ask in asks]
            return await open_loop(pool, payloads, due_times, lambda _: 1.0)
        finally:
            pool.close()

    return run(send)


def half_the_slowest(rows: Sequence[Row], size: int) -> float:
    """Return half of the lists a second that the slowest server did one by one, so that all can keep up."""
    speeds = [row.pairs_per_s / size for row in rows if row.kind == "http" and row.products == size]
    if not speeds:
        raise PeerError(f"no server was measured with lists of {size}: give --rate, or the phase http")
    return round(min(speeds) / 2, 2)


def chosen(only: Sequence[str], level: Level) -> list[Peer]:
    """Return the peers of a level that are asked for, shelfrank always among them."""
    return [
        peer
        for peer in PEERS
        if peer.level == level
        and (not only or peer.name == OURS or any(word.lower() in peer.key.lower() for word in only))
    ]
