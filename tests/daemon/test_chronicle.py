"""News becomes facts once, whole and in order, and each end is what it is called."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import EndCause, Exit, JobState, LeaseState, Outcome, Request
from gpuq.core.policy import Policy
from gpuq.daemon.chronicle import MOST_RETURNS, Chronicle
from gpuq.daemon.clock import Clock
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.supervisor import Exited, MainEnded, Running
from gpuq.daemon.usage import Usage
from gpuq.daemon.watchers import Watchers
from tests import stored
from tests.builders import GIB, gpu
from tests.stored import MONO, NOW, full, lease, row, run, start, step, submit, submit_one

BOOTTIME = 9000.0


class StoppedClock(Clock):
    def wall(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return MONO

    def boottime(self) -> float:
        return BOOTTIME


class Blind:
    """A lookout that has not read anything yet, unless it is told what."""

    def __init__(self, store: Store) -> None:
        self.gpus: tuple[Gpu, ...] | None = None
        self.usage = Usage(store, Policy, StoppedClock())
        self.told = 0
        self.doubts: list[str] = []

    def tell_leases(self) -> None:
        self.told += 1

    def doubt(self, why: str) -> None:
        self.doubts.append(why)


class Told(Watchers):
    """Keeps what was published."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.published: list[tuple[int, str, str]] = []

    def publish(self, job: int, moment: str) -> None:
        state = self.store.current.state(job) or "gone"
        self.published.append((job, moment, state))
        super().publish(job, moment)


class Desk:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.lookout = Blind(store)
        self.told = Told(store)
        self.chronicle = Chronicle(
            store,
            StoppedClock(),
            lambda: Policy(cpu_slots=8),
            self.told,
            self.lookout,  # type: ignore[arg-type]
            lambda job, attempt: None,
        )

    def take_in(self) -> bool:
        return stored.take_in(self.store, self.chronicle)

    def hear(self, *news: Running | MainEnded | Exited) -> None:
        self.chronicle.inbox += news
        while self.take_in():
            pass

    def exits(self, job: int, exit: Exit | None, attempt: int = 1) -> dict[str, Any]:
        self.hear(Exited(job=job, attempt=attempt, exit=exit))
        return row(self.store, job)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with closing(Store(":memory:")) as store:
        yield Desk(stored.with_gpus(store))


def runs(desk: Desk, *leases: Any, **asked: Any) -> int:
    job = submit_one(desk.store, **asked)
    start(desk.store, job, *[lease(job, one) for one in leases])
    run(desk.store, job)
    return job


def running(job: int, mono: float = MONO - 1) -> Running:
    return Running(job=job, attempt=1, pid=4243, pid_start=100, at=NOW, mono=mono)


CODE = Exit(exit_code=3, ended_at=NOW - 2)
GPU_OOM = Exit(exit_code=1, told_out_of_memory="no room")


# ─── written once, whole and in order ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_beginning_and_an_end_in_one_commit_read_as_two(code: int, retries: int) -> None:
    def lived(*spans: Sequence[Running | Exited]) -> tuple[list[Any], dict[str, Any], list[str]]:
        with closing(Store(":memory:")) as store:
            desk = Desk(stored.with_gpus(store))
            job = submit_one(store, retries=retries)
            start(store, job, lease(job))
            for news in spans:
                desk.hear(*news)
            kept = row(store, job)
            for name in [name for name in kept if "reason" in name or "delayed" in name]:
                del kept[name]  # that has chance in it
            return store.found.attempts(job), kept, stored.kinds(store, job)

    began, ended = running(1), Exited(job=1, attempt=1, exit=Exit(exit_code=code, ended_at=NOW + 2))
    at_once, one_by_one = lived([began, ended]), lived([began], [ended])
    assert at_once == one_by_one
    assert at_once[0][0]["started_at"] == NOW
    has_ended = not (code and retries)
    assert at_once[1]["started_at"] == (NOW if has_ended else None)


