"""Tests of service/scoring/scheduler.py: single promises, and a machine that plays it against a simple oracle."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.scoring.queue_entry import WORTHWHILE_TOKENS, QueueEntry, Run, Tokenize
from service.scoring.scheduler import MAX_RUN_TOKENS, Scheduler

WEIGHTS = {"default": 1.0, "web": 3.0}
LATER_S = 1e9


def _seconds(tokens: int, rows: int) -> float:
    return 1e-4 * tokens + 1e-4 * rows + 1e-3


def _entry(name: str, level: int = 0, tenant: str = "default", **changes: object) -> QueueEntry[str]:
    told = {"deadline_s": LATER_S, "cost_s": 0.01, "model": "m", "seconds": _seconds} | changes
    return QueueEntry(owner=name, level=level, tenant=tenant, **told)  # type: ignore[arg-type]


def _queued(scheduler: Scheduler[str], entry: QueueEntry[str], lengths: list[int]) -> QueueEntry[str]:
    """Queue a request and have it tokenized."""
    scheduler.add(entry)
    task = scheduler.next(0.0)
    assert isinstance(task, Tokenize)
    assert task.entry is entry
    scheduler.tokenized(entry, lengths)
    return entry


def _runs(scheduler: Scheduler[str], now_s: float = 0.0) -> list[Run[str]]:
    """Take everything out; nothing may be left to tokenize."""
    found = []
    while (task := scheduler.next(now_s)) is not None:
        assert isinstance(task, Run)
        found.append(task)
    return found


def _names(run: Run[str]) -> list[str]:
    return [entry.owner for entry, _ in run.parts]


def test_a_list_is_cut_by_length_and_for_all_workers() -> None:
    """Runs hold rows of one length, the biggest first, none larger than a fair share of what was waiting."""
    scheduler = Scheduler[str](2, {"default": 1.0}, 1)
    _queued(scheduler, _entry("list"), [32] * 30 + [48] * 15 + [16] * 5)
    runs = _runs(scheduler)

    assert 32 == runs[0].length
    assert sorted(range(50)) == sorted(row for run in runs for _, rows in run.parts for row in rows)
    assert max(run.length * run.rows for run in runs) <= 30 * 32 // 2 + 32


def test_a_short_list_is_not_cut() -> None:
    """What is computed in less than a run is worth stays together, however many workers there are."""
    scheduler = Scheduler[str](16, {"default": 1.0}, 1)
    _queued(scheduler, _entry("list"), [24] * 10)

    assert [10] == [run.rows for run in _runs(scheduler)]


def test_a_run_is_bounded() -> None:
    """No run has more tokens than the bound, whatever the list."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 1)
    _queued(scheduler, _entry("list"), [72] * 2_000)

    assert max(run.length * run.rows for run in _runs(scheduler)) <= MAX_RUN_TOKENS


def test_small_requests_share_a_run() -> None:
    """Rows of one length from several requests are computed together while that is worth a run."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 1)
    for number in range(40):
        scheduler.add(_entry(str(number)))
    for _ in range(40):
        task = scheduler.next(0.0)
        if isinstance(task, Run):
            break
        assert isinstance(task, Tokenize)
        scheduler.tokenized(task.entry, [16])

    assert isinstance(task, Run)
    assert WORTHWHILE_TOKENS // 16 == task.rows
    assert [str(number) for number in range(task.rows)] == _names(task)


def test_models_are_not_mixed() -> None:
    """Requests of different models never share a run."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 1)
    _queued(scheduler, _entry("old", model="old"), [16])
    _queued(scheduler, _entry("new", model="new"), [16])

    assert [("old", ["old"]), ("new", ["new"])] == [(run.model, _names(run)) for run in _runs(scheduler)]


def test_levels_come_one_after_another() -> None:
    """What is urgent is computed first although it came last."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 3)
    for level in (2, 1, 0):
        scheduler.add(_entry(str(level), level=level))
    order = []
    while (task := scheduler.next(0.0)) is not None:
        if isinstance(task, Tokenize):
            scheduler.tokenized(task.entry, [16 + 8 * task.entry.level] * 40)
        else:
            order.append(_names(task)[0])

    assert ["0", "1", "2"] == sorted(set(order), key=order.index)


def test_a_flood_of_one_tenant_leaves_the_other_its_share() -> None:
    """With a hundred requests of one tenant before it, the other one's requests come as its weight says."""
    scheduler = Scheduler[str](1, WEIGHTS, 1)
    for number in range(100):
        scheduler.add(_entry(f"flood {number}"))
    for number in range(9):
        scheduler.add(_entry(f"web {number}", tenant="web"))
    order: list[str] = []
    while len(order) < 40 and (task := scheduler.next(0.0)) is not None:
        if isinstance(task, Tokenize):
            scheduler.tokenized(task.entry, [64] * 8)
        else:
            order.append(_names(task)[0].split()[0])

    assert 9 <= Counter(order[:14])["web"] <= 11


