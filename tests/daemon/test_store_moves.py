"""What happens to a job, and what is wished for it, as the database tells it afterwards."""

import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import (
    DelayedJob,
    Drain,
    EndCause,
    Exit,
    JobState,
    LeaseState,
    Outcome,
    Request,
    StopWish,
)
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import LeaseRefused
from gpuq.daemon.store.happened import Delay
from tests.stored import (
    ALICE,
    BOOT,
    GPUS,
    MONO,
    NOW,
    end,
    ended,
    events,
    fail,
    job_in,
    kinds,
    lease,
    row,
    run,
    share,
    start,
    states,
    step,
    submit,
    submit_one,
    with_gpus,
    write,
)

ASKED, TIME_LIMIT, HEARTBEAT, GPU_MEMORY = list(EndCause)[:4]
RUNNING, STARTING = JobState.RUNNING, JobState.STARTING


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as store:
        yield with_gpus(store)


def attempt(store: Store, job: int, number: int = 1) -> dict[str, Any]:
    return store.found.attempts(job)[number - 1]


# ─── moves ───────────────────────────────────────────────────────────────────────────────────────


def test_each_move_leaves_an_event_with_its_cause(store: Store) -> None:
    one, two = submit(store, 2)
    start(store, one, lease(one))
    store.happened.return_to_queue(one, 1, cause="its runner was gone", now=NOW)
    start(store, one, lease(one))
    run(store, one)
    store.wished.stop(one, grace_s=10.0, actor="alice", now=NOW)
    step(store, one)
    step(store, one, kill=True)
    end(store, one)
    store.wished.stop(two, grace_s=10.0, actor="bob", now=NOW)
    store.happened.cancel(two, actor="bob", now=NOW)
    began, came = "its command was started", "its turn came, and there was room"
    wished = "its end was asked for"
    told = [(e["kind"], e["job"], e["actor"], e["cause"]) for e in events(store)]
    assert told == [
        ("submitted", one, "alice", "a submission"),
        ("starting", one, "gpuq", came),
        ("returned", one, "gpuq", "its runner was gone"),
        ("starting", one, "gpuq", came),
        ("running", one, "gpuq", began),
        ("stop_asked", one, "alice", wished),
        ("term_sent", one, "alice", "asked"),
        ("kill_sent", one, "alice", "asked"),
        ("ended", one, "gpuq", "exit code 0"),
        ("stop_asked", two, "bob", wished),
        ("ended", two, "bob", "cancelled by bob while it was queued"),
    ]


def test_events_have_no_gaps(store: Store) -> None:
    one, two = submit(store, 2)
    start(store, one, lease(one))
    for _ in range(3):  # what was undone has used up no number
        with pytest.raises(LeaseRefused):
            start(store, two, lease(two))
    end(store, one)
    assert [event["seq"] for event in events(store)] == list(range(1, 4))


def test_an_attempt_that_never_ran_is_forgotten_with_its_number(store: Store) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    store.happened.return_to_queue(job, 1, cause="its runner was gone", now=NOW)
    assert states(store)[job] == "queued"
    assert (store.found.attempts(job), store.current.leases()) == ([], [])
    assert start(store, job, lease(job), attempt=1)


def test_an_attempt_that_ran_is_never_forgotten(store: Store) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    run(store, job)
    store.happened.return_to_queue(job, 1, cause="a mistake", now=NOW)
    assert states(store)[job] == "running"
    assert (len(store.found.attempts(job)), len(store.current.leases())) == (1, 1)


def test_what_nobody_wants_any_more_does_not_start(store: Store) -> None:
    job = submit_one(store)
    store.wished.stop(job, grace_s=10.0, actor="alice", now=NOW)
    assert not start(store, job, lease(job))
    assert (states(store)[job], store.current.leases()) == ("queued", [])


def test_nothing_starts_once_a_drain_was_answered(store: Store) -> None:
    """The plan may be older than the wish: a start waits for its runner in between."""
    job = submit_one(store)
    store.wished.drain("new driver", actor="bob", now=NOW)
    assert not start(store, job, lease(job))
    assert (states(store)[job], store.current.leases()) == ("queued", [])
    store.wished.drain(None, actor="bob", now=NOW)
    assert start(store, job, lease(job))