def test_news_is_written_down_in_the_order_in_which_it_came(desk: Desk) -> None:
    job = submit_one(desk.store)
    start(desk.store, job)
    desk.hear(
        running(job),
        MainEnded(job=job, attempt=1, left=2, mono=MONO - 0.5),
        Exited(job=job, attempt=1, exit=Exit(exit_code=0)),
    )
    told = stored.kinds(desk.store, job)
    assert told == ["submitted", "starting", "running", "main_ended", "ended"]
    kept = desk.store.found.attempts(job)[0]
    assert (kept["started_mono"], kept["main_ended_mono"]) == (MONO - 1, MONO - 0.5)
    assert desk.lookout.told == 1


def test_what_was_heard_together_is_written_down_in_one_commit(desk: Desk) -> None:
    one, two = submit(desk.store, 2)
    commits: list[int] = []
    for job in (one, two):
        start(desk.store, job)

    def note_commit() -> bool:
        commits.append(1)
        return False

    desk.store.database._db.set_commit_hook(note_commit)
    desk.hear(running(one), running(two), Exited(job=one, attempt=1, exit=CODE))
    assert len(commits) == 1


def test_nothing_heard_is_nothing_done(desk: Desk) -> None:
    assert not desk.take_in()
    assert desk.lookout.told == 0


def test_what_waits_is_told_once_that_is_written_down(desk: Desk) -> None:
    job = submit_one(desk.store)
    start(desk.store, job)
    desk.hear(running(job), Exited(job=job, attempt=1, exit=Exit(exit_code=0)))
    assert desk.told.published == [
        (job, "started", "ended"),  # both were written down before anybody was told
        (job, "started", "ended"),
        (job, "ended", "ended"),
    ]


def test_a_job_that_is_tried_again_has_not_ended(desk: Desk) -> None:
    job = runs(desk, retries=1)
    desk.exits(job, CODE)
    assert desk.told.published == []


def test_what_the_disk_refuses_is_kept_and_nobody_is_told(desk: Desk) -> None:
    job = submit_one(desk.store)
    start(desk.store, job)
    desk.chronicle.inbox += [running(job), Exited(job=job, attempt=1, exit=Exit(exit_code=0))]
    with full(desk.store):
        for _ in range(3):
            with pytest.raises(DiskTrouble):
                desk.take_in()
        assert row(desk.store, job)["state"] == "starting", "not even the half of it"
        assert desk.told.published == []
    assert desk.take_in()
    assert row(desk.store, job)["outcome"] == "succeeded"
    assert not desk.chronicle.inbox


def test_whoever_waits_for_a_job_hears_of_its_end(desk: Desk) -> None:
    job = runs(desk)

    async def main() -> None:
        waiting = desk.told.watch([range(job, job + 1)], "ended")
        desk.exits(job, CODE)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


@pytest.mark.parametrize("ahead_s", [1e-3, 1e6, 2**39])
def test_a_moment_that_is_still_to_come_is_not_believed(desk: Desk, ahead_s: float) -> None:
    """It comes from a file that a job could write: nothing is put off by it."""
    job = submit_one(desk.store)
    start(desk.store, job)
    desk.hear(running(job, mono=MONO + ahead_s))
    desk.hear(MainEnded(job=job, attempt=1, left=1, mono=MONO + ahead_s))
    (read,) = desk.store.current.active()
    assert (read.running_since, read.main_ended_at) == (MONO, MONO)


# ─── what an end is called ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("exit", "outcome", "reason"),
    [
        (Exit(exit_code=0), "succeeded", "exit code 0"),
        (CODE, "failed", "exit code 3"),
        (Exit(lost="its runner is gone"), "lost", "lost: its runner is gone"),
        (GPU_OOM, "out_of_memory", "out of GPU memory: no room (exit code 1)"),
    ],
)
def test_an_end_is_stored_as_what_it_is(desk: Desk, exit: Exit, outcome: str, reason: str) -> None:
    told = desk.exits(runs(desk), exit)
    assert (told["state"], told["outcome"], told["reason"]) == ("ended", outcome, reason)


