import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import EndCause, Exit, JobState, Outcome, Request
from gpuq.core.scheduling.durations import lasts_s
from gpuq.daemon.store import Store
from gpuq.daemon.store.classes import read_request
from tests import stored
from tests.alive import Alive, MovedClock, alive, shown_by_hand, with_alive
from tests.builders import gpu
from tests.daemon.asking import Asked, asked
from tests.stored import BOOT, MONO, NOW

PATIENT = Request(gpus=1, cpu_after_s=600.0)


@pytest.fixture
def store() -> Iterator[Store]:
    store = stored.with_gpus(Store(":memory:"))
    yield store
    store.close()


def waits_since(store: Store, job: int) -> float | None:
    (found,) = [one for one in store.current.waiting(16) if one.id == job]
    return found.gpu_wait_since


def clock(store: Store, mono: float = MONO) -> None:
    store.falling.count_waits(store.falling.to_clock(), mono=mono, boot_id=BOOT)


def fall(store: Store, job: int) -> bool:
    version = stored.row(store, job)["version"]
    return store.falling.fall_back(job, version=version, why="wants 1 GPU, 0 free", now=NOW)


def request_of(store: Store, job: int) -> Request:
    (found,) = [one for one in store.current.waiting(16) if one.id == job]
    return found.request


# ── the clock ──


def test_only_the_wait_of_those_that_would_make_do_with_the_cpu_counts(store: Store) -> None:
    stored.submit_one(store)
    patient = stored.submit_one(store, request=PATIENT)
    assert store.falling.to_clock() == (patient,)
    clock(store)
    assert store.falling.to_clock() == ()
    assert waits_since(store, patient) == MONO


@pytest.mark.parametrize(
    ("take_away", "give_back"),
    [
        (
            lambda store, job: store.changed.hold(job, job, actor="a", as_admin=False, now=NOW),
            lambda store, job: store.changed.release(job, job, actor="a", now=NOW),
        ),
        (
            lambda store, job: store.wished.stop(job, grace_s=1.0, actor="a", now=NOW),
            lambda store, job: store.changed.undo(job, job, since=0, actor="a", now=NOW),
        ),
        (
            lambda store, job: (stored.start(store, job), stored.fail(store, job)),
            lambda store, job: store.happened.undelay(job, now=NOW),
        ),
    ],
    ids=["held", "stopped", "delayed"],
)
def test_a_wait_begins_anew_for_one_that_could_not_start_meanwhile(
    store: Store, take_away: Callable[..., Any], give_back: Callable[..., Any]
) -> None:
    job = stored.submit_one(store, request=PATIENT, retries=3)
    clock(store)
    take_away(store, job)
    assert store.falling.to_clock() == ()
    give_back(store, job)
    assert store.falling.to_clock() == (job,)
    clock(store, MONO + 50)
    assert waits_since(store, job) == MONO + 50


def test_what_is_wished_otherwise_does_not_touch_the_wait(store: Store) -> None:
    job = stored.submit_one(store, request=PATIENT)
    clock(store)
    store.changed.prioritise(job, job, -5, actor="a", now=NOW)
    assert waits_since(store, job) == MONO


def test_a_wait_goes_on_under_another_daemon_and_not_over_a_restart_of_the_machine(
    store: Store,
) -> None:
    job = stored.submit_one(store, request=PATIENT)
    clock(store)
    store.falling.forget_waits(BOOT)
    assert waits_since(store, job) == MONO
    store.falling.forget_waits("the next boot")
    assert store.falling.to_clock() == (job,)


# ── the fall ──


def test_one_that_falls_back_asks_for_the_cpu_alone_and_that_is_told(store: Store) -> None:
    asked = replace(PATIENT, gpus=2, gpu_mem_bytes=2**30, exclusive=False, cpus=3)
    job = stored.submit_one(store, request=asked)
    clock(store)
    assert fall(store, job)
    assert request_of(store, job) == Request(gpus=0, cpus=3)
    (event,) = [one for one in stored.events(store) if one["kind"] == "cpu_fallback"]
    assert "waited 10:00 for GPUs: wants 1 GPU, 0 free" in event["cause"]
    assert event["detail"] == '{"gpus": 2, "cpus": 3}'
    assert store.falling.to_clock() == ()