def test_an_attempt_is_started_once(store: Store) -> None:
    job = submit_one(store)
    assert start(store, job)
    assert not start(store, job)
    assert not start(store, job, attempt=2)


def test_a_job_that_ended_before_it_was_heard_to_run_has_ended(store: Store) -> None:
    job = job_in(store, STARTING)
    end(store, job)
    run(store, job)
    assert states(store)[job] == "ended"


def test_the_end_is_told_with_all_that_is_known_of_it(store: Store) -> None:
    job = job_in(store, RUNNING)
    exit = Exit(
        exit_code=3,
        ended_at=NOW + 5,
        leftovers=2,
        leftover_names="sh, sleep",
        log_dropped_bytes=4096,
        user_s=1.5,
        system_s=0.5,
        peak_rss_bytes=2**30,
    )
    end(store, job, exit=exit, outcome=Outcome.FAILED)
    kept = attempt(store, job)
    assert {name: kept[name] for name in ("exit_code", "leftovers", "leftover_names")} == {
        "exit_code": 3,
        "leftovers": 2,
        "leftover_names": "sh, sleep",
    }
    assert (kept["log_dropped_bytes"], kept["user_s"], kept["system_s"]) == (4096, 1.5, 0.5)
    assert (kept["outcome"], kept["reason"]) == ("failed", "exit code 3")
    assert row(store, job)["ended_at"] == kept["ended_at"] == NOW + 5


# ─── attempt after attempt ───────────────────────────────────────────────────────────────────────


def test_every_attempt_is_kept_with_how_it_ended(store: Store) -> None:
    job = submit_one(store, retries=2)
    for number, how in enumerate((Exit(exit_code=3), Exit(lost="rebooted")), start=1):
        assert start(store, job, lease(job), attempt=number)
        run(store, job, attempt=number)
        outcome = Outcome.LOST if how.lost else Outcome.FAILED
        fail(store, job, attempt=number, exit=how, outcome=outcome, reason=f"end {number}")
        store.happened.undelay(job, now=NOW)
    start(store, job, attempt=3)
    end(store, job, attempt=3)
    kept = [(one["attempt"], one["outcome"], one["reason"]) for one in store.found.attempts(job)]
    assert kept == [(1, "failed", "end 1"), (2, "lost", "end 2"), (3, "succeeded", "exit code 0")]
    told = row(store, job)
    assert (told["state"], told["outcome"], told["attempt"]) == ("ended", "succeeded", 3)


def test_a_job_that_is_tried_again_waits_and_says_for_what(store: Store) -> None:
    job = job_in(store, RUNNING, retries=2)
    fail(store, job, wait_s=60.0)
    told = row(store, job)
    assert (told["state"], told["outcome"], told["attempt"]) == ("queued", None, 1)
    assert (told["started_at"], told["ended_at"]) == (None, None)
    assert told["delayed_until_at"] == NOW + 60
    assert told["reason"] == "exit code 3; attempt 2 of 3 in 60 s"
    assert store.current.delayed() == [DelayedJob(id=job, until=MONO + 60)]
    assert store.current.waiting(9) == []
    assert kinds(store, job)[-2:] == ["attempt_ended", "backoff"]


def test_nothing_starts_before_its_delay_is_over(store: Store) -> None:
    job = job_in(store, RUNNING, retries=1)
    fail(store, job)
    assert not start(store, job, attempt=2)
    store.happened.undelay(job, now=NOW)
    assert (store.current.delayed(), row(store, job)["reason"]) == ([], None)
    assert [(one.id, one.attempt) for one in store.current.waiting(9)] == [(job, 2)]
    assert start(store, job, attempt=2)


def test_a_delay_is_over_once(store: Store) -> None:
    job = job_in(store, RUNNING)
    fail(store, job)
    store.happened.undelay(job, now=NOW)
    store.happened.undelay(job, now=NOW)
    assert kinds(store, job).count("backoff_over") == 1