@pytest.mark.parametrize(
    ("cause", "outcome", "reason"),
    [
        (EndCause.ASKED, "cancelled", "cancelled by bob: exit code 3"),
        (
            EndCause.TIME_LIMIT,
            "timed_out",
            "timed out: it reached its time limit of 1:00; exit code 3",
        ),
        (
            EndCause.HEARTBEAT,
            "timed_out",
            "timed out: it gave no sign of life for 5.0s; exit code 3",
        ),
    ],
)
def test_what_gpuq_had_begun_to_end_is_called_by_the_cause(
    desk: Desk, cause: EndCause, outcome: str, reason: str
) -> None:
    job = runs(desk, time_limit_s=60.0, heartbeat_s=5.0)
    desk.store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    step(desk.store, job, cause=cause)
    told = desk.exits(job, CODE)
    assert (told["outcome"], told["reason"]) == (outcome, reason)


def test_a_job_that_was_faster_than_the_wish_ended_by_itself(desk: Desk) -> None:
    job = runs(desk)
    desk.store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    assert desk.exits(job, Exit(exit_code=0))["outcome"] == "succeeded"


def test_what_had_ended_before_gpuq_began_to_end_it_ended_by_itself(desk: Desk) -> None:
    """Its runner told so later: a limit that it would have reached meanwhile was none of its own."""
    for ended_mono, outcome in ((MONO - 0.1, "succeeded"), (MONO + 0.1, "timed_out")):
        job = runs(desk, time_limit_s=60.0)
        step(desk.store, job, cause=EndCause.TIME_LIMIT, mono=MONO)
        told = desk.exits(job, Exit(exit_code=0, ended_mono=ended_mono))
        assert told["outcome"] == outcome


def test_a_job_that_went_with_its_machine_is_lost_however_well_it_went(desk: Desk) -> None:
    for exit in (Exit(exit_code=0, ended_mono=MONO + 1), Exit(signal=15, ended_mono=MONO + 1)):
        job = runs(desk)
        step(desk.store, job, cause=EndCause.SHUTDOWN, mono=MONO)
        told = desk.exits(job, exit)
        assert (told["state"], told["outcome"]) == ("ended", "lost")
        assert told["reason"].startswith("lost: the machine was shut down; e")


def test_who_had_ended_before_the_machine_went_down_ended_by_itself(desk: Desk) -> None:
    """But systemd ends everything at the same time, and may have been first."""
    for signal, outcome in ((None, "succeeded"), (15, "lost"), (9, "lost"), (11, "failed")):
        job = runs(desk)
        step(desk.store, job, cause=EndCause.SHUTDOWN, mono=MONO)
        code = 0 if signal is None else None
        told = desk.exits(job, Exit(exit_code=code, signal=signal, ended_mono=MONO - 0.1))
        assert told["outcome"] == outcome


@pytest.mark.parametrize(
    ("asked", "again"),
    [({"retries": 1}, True), ({}, False), ({"retries": 1, "retry_on": "failed"}, False)],
)
def test_what_went_with_its_machine_is_tried_again_where_lost_jobs_are(
    desk: Desk, asked: dict[str, Any], again: bool
) -> None:
    job = runs(desk, **asked)
    step(desk.store, job, cause=EndCause.SHUTDOWN, mono=MONO)
    told = desk.exits(job, Exit(signal=15, ended_mono=MONO + 1))
    assert told["state"] == ("queued" if again else "ended")
    assert desk.store.found.attempts(job)[0]["outcome"] == "lost"


# ─── tried again ─────────────────────────────────────────────────────────────────────────────────


def test_a_wait_is_measured_on_the_clock_that_nobody_sets_and_told_on_the_other(
    desk: Desk,
) -> None:
    job = runs(desk, retries=2, backoff="30s,60s")
    told = desk.exits(job, CODE)
    assert (told["state"], told["delayed_until_at"]) == ("queued", NOW + 30)
    assert told["reason"] == "exit code 3; attempt 2 of 3 in 30 s"
    assert desk.store.current.delayed()[0].until == BOOTTIME + 30
    desk.store.happened.undelay(job, now=NOW)
    start(desk.store, job, attempt=2)
    assert desk.exits(job, CODE, attempt=2)["delayed_until_at"] == NOW + 60