@pytest.mark.parametrize("meanwhile", ["held", "edited", "started", "stopped"])
def test_nobody_falls_back_of_whom_something_else_is_wished_by_then(
    store: Store, meanwhile: str
) -> None:
    job = stored.submit_one(store, request=PATIENT)
    clock(store)
    version = stored.row(store, job)["version"]
    if meanwhile == "held":
        store.changed.hold(job, job, actor="a", as_admin=False, now=NOW)
    elif meanwhile == "edited":
        store.changed.prioritise(job, job, -1, actor="a", now=NOW)
    elif meanwhile == "started":
        stored.start(store, job, stored.lease(job))
    else:
        store.wished.stop(job, grace_s=1.0, actor="a", now=NOW)
    assert not store.falling.fall_back(job, version=version, why="", now=NOW)
    assert "cpu_fallback" not in stored.kinds(store)


def test_elements_of_an_array_are_told_apart_only_as_they_fall_back(store: Store) -> None:
    first = _array(store, 100_000)
    clock(store)
    assert stored.count(store, "jobs") == 1
    assert fall(store, first + 5)
    rows = [(row["id"], row["last_id"]) for row in store.found.jobs(ended=False)]
    assert rows == [(first, first + 4), (first + 5, first + 5), (first + 6, first + 99_999)]
    assert waits_since(store, first + 6) == MONO


def test_its_retries_stay_on_the_cpu(store: Store) -> None:
    job = stored.submit_one(store, request=PATIENT, retries=3)
    clock(store)
    fall(store, job)
    stored.start(store, job)
    stored.run(store, job)
    stored.fail(store, job)
    store.happened.undelay(job, now=NOW)
    assert request_of(store, job) == Request(gpus=0)
    assert store.falling.to_clock() == ()


@pytest.mark.parametrize("state", ["queued", "running", "ended"])
def test_a_requeue_gives_its_claim_to_gpus_back(store: Store, state: str) -> None:
    job = stored.submit_one(store, request=PATIENT)
    clock(store)
    fall(store, job)
    if state != "queued":
        stored.start(store, job)
        stored.run(store, job)
    if state == "ended":
        stored.end(store, job)
    store.changed.requeue(job, job, actor="ann", now=NOW)
    if state == "running":
        failed = stored.ended(job, Exit(signal=15, ended_at=NOW), Outcome.CANCELLED)
        store.happened.give_back(failed, EndCause.REQUEUED, now=NOW)
    else:
        store.returned.requeue(job, now=NOW, boottime=MONO, boot_id=BOOT)
    assert request_of(store, job) == PATIENT
    assert store.falling.to_clock() == (job,)
    assert stored.row(store, job)["state"] == JobState.QUEUED


def test_what_was_edited_on_the_cpu_stays_edited_when_it_waits_for_gpus_again(
    tmp_path: Path,
) -> None:
    async def deed(at: Asked) -> None:
        request = replace(PATIENT, gpus=2, gpu_mem_bytes=2**30, cpus=1, lasts_s=500.0)
        job = at.daemon.submit("true", request=request, held=True)
        at.store.changed.release(job, job, actor="alice", now=NOW)
        assert fall(at.store, job)
        at.store.changed.hold(job, job, actor="alice", as_admin=False, now=NOW)
        await at.do("edit", job, changes={"cpus": 2, "time_limit_s": 90.0})
        assert await at.done("requeue", job) == ["wants_gpus_again"]
        await at.daemon.until(lambda: at.daemon.row(job)["gpu_request"] is None, "its claim")
        text = at.store.database.value(
            "select c.request from jobs j join classes c on c.id = j.class where j.id = ?", (job,)
        )
        wanted = replace(request, cpus=2, lasts_s=lasts_s(90.0, None))
        assert read_request(text) == wanted
        assert (await at.seen(job))["time_limit_s"] == 90.0

    asked(tmp_path, deed)


def test_an_undone_cancel_leaves_it_on_the_cpu(store: Store) -> None:
    job = stored.submit_one(store, request=PATIENT)
    clock(store)
    fall(store, job)
    store.wished.stop(job, grace_s=1.0, actor="ann", now=NOW)
    store.happened.cancel(job, actor="ann", now=NOW)
    store.changed.undo(job, job, since=0.0, actor="ann", now=NOW)
    store.returned.requeue(job, now=NOW, boottime=MONO, boot_id=BOOT)
    assert request_of(store, job) == Request(gpus=0)