def test_an_attempt_that_was_lost_before_it_was_heard_to_run_is_tried_again_too(
    store: Store,
) -> None:
    job = job_in(store, STARTING)
    fail(store, job, exit=Exit(lost="rebooted"), outcome=Outcome.LOST)
    assert row(store, job)["state"] == "queued"


def test_what_an_attempt_held_is_given_back_or_cools_by_itself(store: Store) -> None:
    one, two = submit(store, 2, retries=1)
    start(store, one, lease(one, "GPU-0"))
    start(store, two, lease(two, "GPU-1"))
    fail(store, one)
    fail(store, two, cooling=(MONO, BOOT))
    assert [(h.gpu, h.state) for h in store.current.leases()] == [("GPU-1", LeaseState.COOLING)]
    store.happened.undelay(two, now=NOW)
    assert start(store, two, lease(two, "GPU-0"), attempt=2), "beside its own, which cools still"
    store.machine.release("GPU-1", 0, now=NOW)
    assert [(held.gpu, held.attempt) for held in store.current.leases()] == [("GPU-0", 2)]


def test_who_asks_for_something_else_waits_in_another_class(store: Store) -> None:
    job, other = submit(store, 2, request=Request(gpu_mem_bytes=8, exclusive=False), retries=1)
    start(store, job)
    fail(store, job, request=Request(gpu_mem_bytes=12, exclusive=False))
    store.happened.undelay(job, now=NOW)
    read = {one.id: one for one in store.current.waiting(9)}
    assert read[job].request.gpu_mem_bytes == 12
    assert read[other].request.gpu_mem_bytes == 8
    assert read[job].class_id != read[other].class_id
    again = submit_one(store, request=Request(gpu_mem_bytes=12, exclusive=False))
    assert next(j for j in store.current.waiting(9) if j.id == again).class_id == read[job].class_id


def test_a_job_that_waits_again_can_be_cancelled(store: Store) -> None:
    job = job_in(store, RUNNING)
    fail(store, job)
    store.wished.stop(job, grace_s=10.0, actor="alice", now=NOW)
    assert store.current.delayed() == [], "it waits for nothing any more"
    assert [(one.id, one.stop) for one in store.current.waiting(9)] == [
        (job, StopWish(grace_s=10.0, actor="alice"))
    ]
    store.happened.cancel(job, actor="alice", now=NOW)
    told = row(store, job)
    assert (told["state"], told["outcome"]) == ("ended", "cancelled")
    assert store.current.delayed() == []
    assert attempt(store, job)["outcome"] == "failed", "how it ended stays as it was"


def test_the_next_delay_to_end_is_read_first_however_somebody_has_set_the_clock(
    store: Store,
) -> None:
    """By the clock that nobody sets; a few of them are enough, since they are the first."""
    jobs = submit(store, 70)
    for number, job in enumerate(jobs):
        start(store, job)
        later = 100_000.0 - number  # on the wall clock the first of them is the last
        delay = Delay(boottime=MONO + number, boot_id=BOOT, at=NOW + later)
        failed = ended(job, exit=Exit(exit_code=3), outcome=Outcome.FAILED)
        store.happened.try_again(failed, delay, request=None, why="again", now=NOW)
    read = store.current.delayed()
    assert [one.id for one in read] == list(jobs)[: len(read)]
    assert len(read) < len(jobs)


def test_a_wait_of_another_boot_is_known_by_the_wall_clock_and_its_length(store: Store) -> None:
    old, new = job_in(store, RUNNING), job_in(store, RUNNING)
    fail(store, old, wait_s=60.0)
    fail(store, new, wait_s=5.0)
    write(store, "update jobs set delayed_boot = 'earlier' where id = ?", old)
    assert store.inherited.stale_delays(BOOT) == [(old, NOW + 60, 60.0)]
    store.happened.delay_anew(old, Delay(boottime=7.0, boot_id=BOOT, at=NOW + 60))
    assert store.inherited.stale_delays(BOOT) == []
    assert DelayedJob(id=old, until=7.0) in store.current.delayed()
    assert row(store, old)["delayed_until_at"] == NOW + 60