def test_the_usual_wait_is_by_chance_a_quarter_shorter_or_longer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = submit(desk.store, 2, retries=1)
    for job, luck in zip(jobs, (0.0, 0.5), strict=True):
        monkeypatch.setattr("random.random", lambda: luck)  # noqa: B023
        start(desk.store, job)
        desk.exits(job, CODE)
    assert [one.until - BOOTTIME for one in desk.store.current.delayed()] == [7.5, 10.0]


def test_the_last_attempt_says_that_it_was(desk: Desk) -> None:
    job = runs(desk, retries=1, backoff="0s")
    desk.exits(job, CODE)
    desk.store.happened.undelay(job, now=NOW)
    start(desk.store, job, attempt=2)
    told = desk.exits(job, CODE, attempt=2)
    assert (told["state"], told["attempt"]) == ("ended", 2)
    assert told["reason"] == "exit code 3; attempt 2 of 2 was the last"
    assert desk.store.found.attempts(job)[0]["reason"] == "exit code 3"


def test_what_somebody_wanted_gone_is_not_tried_again_though_it_failed_by_itself(
    desk: Desk,
) -> None:
    job = runs(desk, retries=3)
    desk.store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    told = desk.exits(job, CODE)
    assert (told["state"], told["outcome"]) == ("ended", "failed")


@pytest.mark.parametrize(
    ("asked", "exit", "again"),
    [
        ({}, CODE, True),
        ({}, Exit(lost="rebooted"), True),
        ({"retry_on": "lost"}, CODE, False),
        ({"retry_on": "exit:3-5"}, CODE, True),
        ({"retry_on": "exit:4"}, CODE, False),
        ({"retries": 0}, CODE, False),
        ({}, Exit(exit_code=0), False),
    ],
)
def test_it_is_tried_again_after_the_ends_that_were_asked_for(
    desk: Desk, asked: dict[str, Any], exit: Exit, again: bool
) -> None:
    job = runs(desk, **({"retries": 1} | asked))
    assert desk.exits(job, exit)["state"] == ("queued" if again else "ended")


@pytest.mark.parametrize("retry_on", [None, "timed_out"])
def test_a_limit_that_was_reached_is_tried_again_only_where_that_was_asked_for(
    desk: Desk, retry_on: str | None
) -> None:
    job = runs(desk, retries=1, retry_on=retry_on, time_limit_s=60.0)
    step(desk.store, job, cause=EndCause.TIME_LIMIT)
    told = desk.exits(job, Exit(signal=15))
    assert told["state"] == ("queued" if retry_on else "ended")
    assert desk.store.found.attempts(job)[0]["outcome"] == "timed_out"


SHARE = Request(gpu_mem_bytes=8 * GIB, exclusive=False)


def request_of(desk: Desk, job: int) -> Request:
    desk.store.happened.undelay(job, now=NOW)
    return next(one.request for one in desk.store.current.waiting(9) if one.id == job)


@pytest.mark.parametrize("has_read", [True, False], ids=["a reading", "no reading yet"])
def test_who_had_too_little_memory_asks_for_more(desk: Desk, has_read: bool) -> None:
    """What this machine's GPUs are is known before the first reading."""
    card = gpu(0, "24G")
    desk.store.machine.see_gpus([card], now=NOW)
    desk.lookout.gpus = (card,) if has_read else None
    job = runs(desk, "GPU-0", request=SHARE, retries=1, backoff="0s")
    told = desk.exits(job, GPU_OOM)
    assert told["reason"].endswith("attempt 2 of 2 at once with 12G instead of 8G per GPU")
    assert request_of(desk, job).gpu_mem_bytes == 12 * GIB


def test_who_had_the_largest_gpu_to_itself_is_told_why_not(desk: Desk) -> None:
    desk.store.machine.see_gpus([gpu(0, "24G"), gpu(1, "24G")], now=NOW)
    job = runs(desk, "GPU-0", retries=3)
    told = desk.exits(job, GPU_OOM)
    assert (told["state"], told["outcome"]) == ("ended", "out_of_memory")
    assert "it had a whole GPU of 24G to itself already, and none is larger" in told["reason"]