def test_nobody_saves_up_a_share() -> None:
    """A tenant that was away for long does not take the workers for itself when it comes back."""
    scheduler = Scheduler[str](1, WEIGHTS, 1)
    for _ in range(50):
        _queued(scheduler, _entry("flood"), [64] * 8)
        assert _runs(scheduler)
    for number in range(20):
        scheduler.add(_entry(f"flood {number}"))
        scheduler.add(_entry(f"web {number}", tenant="web"))
    order: list[str] = []
    while len(order) < 8 and (task := scheduler.next(0.0)) is not None:
        if isinstance(task, Tokenize):
            scheduler.tokenized(task.entry, [64] * 8)
        else:
            order.append(_names(task)[0].split()[0])

    assert 1 <= Counter(order)["flood"] <= 3


def test_a_row_that_cannot_be_done_in_time_is_not_begun() -> None:
    """Near its deadline a request gets as many rows as fit, and then none."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 1)
    entry = _queued(scheduler, _entry("list", deadline_s=1.0), [16] * 16)
    near_s = 1.0 - _seconds(16 * 4, 4)

    run = scheduler.next(near_s - 1e-9)

    assert isinstance(run, Run)
    assert 4 == run.rows
    assert scheduler.next(1.0 - 1e-4) is None
    assert entry.is_over


def test_a_dropped_request_costs_nothing() -> None:
    """After a drop nothing of it is handed out, and nobody waits for it."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 1)
    entry = _queued(scheduler, _entry("gone"), [16] * 64)
    scheduler.drop(entry)

    assert scheduler.next(0.0) is None
    assert abs(scheduler.finish_s(0, "default", 0.0)) < 1e-12


def test_the_prediction_counts_what_comes_before() -> None:
    """A new request waits for more urgent levels and its own tenant, and shares with the others."""
    scheduler = Scheduler[str](2, WEIGHTS, 2)
    scheduler.add(_entry("urgent", level=0, cost_s=1.0))
    scheduler.add(_entry("own", level=1, tenant="web", cost_s=2.0))
    scheduler.add(_entry("other", level=1, cost_s=8.0))

    assert 0.5 * (1.0 + 2.0 + 1.0 + 3.0 / 3) == scheduler.finish_s(1, "web", 1.0)
    assert 0.5 * (1.0 + 8.0 + 1.0 + 2.0) == scheduler.finish_s(1, "default", 1.0)
    assert 0.5 * (1.0 + 1.0 / 3) == scheduler.finish_s(0, "web", 1.0)
    assert 0.5 * 11.0 == scheduler.backlog_s