def test_a_job_that_waits_again_keeps_no_place_in_line(store: Store) -> None:
    first, second = submit(store, 2)
    start(store, first)
    fail(store, first)
    assert store.counted.place_in_class(second) == 1
    store.happened.undelay(first, now=NOW)
    assert [store.counted.place_in_class(job) for job in (first, second)] == [1, 2]


# ─── towards the end ─────────────────────────────────────────────────────────────────────────────


def test_asking_again_shortens_the_grace_and_never_lengthens_it(store: Store) -> None:
    job = submit_one(store)
    for grace_s, actor in ((10.0, "alice"), (2.0, "bob"), (60.0, "bob")):
        assert store.wished.stop(job, grace_s=grace_s, actor=actor, now=NOW)
    assert store.current.waiting(9)[0].stop == StopWish(grace_s=2.0, actor="alice")
    store.happened.cancel(job, actor="alice", now=NOW)
    assert not store.wished.stop(job, grace_s=0.0, actor="bob", now=NOW)


def test_a_step_is_noted_once_and_the_first_cause_stays(store: Store) -> None:
    job = job_in(store, RUNNING)
    step(store, job, cause=TIME_LIMIT, mono=MONO + 1)
    step(store, job, cause=ASKED, mono=MONO + 2)
    step(store, job, kill=True, cause=ASKED, mono=MONO + 3)
    step(store, job, kill=True, cause=ASKED, mono=MONO + 4)
    (read,) = store.current.active()
    assert (read.ending, read.term_sent_at, read.kill_sent_at) == (TIME_LIMIT, MONO + 1, MONO + 3)
    assert kinds(store, job)[-2:] == ["term_sent", "kill_sent"]


def test_a_term_from_before_the_job_was_there_is_noted_again_once_it_is(store: Store) -> None:
    job = job_in(store, STARTING)
    step(store, job, mono=MONO - 2)
    run(store, job, mono=MONO)
    step(store, job, mono=MONO + 1)
    step(store, job, mono=MONO + 2)
    assert store.current.active()[0].term_sent_at == MONO + 1


def test_pauses_add_up_and_are_noted_as_they_begin_and_end(store: Store) -> None:
    job = job_in(store, RUNNING)
    for since, until in ((10, 15), (20, 22)):
        store.happened.pause(job, 1, mono=MONO + since, now=NOW)
        assert store.current.active()[0].paused_since == MONO + since
        store.happened.resume(job, 1, mono=MONO + until, now=NOW)
        store.happened.resume(job, 1, mono=MONO + until + 1, now=NOW)  # it goes on already
    (read,) = store.current.active()
    assert (read.paused_since, read.paused_s, read.resumed_at) == (None, 7.0, MONO + 22)
    assert kinds(store, job)[-4:] == ["paused", "resumed", "paused", "resumed"]


def test_who_was_never_paused_is_not_resumed(store: Store) -> None:
    job = job_in(store, RUNNING)
    store.happened.resume(job, 1, mono=MONO + 5, now=NOW)
    assert store.current.active()[0].resumed_at is None
    assert "resumed" not in kinds(store, job)


def test_the_end_of_the_main_process_is_noted_once(store: Store) -> None:
    job = job_in(store, RUNNING)
    for mono in (MONO + 5, MONO + 9):
        store.happened.main_ended(job, 1, left=3, mono=mono, now=NOW)
    assert store.current.active()[0].main_ended_at == MONO + 5
    assert kinds(store, job).count("main_ended") == 1


def test_what_survives_kill_is_told_in_words(store: Store) -> None:
    job = job_in(store, RUNNING)
    assert not store.current.active()[0].is_unkillable
    store.happened.unkillable(job, 1, "4711 (python) hangs in the driver", now=NOW)
    assert store.current.active()[0].is_unkillable
    assert row(store, job)["unkillable"] == "4711 (python) hangs in the driver"
    assert events(store)[-1]["cause"] == "4711 (python) hangs in the driver"