def test_who_ran_out_of_the_machines_memory_asks_for_the_same(desk: Desk) -> None:
    job = runs(desk, "GPU-0", request=SHARE, retries=1, backoff="0s")
    told = desk.exits(job, Exit(signal=9, oom_kills=1))
    assert desk.store.found.attempts(job)[0]["outcome"] == Outcome.OUT_OF_MEMORY
    assert told["state"] == "queued"
    assert request_of(desk, job) == SHARE


# ─── what it held ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked", [{}, {"retries": 1}], ids=["for good", "for this attempt"])
def test_real_gpus_cool_and_simulated_ones_are_cool_at_once(
    desk: Desk, asked: dict[str, Any]
) -> None:
    """Whichever of the two it was is known from the attempt: there may be no reading yet."""
    one, two = submit(desk.store, 2, **asked)
    start(desk.store, one, lease(one, "GPU-0"))
    start(desk.store, two, lease(two, "GPU-1"), simulated=True, cool_at_once=True)
    desk.exits(one, CODE)
    desk.exits(two, CODE)
    (held,) = desk.store.current.leases()
    assert (held.gpu, held.state, held.cooling_since) == ("GPU-0", LeaseState.COOLING, MONO)


# ─── never begun ─────────────────────────────────────────────────────────────────────────────────


def returned(desk: Desk, job: int) -> str:
    start(desk.store, job)
    return str(desk.exits(job, None)["state"])


def test_an_attempt_that_never_ran_goes_back_some_times_and_is_lost_then(desk: Desk) -> None:
    job = submit_one(desk.store)
    assert [returned(desk, job) for _ in range(MOST_RETURNS)] == ["queued"] * MOST_RETURNS
    assert returned(desk, job) == "ended"
    told = row(desk.store, job)
    assert (told["outcome"], told["attempt"]) == ("lost", 1)
    assert told["reason"] == "lost: its runner died 3 times at the gate"


def test_a_full_disk_does_not_count_as_another_death_at_the_gate(desk: Desk) -> None:
    job = submit_one(desk.store)
    start(desk.store, job)
    desk.chronicle.inbox.append(Exited(job=job, attempt=1, exit=None))
    with full(desk.store):
        for _ in range(2 * MOST_RETURNS):
            with pytest.raises(DiskTrouble):
                desk.take_in()
    assert desk.take_in()
    assert row(desk.store, job)["state"] == "queued"
    assert [returned(desk, job) for _ in range(MOST_RETURNS - 1)] == ["queued"] * 2


def test_a_machine_without_room_is_no_death_at_the_gate_either(desk: Desk) -> None:
    job = submit_one(desk.store)
    for _ in range(2 * MOST_RETURNS):
        start(desk.store, job)
        desk.hear(Exited(job=job, attempt=1, exit=None, cause="it could not begin: no space"))
        assert row(desk.store, job)["state"] == "queued"
        assert desk.chronicle.start_trouble == ("it could not begin: no space", MONO + 5)
    assert stored.events(desk.store)[-1]["cause"] == "it could not begin: no space"


def test_returns_of_one_job_are_not_anothers(desk: Desk) -> None:
    one, two = submit(desk.store, 2)
    for _ in range(MOST_RETURNS):
        returned(desk, one)
    assert returned(desk, two) == "queued"


def test_news_of_an_attempt_that_is_over_changes_nothing(desk: Desk) -> None:
    job = runs(desk)
    desk.exits(job, CODE)
    before = row(desk.store, job)
    late: list[Callable[[], None]] = [
        lambda: desk.hear(running(job)),
        lambda: desk.hear(MainEnded(job=job, attempt=1, left=1, mono=MONO)),
    ]
    for deed in late:
        deed()
    after = row(desk.store, job)
    assert (after["state"], after["outcome"]) == (before["state"], before["outcome"])
    assert JobState(after["state"]) is JobState.ENDED


# ─── whether the driver may be to blame ──────────────────────────────────────────────────────────


def begun(desk: Desk, *gpus: str, ago_s: float = 1.0) -> int:
    job = submit_one(desk.store)
    start(desk.store, job, *[lease(job, one) for one in gpus])
    run(desk.store, job, mono=MONO - ago_s)
    return job