class AgainstAnOracle(RuleBasedStateMachine):
    """Random requests, drops, failures and time, against plain sets of rows that are owed."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler[str](2, WEIGHTS, 3)
        self.now_s = 0.0
        self.owed: dict[QueueEntry[str], set[int]] = {}
        self.lengths: dict[QueueEntry[str], list[int]] = {}
        self.away: list[QueueEntry[str]] = []
        self.running: list[Run[str]] = []

    @rule(
        level=st.integers(0, 2),
        tenant=st.sampled_from(sorted(WEIGHTS)),
        model=st.sampled_from("ab"),
        lengths=st.lists(st.sampled_from([8, 16, 24, 72]), max_size=30),
        budget_s=st.floats(0.0, 0.5),
    )
    def arrive(self, level: int, tenant: str, model: str, lengths: list[int], budget_s: float) -> None:
        """A request comes in."""
        entry = _entry(
            str(len(self.owed)), level, tenant, model=model, deadline_s=self.now_s + budget_s, cost_s=0.01
        )
        self.owed[entry], self.lengths[entry] = set(range(len(lengths))), lengths
        self.scheduler.add(entry)

    @rule()
    def work(self) -> None:
        """A worker asks for its next task."""
        task = self.scheduler.next(self.now_s)
        if task is None:
            ready = [e for e, rows in self.owed.items() if rows and not e.is_over and e not in self.away]
            assert not ready, "a worker is idle while a row waits"
        elif isinstance(task, Tokenize):
            assert task.entry.deadline_s > self.now_s
            self.away.append(task.entry)
        else:
            self._check(task)
            self.running.append(task)

    def _check(self, run: Run[str]) -> None:
        first = run.parts[0][0]
        assert _seconds(run.length, 1) <= first.deadline_s - self.now_s + 1e-9
        better = [
            e for e, rows in self.owed.items()
            if rows and e.level < first.level and not e.is_over and e.is_tokenized and e.deadline_s > self.now_s
        ]  # fmt: skip
        assert not better, "a less urgent request was preferred"
        for entry, rows in run.parts:
            assert (entry.model, {run.length}) == (run.model, {self.lengths[entry][row] for row in rows})
            assert not entry.is_over
            assert entry.deadline_s > self.now_s
            assert set(rows) <= self.owed[entry], "a row was handed out twice"
            assert len(set(rows)) == len(rows) > 0
            self.owed[entry] -= set(rows)
        assert run.length * run.rows <= max(MAX_RUN_TOKENS, run.length)

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def tokenize(self, data: st.DataObject) -> None:
        """Tokenizing ends, with rows or with an error."""
        entry = self.away.pop(data.draw(st.integers(0, len(self.away) - 1)))
        if data.draw(st.booleans()):
            self.scheduler.tokenized(entry, self.lengths[entry])
        else:
            self.scheduler.tokenization_failed(entry)
            assert entry.is_over

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A run ends, or fails and is done again row by row."""
        run = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.scheduler.done(run)
        if run.rows > 1 and data.draw(st.booleans()):
            singles = self.scheduler.split_failed(run)
            assert all(single.rows == 1 for single in singles)
            self.running += singles

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client hangs up."""
        self.scheduler.drop(data.draw(st.sampled_from(list(self.owed))))

    @rule(seconds=st.floats(0.0, 0.2))
    def wait(self, seconds: float) -> None:
        """Time goes on."""
        self.now_s += seconds

    @invariant()
    def costs_add_up(self) -> None:
        """What is predicted to be left is what waits and runs, never negative, and nothing when all is done."""
        assert self.scheduler.backlog_s >= 0
        waiting_s = sum(entry.cost_s for entry in self.owed if not entry.is_over)
        running_s = sum(run.cost_s for run in self.running)
        assert abs(self.scheduler.backlog_s - (waiting_s + running_s) / 2) < 1e-6


AgainstAnOracle.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAgainstAnOracle = AgainstAnOracle.TestCase


def test_a_gpu_gets_the_rows_of_many_requests_at_once() -> None:
    """Where far more tokens make a run worthwhile, one takes a length of all that waits, and no list is cut for workers."""
    scheduler = Scheduler[str](2, {"default": 1.0}, 1, fill_tokens=16_384)
    for number in range(8):
        _queued(scheduler, _entry(f"list {number}"), [48] * 30 + [32] * 20)
    runs = _runs(scheduler)

    assert [(48, 8 * 30), (32, 8 * 20)] == [(run.length, run.rows) for run in runs]
    assert all(len(_names(run)) == 8 for run in runs)


def test_no_run_on_a_gpu_is_larger_than_was_set() -> None:
    """Rows beyond the tokens of a run wait for the next one."""
    scheduler = Scheduler[str](1, {"default": 1.0}, 1, fill_tokens=65_536)
    for number in range(4):
        _queued(scheduler, _entry(f"list {number}"), [64] * 600)

    assert max(run.length * run.rows for run in _runs(scheduler)) <= 65_536


def test_an_empty_queue_has_no_backlog() -> None:
    """What was added to the backlog is gone when all is done, to the last bit, or nothing would ever be the first."""
    scheduler = Scheduler[str](2, WEIGHTS, 2)
    for number in range(60):
        lengths = [8 * (1 + (number * row) % 7) for row in range(1 + number % 13)]
        _queued(scheduler, _entry(str(number), cost_s=0.1 / (3 + number)), lengths)
        for run in _runs(scheduler):
            assert scheduler.backlog_s > 0.0
            scheduler.done(run)

        assert scheduler.backlog_s == 0.0