def test_one_that_gave_way_stays_where_it_was(store: Store) -> None:
    job = stored.submit_one(store, request=PATIENT)
    clock(store)
    fall(store, job)
    stored.start(store, job)
    stored.run(store, job)
    ended = stored.ended(job, Exit(signal=15, ended_at=NOW), Outcome.CANCELLED)
    store.happened.give_back(ended, EndCause.PREEMPTED, now=NOW)
    assert request_of(store, job) == Request(gpus=0)


def _array(store: Store, count: int) -> int:
    elements = Elements(indices=(range(count),))
    return stored.submit_one(store, request=PATIENT, elements=elements)


# ── alive ──


def the_gpu(**more: Any) -> Gpu:
    return Gpu(
        index=0, uuid="GPU-0", model="H100", simulated=True, memory_total_bytes=2**34, **more
    )


def test_a_job_runs_on_the_cpu_once_it_has_waited_and_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        await daemon.show(the_gpu())
        first = daemon.submit("echo $GPUQ_DEVICE >first; exec sleep 600", request=Request(gpus=1))
        await daemon.running(first)
        patient = daemon.submit("echo $GPUQ_DEVICE >patient", request=PATIENT)
        await daemon.turn()
        await daemon.turn()
        assert daemon.loop.plan.wake_at is not None
        assert "after 10:00 of waiting" in daemon.loop.plan.reasons[patient]
        clock.awake_s += 599
        await daemon.turn()
        assert daemon.row(patient)["state"] == "queued"
        clock.awake_s += 1
        await daemon.turn()
        assert (await daemon.ended(patient))["outcome"] == "succeeded"
        assert (tmp_path / "first").read_text() == "cuda\n"
        assert (tmp_path / "patient").read_text() == "cpu\n"
        kinds = stored.kinds(daemon.store, patient)
        assert kinds[:3] == ["submitted", "cpu_fallback", "starting"]

    with_alive(tmp_path, deed, clock, gpus="sim:1x16G")


def test_a_wait_counts_on_while_no_daemon_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)
    clock = MovedClock()

    async def live() -> None:
        async with alive(tmp_path, clock, leave=True, gpus="sim:1x16G") as daemon:
            await daemon.show(the_gpu())
            first = daemon.submit("exec sleep 600", request=Request(gpus=1))
            await daemon.running(first)
            patient = daemon.submit("true", request=PATIENT)
            await daemon.turn()
            await daemon.turn()
        clock.awake_s += 600
        async with alive(tmp_path, clock, gpus="sim:1x16G") as daemon:
            await daemon.turn()
            assert daemon.row(patient)["state"] == "queued"  # nothing is known of the GPUs yet
            await daemon.show(the_gpu())
            await daemon.ended(patient)
            assert "cpu_fallback" in stored.kinds(daemon.store, patient)

    asyncio.run(live())


# ── asked for otherwise ──


def test_how_long_it_waits_is_edited_like_all_that_it_asks_for(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        at.store.machine.see_gpus([gpu(0, simulated=True)], now=NOW)
        await at.daemon.show(gpu(0, simulated=True))
        at.daemon.drain("nothing is to start")
        job = at.wait_for_ever()
        await at.do("edit", job, changes={"cpu_after_s": 60})
        assert (await at.seen(job))["cpu_after_s"] == 60.0
        await at.daemon.turn()
        assert at.store.database.value("select gpu_wait_mono from jobs") is not None
        await at.do("edit", job, changes={"cpu_after_s": None})
        assert (await at.seen(job))["cpu_after_s"] is None
        assert at.store.falling.to_clock() == ()

    asked(tmp_path, deed)


def test_what_it_has_given_up_is_given_back_before_it_is_edited(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("true", request=PATIENT, held=True)
        at.store.changed.release(job, job, actor="alice", now=NOW)
        assert fall(at.store, job)
        at.store.changed.hold(job, job, actor="alice", as_admin=False, now=NOW)
        assert "gpuq requeue" in await at.why("edit", job, changes={"gpus": 2})
        (done,) = await at.do("edit", job, changes={"time_limit_s": 90.0})
        assert done["done"] == "edited"
        seen = await at.seen(job)
        assert (seen["device"], seen["gpu_count"], seen["time_limit_s"]) == ("cpu", 0, 90.0)
        assert seen["cpu_fallback"]["gpus"] == 1
        assert seen["cpu_after_s"] == 600.0

    asked(tmp_path, deed)