@pytest.mark.parametrize("exit", [CODE, Exit(signal=11)], ids=["code", "signal"])
@pytest.mark.parametrize("ago_s", [0.0, 30.0])
def test_a_job_that_fails_on_its_gpu_soon_after_its_start_is_a_doubt(
    desk: Desk, exit: Exit, ago_s: float
) -> None:
    job = begun(desk, "GPU-0", ago_s=ago_s)
    assert desk.exits(job, exit)["outcome"] == "failed"
    assert desk.lookout.doubts == [f"job {job} failed soon after its start"]


@pytest.mark.parametrize(
    ("exit", "gpus", "ago_s"),
    [
        (CODE, ("GPU-0",), 30.1),
        (CODE, (), 1.0),
        (Exit(exit_code=0), ("GPU-0",), 1.0),
        (GPU_OOM, ("GPU-0",), 1.0),
        (Exit(lost="its runner is gone"), ("GPU-0",), 1.0),
        (Exit(exit_code=127, stage="executing x", error="no such file"), ("GPU-0",), 1.0),
    ],
    ids=["late", "no gpu", "succeeded", "out of memory", "lost", "not begun"],
)
def test_what_no_driver_can_have_done_is_none(
    desk: Desk, exit: Exit, gpus: tuple[str, ...], ago_s: float
) -> None:
    desk.exits(begun(desk, *gpus, ago_s=ago_s), exit)
    assert desk.lookout.doubts == []


def test_a_job_that_somebody_ends_is_none(desk: Desk) -> None:
    job = begun(desk, "GPU-0")
    step(desk.store, job)
    assert desk.exits(job, Exit(signal=15))["outcome"] == "cancelled"
    assert desk.lookout.doubts == []


# ── given back ──


def requeued(desk: Desk) -> int:
    """A job that was sent its TERM to begin anew."""
    job = runs(desk, "GPU-0")
    desk.store.changed.requeue(job, job, actor="alice", now=NOW)
    step(desk.store, job, cause=EndCause.REQUEUED)
    return job


def test_a_job_that_is_to_begin_anew_waits_again_and_nobody_hears_of_an_end(desk: Desk) -> None:
    job = requeued(desk)
    told = desk.exits(job, Exit(exit_code=0, ended_at=NOW))
    assert (told["state"], told["outcome"], told["attempt_outcome"]) == (
        "queued",
        None,
        "cancelled",
    )
    assert desk.told.published == []
    assert desk.store.current.leases()[0].state is LeaseState.COOLING


def test_who_is_killed_as_it_ends_does_not_wait_again(desk: Desk) -> None:
    """No signal was sent for the kill yet."""
    job = requeued(desk)
    desk.store.wished.stop(job, grace_s=9.0, actor="bob", now=NOW)
    told = desk.exits(job, Exit(exit_code=0, ended_at=NOW))
    assert (told["state"], told["outcome"]) == ("ended", "cancelled")
    assert told["reason"] == "cancelled by bob: exit code 0"


def test_what_ended_before_it_was_told_to_begin_anew_has_ended_so_and_is_run_again(
    desk: Desk,
) -> None:
    job = requeued(desk)
    told = desk.exits(job, Exit(exit_code=3, ended_at=NOW, ended_mono=MONO - 1))
    assert (told["state"], told["outcome"]) == ("ended", "failed")
    assert desk.store.current.to_requeue() == (job,), "that is still wished"


def test_an_end_has_its_signature_from_the_commit_that_ends_it(desk: Desk) -> None:
    said = 'Traceback (most recent call last):\n  File "/a/b.py", line 7\nValueError: bad 12\n'
    job = runs(desk, retries=1)
    ended = desk.exits(job, Exit(exit_code=1, last_output=said))
    assert (ended["state"], ended["error_signature"]) == ("queued", "ValueError: bad # in b.py:7")
    other = runs(desk)
    step(desk.store, other, cause=EndCause.TIME_LIMIT)
    ended = desk.exits(other, Exit(exit_code=1, last_output=said, ended_mono=MONO + 1))
    assert ended["error_signature"] == "timed out: it reached its time limit"
    assert desk.exits(runs(desk), Exit(exit_code=0))["error_signature"] is None