def test_the_scheduler_sees_all_that_an_end_depends_on(store: Store) -> None:
    job = submit_one(store, grace_s=7.0, time_limit_s=60.0, heartbeat_s=5.0)
    start(store, job, lease(job))
    (early,) = store.current.active()
    assert (early.state, early.running_since) == (STARTING, None)
    run(store, job, mono=MONO)
    (read,) = store.current.active()
    assert (read.state, read.running_since) == (RUNNING, MONO)
    assert (read.grace_s, read.time_limit_s, read.heartbeat_s) == (7.0, 60.0, 5.0)
    assert (read.paused_s, read.pause_wished, read.stop, read.ending) == (0.0, False, None, None)


def test_an_end_is_judged_by_the_terms_of_its_job(store: Store) -> None:
    job = submit_one(
        store, time_limit_s=60.0, heartbeat_s=5.0, retries=3, backoff="2s", retry_on="lost"
    )
    start(store, job, lease(job, "GPU-1"), gpu_indices=(1,), simulated=True, cool_at_once=True)
    terms = store.agreed.terms(job, 1)
    assert (terms.time_limit_s, terms.heartbeat_s) == (60.0, 5.0)
    assert (terms.retries, terms.backoff, terms.retry_on) == (3, "2s", "lost")
    assert (terms.attempt, terms.gpus, terms.request) == (1, ("GPU-1",), Request())
    assert (terms.ending, terms.stop) == (None, None)
    store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    step(store, job, cause=HEARTBEAT)
    terms = store.agreed.terms(job, 1)
    assert (terms.ending, terms.stop) == (HEARTBEAT, StopWish(grace_s=1.0, actor="bob"))


# ─── wishes ──────────────────────────────────────────────────────────────────────────────────────


def wishes(store: Store) -> list[tuple[int, ...]]:
    return [one.signal_wishes for one in store.current.active()]


def test_signals_are_wished_for_a_running_job_and_each_is_sent_once_in_order(
    store: Store,
) -> None:
    job = submit_one(store)
    assert not store.wished.signal(job, signal.SIGUSR1, actor="alice", now=NOW)
    start(store, job)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        assert store.wished.signal(job, number, actor="alice", now=NOW)
    assert wishes(store) == [(10, 12, 10)]
    store.happened.signals_sent(job, 1, signal.SIGUSR1, now=NOW)
    assert wishes(store) == [(12, 10)]
    for number in (signal.SIGUSR2, signal.SIGUSR1):
        store.happened.signals_sent(job, 1, number, now=NOW)
    assert wishes(store) == [()]
    assert store.wished.signal(job, signal.SIGINT, actor="alice", now=NOW)
    assert wishes(store) == [(2,)]
    assert kinds(store, job).count("signal_sent") == 3


def test_signals_of_one_job_are_not_sent_to_another(store: Store) -> None:
    one, two = submit(store, 2)
    start(store, one)
    start(store, two)
    store.wished.signal(two, signal.SIGUSR1, actor="alice", now=NOW)
    assert wishes(store) == [(), (10,)]
    store.wished.signal(one, signal.SIGUSR2, actor="alice", now=NOW)
    store.happened.signals_sent(two, 1, signal.SIGUSR1, now=NOW)
    assert wishes(store) == [(12,), ()]


def test_a_signal_that_an_attempt_did_not_live_to_get_is_not_for_the_next_one(
    store: Store,
) -> None:
    job = job_in(store, RUNNING)
    store.wished.signal(job, signal.SIGUSR1, actor="alice", now=NOW)
    fail(store, job)
    store.happened.undelay(job, now=NOW)
    start(store, job, attempt=2)
    assert wishes(store) == [()]
    store.wished.signal(job, signal.SIGUSR2, actor="alice", now=NOW)
    assert wishes(store) == [(12,)]


