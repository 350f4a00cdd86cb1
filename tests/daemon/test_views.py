"""What people are shown of a job and of a GPU is what is the case."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gpuq.core.decisions import Plan
from gpuq.core.gpus.gpu import Gpu, GpuState
from gpuq.core.model import EndCause, Exit, JobState, Lease, Outcome, Request
from gpuq.core.policy import Policy
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.requests.views import attempt_view, gpu_view, job_view
from gpuq.daemon.store import Store
from tests import stored
from tests.builders import foreign, gpu, lease, ours
from tests.stored import MONO, NOW, end, fail, job_in, row, run, start, step, submit_one

RUNNING, STARTING, ENDED, QUEUED = (
    JobState.RUNNING,
    JobState.STARTING,
    JobState.ENDED,
    JobState.QUEUED,
)
NO_PLAN = Plan()


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as store:
        yield stored.with_gpus(store)


def shown(store: Store, job: int, plan: Plan = NO_PLAN) -> dict[str, Any]:
    view = job_view(row(store, job), plan, "/state", sight=Sight.ALL)
    assert json.loads(json.dumps(view)) == view, "it goes over the wire as it is"
    return view


def told(store: Store, job: int, plan: Plan = NO_PLAN) -> tuple[str, str | None, str | None]:
    """(state, substate, reason)"""
    view = shown(store, job, plan)
    return view["state"], view["substate"], view["reason"]


# ─── what it does meanwhile ──────────────────────────────────────────────────────────────────────


def test_a_job_that_waits_says_for_what(store: Store) -> None:
    job, other = stored.submit(store, 2)
    class_id = row(store, job)["class"]
    assert told(store, job) == ("queued", None, "about to be considered")
    waits = Plan(reasons={job: "wants 1 GPU, 0 free (in use by job 7)"}, heads={class_id: job})
    assert told(store, job, waits)[2] == "wants 1 GPU, 0 free (in use by job 7)"
    assert told(store, other, waits)[2] == f"behind {job}", "however far behind it is"


def test_a_drained_queue_is_every_waiting_jobs_reason(store: Store) -> None:
    """Also of those that no turn has looked at."""
    job = submit_one(store)
    drained = Plan(standstill="the queue is drained by bob: new driver", heads={1: 99})
    assert told(store, job, drained) == ("queued", None, "the queue is drained by bob: new driver")


def test_a_job_that_nobody_wants_any_more_says_so_until_it_is_gone(store: Store) -> None:
    job = submit_one(store)
    store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    plan = Plan(standstill="the queue is drained by bob: new driver")
    assert told(store, job, plan) == ("queued", None, "about to be cancelled")
    store.happened.cancel(job, actor="bob", now=NOW)
    assert told(store, job) == ("ended", None, "cancelled by bob while it was queued")


def test_a_job_that_waits_for_its_next_attempt_says_why_and_until_when(store: Store) -> None:
    job = job_in(store, RUNNING, retries=2, backoff="60s", retry_on="failed")
    start_view = shown(store, job)
    fail(store, job)
    drained = Plan(standstill="the queue is drained by bob: new driver")
    view = shown(store, job, drained)
    assert (view["state"], view["substate"]) == ("queued", "backoff")
    assert view["reason"] == "exit code 3; attempt 2 of 3 in 60 s"
    assert view["delayed_until"] == NOW + 60
    assert (view["attempt"], view["retries"], view["backoff"]) == (1, 2, "60s")
    assert view["retry_on"] == "failed"
    assert (view["pid"], view["gpus"], view["started_at"]) == (None, [], None)
    assert (view["outcome"], view["exit_code"], view["signal"]) == (None, None, None)
    assert start_view["delayed_until"] is None
    store.happened.undelay(job, now=NOW)
    assert told(store, job) == ("queued", None, "about to be considered")


def test_a_held_job_is_held(store: Store) -> None:
    job = submit_one(store)
    stored.write(store, "update jobs set held_by = 'ann' where id = ?", job)
    assert told(store, job)[:2] == ("queued", "held")


def test_a_job_that_just_runs_needs_no_reason(store: Store) -> None:
    job = job_in(store, STARTING)
    assert told(store, job) == ("starting", None, None)
    run(store, job)
    assert told(store, job) == ("running", None, None)


def test_a_paused_job_says_by_whom_and_what_that_keeps(store: Store) -> None:
    job = job_in(store, RUNNING)
    store.wished.pause(job, paused=True, actor="ann", now=NOW)
    assert told(store, job) == ("running", None, None), "it still runs"
    store.happened.pause(job, 1, mono=MONO, now=NOW)
    paused = "paused by ann; its memory, and that of its GPUs, stays in use"
    assert told(store, job) == ("running", "paused", paused)
    store.wished.pause(job, paused=False, actor="ann", now=NOW)
    store.happened.resume(job, 1, mono=MONO + 70, now=NOW)
    assert told(store, job) == ("running", None, None)
    assert shown(store, job)["paused_s"] == 70.0


@pytest.mark.parametrize(
    ("cause", "kill", "reason"),
    [
        (EndCause.ASKED, False, "TERM sent: it is to end, asked by bob"),
        (EndCause.ASKED, True, "KILL sent: it is to end, asked by bob"),
        (EndCause.TIME_LIMIT, False, "TERM sent: it reached its time limit"),
        (EndCause.HEARTBEAT, True, "KILL sent: it gave no sign of life for too long"),
    ],
)
def test_a_job_that_is_being_ended_says_for_what_and_how_far_that_is(
    store: Store, cause: EndCause, kill: bool, reason: str
) -> None:
    job = job_in(store, RUNNING)
    store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    assert told(store, job)[:2] == ("running", "stopping")
    step(store, job, cause=cause, kill=kill)
    assert told(store, job) == ("running", "stopping", reason)


def test_a_limit_alone_is_enough_to_be_stopping(store: Store) -> None:
    job = job_in(store, RUNNING)
    step(store, job, cause=EndCause.TIME_LIMIT)
    assert told(store, job)[1] == "stopping"


def test_what_is_left_of_a_job_is_being_ended(store: Store) -> None:
    job = job_in(store, RUNNING)
    store.happened.main_ended(job, 1, left=2, mono=MONO, now=NOW)
    left = "its main process has ended; what it left behind is being ended"
    assert told(store, job) == ("running", "stopping", left)


def test_an_unkillable_job_says_what_survives(store: Store) -> None:
    job = job_in(store, RUNNING)
    store.happened.pause(job, 1, mono=MONO, now=NOW)
    step(store, job, kill=True)
    store.happened.unkillable(job, 1, "4711 (python) hangs in the driver", now=NOW)
    survives = "survives KILL: 4711 (python) hangs in the driver"
    assert told(store, job) == ("running", "unkillable", survives)
    (attempt,) = store.found.attempts(job)
    view = attempt_view(attempt, row(store, job), "/state", sight=Sight.ALL)
    assert view["unkillable"] == "4711 (python) hangs in the driver"


def test_an_ended_job_has_no_substate_whatever_it_was_before(store: Store) -> None:
    job = job_in(store, RUNNING)
    store.wished.pause(job, paused=True, actor="ann", now=NOW)
    store.happened.pause(job, 1, mono=MONO, now=NOW)
    step(store, job, kill=True)
    store.happened.unkillable(job, 1, "it hung", now=NOW)
    end(store, job)
    assert told(store, job) == ("ended", None, "exit code 0")


# ─── how it ended ────────────────────────────────────────────────────────────────────────────────


def test_a_job_ended_as_its_last_attempt_did(store: Store) -> None:
    job = job_in(store, RUNNING)
    end(store, job, exit=Exit(signal=9), outcome=Outcome.FAILED, reason="ended by SIGKILL")
    view = shown(store, job)
    assert (view["outcome"], view["exit_code"], view["signal"]) == ("failed", None, 9)


def test_a_job_that_was_cancelled_between_two_attempts_did_not_end_as_the_last_of_them(
    store: Store,
) -> None:
    job = job_in(store, RUNNING)
    fail(store, job)
    store.happened.cancel(job, actor="bob", now=NOW)
    view = shown(store, job)
    assert (view["outcome"], view["exit_code"], view["signal"]) == ("cancelled", None, None)
    (attempt,) = store.found.attempts(job)
    kept = attempt_view(attempt, row(store, job), "/state", sight=Sight.ALL)
    assert (kept["outcome"], kept["exit_code"]) == ("failed", 3)


def test_each_attempt_is_shown_with_its_own_end_and_its_own_log(store: Store) -> None:
    job = submit_one(store, retries=1)
    start(store, job, stored.lease(job), gpu_indices=(0,))
    run(store, job)
    fail(store, job, reason="exit code 3")
    store.happened.undelay(job, now=NOW)
    start(store, job, attempt=2, cgroup="/sys/fs/cgroup/x")
    first, second = (
        attempt_view(one, row(store, job), "/state", sight=Sight.ALL)
        for one in store.found.attempts(job)
    )
    assert (first["outcome"], first["reason"], first["gpus"]) == ("failed", "exit code 3", [0])
    assert (first["log"], first["output_dir"]) == (
        f"/state/jobs/{job}/1/log",
        f"/state/jobs/{job}/1/output",
    )
    assert (second["outcome"], second["gpus"], second["cgroup"]) == (None, [], "/sys/fs/cgroup/x")
    assert second["log"] == f"/state/jobs/{job}/2/log"
    assert shown(store, job)["log"] == second["log"]
    assert json.loads(json.dumps(first)) == first


def test_a_log_that_was_asked_for_elsewhere_is_every_attempts(store: Store) -> None:
    job = submit_one(store, output=b"/data/\xff.log")
    start(store, job)
    (attempt,) = store.found.attempts(job)
    view = attempt_view(attempt, row(store, job), "/state", sight=Sight.ALL)
    assert view["log"] == "/data/\udcff.log"
    assert shown(store, job)["log"] == "/data/\udcff.log"


# ─── what it is ──────────────────────────────────────────────────────────────────────────────────


def test_what_was_asked_is_shown_as_it_was_asked(store: Store) -> None:
    job = submit_one(
        store,
        argv=(b"python", b"\xff"),
        request=Request(gpus=2, gpu_mem_bytes=2**30, exclusive=False, gpu_model="H100"),
        time_limit_s=60.0,
        heartbeat_s=5.0,
        grace_s=7.0,
        stop_to="main",
        key="night:ly",
        tags=("a", "b"),
        priority=4,
        seed=9,
        visible="uuid",
    )
    view = shown(store, job)
    assert view["command"] == ["python", "\udcff"]
    assert (view["gpu_count"], view["gpu_mem_bytes"], view["exclusive"]) == (2, 2**30, False)
    assert (view["gpu_model"], view["cpus"]) == ("H100", 1)
    assert (view["time_limit_s"], view["heartbeat_s"], view["grace_s"]) == (60.0, 5.0, 7.0)
    assert (view["stop_to"], view["key"], view["tags"]) == ("main", "night:ly", ["a", "b"])
    assert (view["priority"], view["seed"], view["visible"]) == (4, 9, "uuid")
    assert (view["group"], view["attempt"], view["log"]) == (f"g{job}", 0, None)


def test_a_job_shows_its_gpus_while_it_has_them_and_afterwards(store: Store) -> None:
    job = submit_one(store)
    start(store, job, stored.lease(job), gpu_indices=(0,), simulated=True)
    run(store, job)
    for _ in range(2):
        view = shown(store, job)
        assert (view["gpus"], view["gpu_uuids"]) == ([0], ["GPU-0"])
        assert (view["gpus_simulated"], view["pid"]) == (True, 4243)
        if view["state"] == "running":
            end(store, job)


# ─── GPUs ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("card", "leases", "state", "reason"),
    [
        (gpu(0), [], GpuState.FREE, None),
        (gpu(0), [lease(0, 7)], GpuState.LEASED, None),
        (
            gpu(0, used="5G"),
            [lease(0, 7, cooling_since=1.0)],
            GpuState.COOLING,
            "waiting until the memory of the last job is free again",
        ),
        (
            gpu(0, used="5G"),
            [lease(0, 7, cooling_since=1.0, dirt="5G in use")],
            GpuState.DIRTY,
            "memory of job 7 has not come back: 5G in use",
        ),
        (gpu(0, fault="is lost"), [], GpuState.LOST, "is lost"),
        (gpu(0, processes=[foreign()]), [], GpuState.FOREIGN, "outside gpuq: python 4242 bob"),
    ],
)
def test_a_gpu_says_what_it_is_and_why(
    card: Gpu, leases: list[Lease], state: GpuState, reason: str | None
) -> None:
    view = gpu_view(card, [*leases, lease(1, 99)], Policy())
    assert (view["state"], view["reason"]) == (state, reason)
    assert view["jobs"] == [one.job for one in leases]
    assert json.loads(json.dumps(view)) == view


def test_a_process_on_a_gpu_is_ours_or_somebody_elses() -> None:
    view = gpu_view(gpu(0, processes=[foreign(), ours(7)]), [lease(0, 7)], Policy())
    assert [(one["pid"], one["ours"], one["job"]) for one in view["processes"]] == [
        (4242, False, None),
        (1007, True, 7),
    ]
    assert view["exclusive"]


def test_an_absent_reading_is_null_and_never_zero() -> None:
    view = gpu_view(gpu(0, mem=None, used=None, processes=None), [], Policy())
    absent = ("memory_total_bytes", "memory_used_bytes", "memory_free_bytes", "temperature_c")
    assert [view[name] for name in absent] == [None] * 4
    assert view["processes"] == []
