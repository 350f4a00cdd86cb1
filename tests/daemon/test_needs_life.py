"""What jobs wait for, lived through: random submissions, ends, requeues and prunes, held after each
step against the plainest reckoning of what must be so."""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.asked.needs import Need, When
from gpuq.core.model import Exit, Outcome
from gpuq.daemon.store import Store
from tests.daemon.test_needs_in_store import breaches, settle
from tests.stored import BOOT, MONO, NOW, attempt_of, ended, row, run, submit, with_gpus

WORLDS, STEPS = 12, 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "gpuq.db")) as store:
        store.database.value("pragma synchronous = off")  # `check` reads it, and no crash is tried
        yield with_gpus(store)


@dataclass
class Wanted:
    """One thing that one job waits for. Once met it stays met, and so it is with one that was broken by
    a job that is forgotten."""

    jobs: list[int]
    when: When
    is_met: bool = False
    broken_by: int | None = None


@dataclass
class Job:
    needs: list[Wanted] = field(default_factory=list)
    outcome: Outcome | None = None
    attempts: int = 0
    is_pruned: bool = False


FULFILLED = {
    When.OK: lambda outcome: outcome is Outcome.SUCCEEDED,
    When.ANY: lambda outcome: True,
    When.FAIL: lambda outcome: outcome not in (Outcome.SUCCEEDED, Outcome.SKIPPED),
}


class Reckoning:
    """Each job on its own, and all of them looked at after each step."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}

    def settle(self) -> None:
        for _, job in sorted(self.jobs.items()):  # only earlier ones are ever waited for
            for need in job.needs:
                self.judge(need)
            is_broken = any(need.broken_by for need in job.needs)
            if job.outcome is None and is_broken:
                job.outcome = Outcome.SKIPPED
            elif job.outcome is Outcome.SKIPPED and not is_broken and not job.is_pruned:
                job.outcome = None

    def judge(self, need: Wanted) -> None:
        if need.is_met:
            return
        if need.broken_by is not None and self.jobs[need.broken_by].is_pruned:
            return
        there = [job for job in need.jobs if not self.jobs[job].is_pruned]
        ends = {job: self.jobs[job].outcome for job in there}
        breaking = [job for job, end in ends.items() if end and not FULFILLED[need.when](end)]
        if need.broken_by not in breaking:
            need.broken_by = min(breaking, default=None)
        need.is_met = not breaking and all(ends.values())

    def waiting(self) -> list[int]:
        """Those that may start."""
        return [
            number
            for number, job in self.jobs.items()
            if job.outcome is None and all(need.is_met for need in job.needs)
        ]

    def ended(self, *but: Outcome) -> list[int]:
        found = self.jobs.items()
        return [n for n, job in found if job.outcome not in (None, *but) and not job.is_pruned]


class Life:
    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.dice = random.Random(seed)
        self.known = Reckoning()
        self.entries: list[range] = []
        self.now = NOW

    def step(self) -> None:
        self.now += 1
        deeds = [self.submit, self.end, self.end, self.end, self.cancel, self.requeue, self.prune]
        self.dice.choice(deeds)()
        settle(self.store)
        self.known.settle()

    def submit(self) -> None:
        count = self.dice.choice([1, 1, 1, 3, 5])
        chosen = (
            [self.choose(count) for _ in range(self.dice.randint(0, 3))] if self.entries else []
        )
        needs = tuple(dict.fromkeys(need for need in chosen if need is not None))
        elements = Elements(indices=(range(count),)) if count > 1 else None
        jobs = submit(self.store, elements=elements, needs=needs)
        self.entries.append(jobs)
        for place, number in enumerate(jobs):
            wanted = [
                Wanted([need.jobs[place]] if need.each else list(need.jobs), need.when)
                for need in needs
            ]
            self.known.jobs[number] = Job(needs=wanted)

    def choose(self, count: int) -> Need | None:
        entry = self.dice.choice(self.entries)
        if any(self.known.jobs[job].is_pruned for job in entry):
            return None
        when = self.dice.choice(list(When))
        if len(entry) == count > 1 and self.dice.random() < 0.6:
            return Need(jobs=entry, when=when, each=True)
        first = self.dice.choice(entry)
        span = range(first, self.dice.randint(first, entry[-1]) + 1)
        return Need(jobs=span, when=when)

    def end(self) -> None:
        if not (waiting := self.known.waiting()):
            return
        number = self.dice.choice(waiting)
        job = self.known.jobs[number]
        job.attempts += 1
        job.outcome = self.dice.choice([Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED])
        code = 0 if job.outcome is Outcome.SUCCEEDED else 1
        assert self.store.happened.start(attempt_of(number, attempt=job.attempts), now=self.now)
        run(self.store, number, attempt=job.attempts)
        exit = Exit(exit_code=code, ended_at=self.now)
        end = ended(number, exit, job.outcome, attempt=job.attempts)
        self.store.happened.end(end, now=self.now)

    def cancel(self) -> None:
        queued = [entry for entry in self.entries if self.all_queued(entry)]
        if not queued:
            return
        entry = self.dice.choice(queued)
        first = self.dice.choice(entry)
        last = self.dice.randint(first, entry[-1])
        with self.store.transaction():
            for number in range(first, last + 1):
                self.known.jobs[number].outcome = Outcome.CANCELLED
            parts = [range(first, last + 1)]
            if self.store.database.value(ROWS, (first, last)) > 1:
                parts = [range(number, number + 1) for number in range(first, last + 1)]
            for part in parts:
                wish = {"grace_s": 0.0, "actor": "alice", "now": self.now}
                self.store.wished.stop(part[0], part[-1], **wish)
                self.store.happened.cancel(part[0], last=part[-1], actor="alice", now=self.now)

    def all_queued(self, entry: range) -> bool:
        return all(self.known.jobs[number].outcome is None for number in entry)

    def requeue(self) -> None:
        if not (over := self.known.ended()):
            return
        number = self.dice.choice(over)
        self.store.changed.requeue(number, number, actor="alice", now=self.now)
        self.store.returned.requeue(number, now=self.now, boottime=MONO, boot_id=BOOT)
        self.known.jobs[number].outcome = None

    def prune(self) -> None:
        over = self.known.ended(Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED)
        if not over or self.dice.random() < 0.5:
            return
        number = self.dice.choice(over)
        one = range(number, number + 1)
        self.store.wished.prune([one], outputs=False, actor="alice", now=self.now)
        may = self.store.pruned.wished(10)
        assert [remains.id for remains in may] == [number]
        self.store.pruned.forget(may, {}, now=self.now)
        self.known.jobs[number].is_pruned = True


ROWS = "select count(*) from jobs where id between ? and ?"


@pytest.mark.parametrize("seed", range(WORLDS))
def test_it_is_as_anybody_would_reckon(store: Store, seed: int) -> None:
    life = Life(store, seed)
    for step in range(STEPS):
        life.step()
        for number, job in life.known.jobs.items():
            if job.is_pruned:
                continue
            there = row(store, number)
            assert there["outcome"] == job.outcome, f"job {number} after step {step}"
            if job.outcome is None:
                open_needs = sum(not need.is_met for need in job.needs)
                assert there["open_needs"] == open_needs, f"job {number} after step {step}"
        assert breaches(store) == []