def test_a_pause_is_wished_for_what_runs_and_only_where_it_changes_something(
    store: Store,
) -> None:
    job = submit_one(store)

    def wish(paused: bool) -> bool:
        return store.wished.pause(job, paused=paused, actor="alice", now=NOW)

    assert not wish(True)
    start(store, job)
    assert (wish(False), wish(True), wish(True)) == (False, True, False)
    assert store.current.active()[0].pause_wished
    assert row(store, job)["paused_by"] == "alice"
    assert (wish(False), wish(False)) == (True, False)
    assert not store.current.active()[0].pause_wished
    end(store, job)
    assert not wish(True)
    assert kinds(store, job)[2:4] == ["pause_asked", "resume_asked"]


def test_a_drain_stands_until_it_is_withdrawn(store: Store) -> None:
    assert store.current.drain() is None
    assert not store.wished.drain(None, actor="bob", now=NOW)
    assert store.wished.drain("new driver", actor="bob", now=NOW)
    assert store.current.drain() == Drain(actor="bob", reason="new driver")
    assert store.wished.drain("a new card as well", actor="alice", now=NOW)
    assert store.current.drain() == Drain(actor="alice", reason="a new card as well")
    assert store.wished.drain(None, actor="bob", now=NOW)
    assert store.current.drain() is None
    assert [(one["kind"], one["actor"], one["cause"]) for one in events(store)] == [
        ("drained", "bob", "new driver"),
        ("drained", "alice", "a new card as well"),
        ("undrained", "bob", "jobs were to be started again"),
    ]


# ─── GPUs after their jobs ───────────────────────────────────────────────────────────────────────


def cool(store: Store, gpu: str = "GPU-0", boot: str = BOOT) -> int:
    job = submit_one(store)
    start(store, job, lease(job, gpu))
    end(store, job, cooling=(MONO, boot))
    return job


def test_a_gpu_cools_until_it_is_released(store: Store) -> None:
    job = cool(store)
    (held,) = store.current.leases()
    assert (held.job, held.state, held.cooling_since) == (job, LeaseState.COOLING, MONO)
    assert store.current.held() == [], "nobody uses it"
    store.machine.release("GPU-0", 0, now=NOW)
    assert store.current.leases() == []
    assert "gpu_clean" not in kinds(store), "it never was anything else"


def test_a_dirty_gpu_says_why_and_that_it_is_clean_again(store: Store) -> None:
    cool(store)
    store.machine.mark_dirty("GPU-0", 0, "5G in use", now=NOW)
    (held,) = store.current.leases()
    assert (held.state, held.dirt, held.cooling_since) == (LeaseState.DIRTY, "5G in use", MONO)
    store.machine.release("GPU-0", 0, now=NOW)
    assert store.current.leases() == []
    told = [(one["kind"], one["gpu"], one["cause"]) for one in events(store)[-2:]]
    assert told == [
        ("gpu_dirty", "GPU-0", "5G in use"),
        ("gpu_clean", "GPU-0", "the memory of an ended job has come back"),
    ]


def test_what_a_job_holds_is_neither_released_nor_dirty(store: Store) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    before = store.current.leases()
    store.machine.release("GPU-0", 0, now=NOW)
    store.machine.mark_dirty("GPU-0", 0, "a mistake", now=NOW)
    assert store.current.leases() == before
    assert kinds(store) == ["submitted", "starting"]


def test_what_cools_since_an_earlier_boot_is_told_apart(store: Store) -> None:
    """Cooling or dirty: after a restart of the machine it is neither."""
    third = Gpu(index=2, uuid="GPU-2", model="H100", simulated=False)
    store.machine.see_gpus([third], now=NOW)
    for gpu, boot in (("GPU-0", "earlier"), ("GPU-1", BOOT), ("GPU-2", "earlier")):
        cool(store, gpu, boot)
    store.machine.mark_dirty("GPU-2", 0, "5G in use", now=NOW)
    running = submit_one(store)
    start(store, running, boot_id="earlier")
    assert [held.gpu for held in store.inherited.stale_cooling(BOOT)] == ["GPU-0", "GPU-2"]


def test_shares_of_one_gpu_cool_one_by_one(store: Store) -> None:
    one, two = submit(store, 2)
    for job in (one, two):
        start(store, job, share(job))
    end(store, one, cooling=(MONO, BOOT))
    assert {h.job: h.state for h in store.current.leases()} == {
        one: LeaseState.COOLING,
        two: LeaseState.ACTIVE,
    }
    store.machine.release("GPU-0", 0, now=NOW)
    assert [held.job for held in store.current.leases()] == [two]


def test_simulated_gpus_are_forgotten_once_others_are_chosen_and_real_ones_are_not(
    store: Store,
) -> None:
    toys = [Gpu(index=i, uuid=f"SIM-{i}", model="toy", simulated=True) for i in range(2)]
    store.machine.see_gpus(toys, now=NOW)
    job = submit_one(store)
    start(store, job, lease(job, "SIM-1"))
    store.machine.forget_other_simulations(toys, "sim:2")

    def known() -> list[str]:
        return [gpu.uuid for gpu in store.machine.known_gpus()]

    store.machine.see_gpus([], now=NOW)
    store.machine.forget_other_simulations([], "sim:2")
    assert sorted(known()) == [*GPUS, "SIM-0", "SIM-1"]
    store.machine.forget_other_simulations([], "nvml")
    assert sorted(known()) == [*GPUS, "SIM-1"], "a job has it"
    end(store, job)
    store.machine.forget_other_simulations([], "nvml")
    assert sorted(known()) == [*GPUS]


def test_a_fact_is_kept_as_it_was_last_noted(store: Store) -> None:
    assert store.machine.fact("probe") is None
    store.machine.note("probe", ["boot", 1, 2])
    store.machine.note("probe", ["boot", 3, 4])
    assert store.machine.fact("probe") == ["boot", 3, 4]


# ─── what people ask for ─────────────────────────────────────────────────────────────────────────


def test_jobs_are_found_by_what_they_do_meanwhile(store: Store) -> None:
    waiting, held, again, plain, paused, stopping, left, stuck, done = submit(store, 9)
    write(store, "update jobs set held_by = 'alice' where id = ?", held)
    for job in (again, plain, paused, stopping, left, stuck, done):
        start(store, job)
        run(store, job)
    fail(store, again)
    store.happened.pause(paused, 1, mono=MONO, now=NOW)
    store.wished.stop(stopping, grace_s=9.0, actor="alice", now=NOW)
    store.happened.main_ended(left, 1, left=1, mono=MONO, now=NOW)
    step(store, stuck, kill=True)
    store.happened.unkillable(stuck, 1, "it hangs", now=NOW)
    end(store, done)

    def found(*states: str) -> list[int]:
        return [one["id"] for one in store.found.jobs(states=states, ended=False)]

    assert found("held") == [held]
    assert found("backoff") == [again]
    assert found("paused") == [paused]
    assert found("stopping") == [stopping, left]
    assert found("unkillable") == [stuck]
    assert found("delayed") == []
    assert found("queued") == [waiting, held, again]
    assert found("backoff", "paused") == [again, paused]
    counts = {"queued": 3, "running": 5, "queued_yours": 3, "held": 1}
    assert store.counted.for_user(ALICE.uid) == counts


def test_a_job_that_waits_again_counts_as_waiting(store: Store) -> None:
    assert not store.current.has_waiting()
    fail(store, job_in(store, RUNNING))
    assert store.current.has_waiting()


def test_what_an_earlier_daemon_left_is_known_by_its_runner_and_its_group(store: Store) -> None:
    job = submit_one(store, stop_to="main")
    start(store, job, cgroup="/sys/fs/cgroup/gpuq/leaf")
    (left,) = store.inherited.unended_attempts()
    assert (left.job, left.attempt, left.state) == (job, 1, STARTING)
    assert (left.boot_id, left.runner_pid, left.runner_start) == (BOOT, 4242, 99)
    assert (left.cgroup, left.stop_to) == ("/sys/fs/cgroup/gpuq/leaf", "main")
    run(store, job)
    assert store.inherited.unended_attempts()[0].state is RUNNING
    fail(store, job)
    assert store.inherited.unended_attempts() == []
