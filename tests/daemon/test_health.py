"""What happens to a GPU that is not well, in the whole daemon: real jobs and tests, GPUs by hand."""

import asyncio
import errno
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.events import special_cause
from gpuq.core.gpus.gpu import Gpu, GpuState
from gpuq.core.model import EndCause, Request
from gpuq.daemon.gpus.locks import GpuLocks
from gpuq.daemon.linux import processes
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.health import Health
from gpuq.daemon.testing import MOST_BYTES, Child, Examined, GpuTests, _Child
from tests import stored, stub_cuda
from tests.alive import LOCKS, Alive, MovedClock, alive, shown_by_hand, with_alive
from tests.builders import gpu, ours, uuid
from tests.desk import until

ONE = Request(gpus=1)
SHARE = Request(gpus=1, exclusive=False, gpu_mem_bytes=2**30)
FOR_EVER = "exec sleep 600"
MINUTE_S = 60.0
LOST = {"fault": "has fallen off the bus", "is_lasting": True}


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_by_hand(monkeypatch)


def toy(index: int = 0, **more: Any) -> Gpu:
    """A simulated GPU: its test is a real process, and soon over."""
    return gpu(index, simulated=True, cools_at_once=True, **more)


def told(daemon: Alive, kind: str, index: int | None = None) -> list[str | None]:
    """The causes of the events of that kind, in order; None: only the usual one."""
    found = (one for one in stored.events(daemon.store) if one["kind"] == kind)
    return [
        special_cause(kind, one["cause"])
        for one in found
        if index is None or one["gpu"] == uuid(index)
    ]


def state(daemon: Alive, index: int = 0) -> tuple[GpuState, str | None]:
    from gpuq.core.gpus.condition import assess

    (seen,) = (one for one in daemon.loop.gpus or () if one.index == index)
    held = [lease for lease in daemon.store.current.leases() if lease.gpu == seen.uuid]
    return assess(seen, held, daemon.config.policy())


async def known_to_be_free(daemon: Alive, card: Gpu) -> None:
    """A real one is seen calm for a while first."""
    for _ in range(3):
        await daemon.show(card)
        daemon.clock.awake_s += 2.0
    assert state(daemon) == (GpuState.FREE, None)


async def has_tested(daemon: Alive, times: int) -> None:
    await until(lambda: len(told(daemon, "gpu_tested")) == times, f"test {times} to end")
    await daemon.turn()


# ─── jobs that fail, and what the driver tells ───────────────────────────────────────────────────


def test_three_quick_failures_get_a_gpu_tested_and_no_more(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        for _ in range(2):
            await daemon.ended(daemon.submit("exit 3", request=ONE))
        await daemon.ended(daemon.submit("true", request=ONE))
        for _ in range(3):
            assert told(daemon, "gpu_tested") == [], "not three in a row"
            await daemon.ended(daemon.submit("exit 3", request=ONE))
        follows = daemon.submit("true", request=ONE)
        await has_tested(daemon, 1)
        assert (await daemon.ended(follows))["outcome"] == "succeeded"
        assert told(daemon, "gpu_quarantined") == []
        assert daemon.store.health.rows()[uuid(0)].fast_failures == 0

    with_alive(tmp_path, deed)


def test_a_test_ends_a_row_of_quick_failures() -> None:
    store = stored.with_gpus(Store(":memory:"))
    for _ in range(3):
        store.health.count_end(["GPU-0"], against=True)
    store.health.tested("GPU-0", None, {}, now=1.0)
    assert store.health.rows()["GPU-0"].fast_failures == 0
    store.close()


@pytest.mark.parametrize("xid", [13, 45, 63])
def test_what_the_driver_tells_of_quick_failures_does_not_make_their_test_bad(
    tmp_path: Path, xid: int
) -> None:
    """Of an application, or a mere warning: no hardware that failed."""

    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        for _ in range(3):
            await daemon.ended(daemon.submit("exit 3", request=ONE))
        await until(daemon.loop._health.held, "the test to begin")
        await daemon.show(toy(xids=(xid,)))
        await has_tested(daemon, 1)
        assert told(daemon, "gpu_tested") == [None]
        assert told(daemon, "gpu_quarantined") == []
        assert state(daemon) == (GpuState.FREE, None)

    with_alive(tmp_path, deed)


def test_an_error_that_a_full_disk_refuses_is_told_as_soon_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*told: Any, **how: Any) -> None:
        raise DiskTrouble("the disk is full")

    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        gate = f"while ! [ -e {tmp_path}/on ]; do sleep 0.01; done; exit 3"
        await daemon.running(job := daemon.submit(gate, request=ONE))
        with monkeypatch.context() as full:
            full.setattr(Health, "tell_xids", refused)
            for _ in range(2):
                await daemon.show(toy(xids=(31,)))
            (calm,) = daemon.loop._lookout.gpus or ()
            assert daemon.loop._health.take_reading([replace(calm, xids=())], []), "tried again"
        await daemon.turn()
        assert told(daemon, "xid") == ["XID 31: its own memory access fault"]
        (tmp_path / "on").touch()
        because = "the driver told of XID 31 on GPU 0 meanwhile: its own memory access fault"
        assert (await daemon.ended(job))["reason"] == f"exit code 3; {because}"

    with_alive(tmp_path, deed)


def test_what_people_end_is_no_failure_of_a_gpu(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        for _ in range(3):
            job = daemon.submit(FOR_EVER, request=ONE)
            await daemon.running(job)
            daemon.kill(job, grace_s=0.0)
            await daemon.ended(job)
        await daemon.ended(daemon.submit("no-such-program", request=ONE, argv=(b"no-such",)))
        await daemon.turn()
        assert daemon.store.health.rows()[uuid(0)].fast_failures == 0

    with_alive(tmp_path, deed)


def test_what_goes_down_with_the_machine_is_no_failure_of_a_gpu(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        for _ in range(3):
            job = daemon.submit(FOR_EVER, request=ONE)
            await daemon.running(job)
            daemon.loop.close_down(EndCause.SHUTDOWN, 5.0)
            assert (await daemon.ended(job))["outcome"] == "lost"
            daemon.loop.close_down(None)
        await daemon.turn()
        rows = daemon.store.health.rows()
        assert uuid(0) not in rows or rows[uuid(0)].fast_failures == 0

    with_alive(tmp_path, deed)


def test_an_error_that_is_a_jobs_own_stands_in_its_end(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(2))
        job = daemon.submit(
            f"while ! [ -e {tmp_path}/on ]; do sleep 0.01; done; exit 3", request=ONE
        )
        await daemon.running(job)
        for _ in range(3):  # however often it is told
            await daemon.show(toy(2, xids=(31,)))
        (tmp_path / "on").touch()
        because = "the driver told of XID 31 on GPU 2 meanwhile: its own memory access fault"
        assert (await daemon.ended(job))["reason"] == f"exit code 3; {because}"
        assert daemon.store.health.xids(job, 1) == [(31, 2)]
        assert told(daemon, "xid") == ["XID 31: its own memory access fault"]
        assert state(daemon, 2) == (GpuState.FREE, None)

    with_alive(tmp_path, deed)


def test_an_error_that_is_told_after_the_end_stands_in_it_too(tmp_path: Path) -> None:
    """The GPU cools, so whose it was is known."""

    async def deed(daemon: Alive) -> None:
        await known_to_be_free(daemon, gpu())
        await daemon.ended(job := daemon.submit("exit 3", request=ONE))
        await daemon.show(gpu(xids=(13,)))
        because = "the driver told of XID 13 on GPU 0 meanwhile"
        assert because in daemon.row(job)["reason"]
        assert because in daemon.attempts(job)[0]["reason"]

    with_alive(tmp_path, deed)


def test_a_job_that_goes_well_is_not_told_of(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        job = daemon.submit(f"while ! [ -e {tmp_path}/on ]; do sleep 0.01; done", request=ONE)
        await daemon.running(job)
        await daemon.show(toy(xids=(13,)))
        (tmp_path / "on").touch()
        assert (await daemon.ended(job))["reason"] == "exit code 0"
        assert daemon.store.health.xids(job, 1) == [(13, 0)]

    with_alive(tmp_path, deed)


# ─── set aside, and back ─────────────────────────────────────────────────────────────────────────


def test_a_gpu_of_which_the_driver_tells_an_error_is_set_aside_until_a_test_is_good(
    tmp_path: Path,
) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(xids=(79,)))
        why = "the driver told of XID 79: it has fallen off the bus"
        await daemon.turn()
        assert told(daemon, "gpu_quarantined") == [why]
        assert state(daemon) == (GpuState.QUARANTINED, f"set aside: {why}")
        await daemon.show(toy())
        job = daemon.submit("true", request=ONE)
        await daemon.turn()
        assert daemon.row(job)["state"] == "queued"
        assert daemon.loop.plan.reasons[job] == f"wants 1 GPU, 0 free (GPU 0 set aside: {why})"
        daemon.clock.asleep_s += MINUTE_S - 1.0
        await daemon.turn()
        assert told(daemon, "gpu_tested") == []
        daemon.clock.asleep_s += 1.0
        await daemon.turn()
        await has_tested(daemon, 1)
        assert (await daemon.ended(job))["outcome"] == "succeeded"
        assert told(daemon, "gpu_readmitted") == ["its test was good"]

    with_alive(tmp_path, deed)


def test_of_a_gpu_that_is_set_aside_the_driver_need_not_tell_again(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(xids=(79,)))
        await daemon.turn()
        await daemon.show(toy(xids=(48,)))
        await daemon.turn()
        assert len(told(daemon, "gpu_quarantined")) == 1
        (calm,) = daemon.loop._lookout.gpus or ()
        assert not daemon.loop._health.take_reading([replace(calm, xids=())], [])

    with_alive(tmp_path, deed)


def test_a_running_job_stays_on_a_gpu_that_is_set_aside(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        job = daemon.submit(FOR_EVER, request=SHARE)
        await daemon.running(job)
        await daemon.show(toy(defect="row remapping has failed", processes=[ours(job)]))
        waits = daemon.submit("true", request=SHARE)
        await daemon.turn()
        assert state(daemon)[0] is GpuState.QUARANTINED
        assert (daemon.row(job)["state"], daemon.row(waits)["state"]) == ("running", "queued")

    with_alive(tmp_path, deed)


def test_a_fault_that_lasts_outlasts_good_readings_and_daemons_and_ends_with_a_word(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(toy(**LOST))
            await first.turn()
            assert state(first) == (GpuState.LOST, "has fallen off the bus")
        async with alive(tmp_path, MovedClock(asleep_s=3600.0)) as second:
            await second.show(toy())
            await second.turn()
            assert state(second) == (GpuState.QUARANTINED, "set aside: has fallen off the bus")
            assert told(second, "gpu_tested") == [], "no test mends that"
            second.store.wished.resume_gpu(uuid(0), untested=False, actor="ann", now=0.0)
            await second.turn()
            await has_tested(second, 1)
            assert state(second) == (GpuState.FREE, None)
            assert told(second, "gpu_readmitted") == ["its test was good; resumed by ann"]

    asyncio.run(main())


def test_after_a_restart_of_the_machine_a_good_test_will_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(toy(**LOST))
            await first.turn()
            stored.write(first.store, "update gpu_health set boot_id = 'earlier'")
        async with alive(tmp_path, MovedClock(asleep_s=MINUTE_S)) as second:
            await second.show(toy())
            await second.turn()
            await has_tested(second, 1)
            assert told(second, "gpu_readmitted") == ["its test was good"]

    asyncio.run(main())


def test_who_resumes_a_gpu_untested_has_it_at_once_and_with_its_defect(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(defect="row remapping has failed"))
        await daemon.turn()
        daemon.store.wished.resume_gpu(uuid(0), untested=True, actor="ann", now=1.0)
        await daemon.turn()
        assert state(daemon) == (GpuState.FREE, None)
        assert told(daemon, "gpu_readmitted") == ["resumed by ann without a test"]
        assert told(daemon, "gpu_tested") == []
        await daemon.show(toy(defect="row remapping has failed"))
        await daemon.turn()
        assert state(daemon)[0] is GpuState.FREE
        await daemon.show(toy(defect="another"))
        await daemon.turn()
        assert state(daemon)[0] is GpuState.QUARANTINED

    with_alive(tmp_path, deed)


def test_no_setting_of_the_clock_keeps_a_gpu_from_its_test(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(xids=(48,)))
        await daemon.turn()
        await daemon.show(toy())
        daemon.clock.set_s = -3600.0
        await daemon.turn()
        assert told(daemon, "gpu_tested") == []
        daemon.clock.asleep_s += MINUTE_S
        await daemon.turn()
        await has_tested(daemon, 1)
        assert state(daemon) == (GpuState.FREE, None)

    with_alive(tmp_path, deed)


def test_a_wait_for_a_test_goes_on_with_another_daemon(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(toy(xids=(48,)))
            await first.turn()
        async with alive(tmp_path, MovedClock(asleep_s=MINUTE_S / 2)) as second:
            await second.show(toy())
            await second.turn()
            assert told(second, "gpu_tested") == []
            assert second.loop.plan.undelay_at is not None
            left_s = second.loop.plan.undelay_at - second.clock.boottime()
            assert 0.0 < left_s <= MINUTE_S / 2

    asyncio.run(main())


def test_nor_does_a_clock_that_was_set_while_no_daemon_was_there(tmp_path: Path) -> None:
    """What an earlier daemon did is known by the wall clock alone."""

    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(toy(xids=(48,)))
            await first.turn()
        clock = MovedClock()
        clock.set_s = -3600.0
        async with alive(tmp_path, clock) as second:
            await second.show(toy())
            for seconds in (-3600.0, 3600.0, -7200.0):
                clock.set_s = seconds
                await second.turn()
                assert second.loop.plan.undelay_at is not None
                left_s = second.loop.plan.undelay_at - clock.boottime()
                assert MINUTE_S / 2 < left_s <= MINUTE_S

    asyncio.run(main())


def test_a_gpu_that_only_warns_is_set_aside_where_the_settings_say_so(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(warnings=("ECC is off",)))
        assert state(daemon) == (GpuState.QUARANTINED, "set aside: ECC is off (strict_health)")
        job = daemon.submit("true", request=ONE)
        await daemon.turn()
        assert daemon.row(job)["state"] == "queued"
        await daemon.show(toy())
        assert (await daemon.ended(job))["outcome"] == "succeeded"
        assert told(daemon, "gpu_quarantined") == []

    with_alive(tmp_path, deed, strict_health=True)


def test_a_simulated_gpu_that_is_missing_for_a_while_is_still_drained_and_set_aside(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with alive(tmp_path, gpus="sim:3x24G", leave=True) as first:
            await first.show(toy(0), toy(1), toy(2, defect="rows"))
            await first.turn()
            first.store.wished.drain_gpu(uuid(1), "new fan", actor="bob", now=1.0)
            await first.show(toy(0))
            await first.show(toy(0), toy(1), toy(2, defect="rows"))
            assert state(first, 1) == (GpuState.DRAINED, "drained by bob: new fan")
            assert state(first, 2)[0] is GpuState.QUARANTINED
        async with alive(tmp_path, gpus="sim:3x24G") as second:
            await second.show(toy(0))
            await second.show(toy(0), toy(1), toy(2, defect="rows"))
            assert state(second, 1) == (GpuState.DRAINED, "drained by bob: new fan")
            assert state(second, 2)[0] is GpuState.QUARANTINED

    asyncio.run(main())


def test_other_simulated_gpus_than_before_know_nothing_of_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, gpus="sim:2x24G", leave=True) as first:
            await first.show(toy(0), toy(1, defect="rows"))
            await first.turn()
            first.store.wished.drain_gpu(uuid(1), "new fan", actor="bob", now=1.0)
        async with alive(tmp_path, gpus="sim:1x24G") as second:
            await second.show(toy(0))
            assert list(second.store.health.rows()) == [uuid(0)]
            assert stored.count(second.store, "gpu_wishes") == 0
            await second.show(toy(0), toy(1))
            assert state(second, 1) == (GpuState.FREE, None)

    asyncio.run(main())


def test_a_gpu_that_vanishes_while_it_is_tested_takes_nobody_along(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy(0), toy(1))
        daemon.loop.wish_tests([uuid(1)], "ann")
        await until(
            lambda: told(daemon, "gpu_test_started") or daemon.loop._health.held(), "a test"
        )
        await daemon.show(toy(0))
        await has_tested(daemon, 1)
        assert daemon.submit("true")

    with_alive(tmp_path, deed)


# ─── drained ─────────────────────────────────────────────────────────────────────────────────────


def test_a_drained_gpu_gets_no_job_through_restarts_and_what_runs_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(toy())
            runs = first.submit(FOR_EVER, request=SHARE)
            await first.running(runs)
            first.store.wished.drain_gpu(uuid(0), "new fan", actor="bob", now=1.0)
            waits = first.submit("true", request=SHARE)
            await first.turn()
            assert "GPU 0 drained by bob: new fan" in first.loop.plan.reasons[waits]
        async with alive(tmp_path) as second:
            await second.show(toy())
            await second.turn()
            assert second.row(runs)["state"] == "running"
            assert second.row(waits)["state"] == "queued"
            assert state(second) == (GpuState.DRAINED, "drained by bob: new fan")
            assert second.store.wished.resume_gpu(
                uuid(0), untested=False, actor="bob", now=2.0
            ) == (True, False)
            second.loop.wake()
            assert (await second.ended(waits))["outcome"] == "succeeded"

    asyncio.run(main())


def test_who_drains_between_plan_and_commit_is_heard() -> None:
    store = stored.with_gpus(Store(":memory:"))
    job, other = stored.submit(store, 2)
    store.wished.drain_gpu("GPU-0", "new fan", actor="bob", now=stored.NOW)
    assert not stored.start(store, job, stored.lease(job, "GPU-0"))
    assert stored.start(store, other, stored.lease(other, "GPU-1"))
    store.wished.resume_gpu("GPU-0", untested=False, actor="bob", now=stored.NOW)
    assert stored.start(store, job, stored.lease(job, "GPU-0"))
    kinds = [kind for kind in stored.kinds(store) if kind.startswith("gpu_")]
    assert kinds == ["gpu_drained", "gpu_undrained"]
    store.close()


def test_a_wish_to_have_a_gpu_back_is_for_what_is_held_against_it_now() -> None:
    """And for nothing that comes later."""
    store = stored.with_gpus(Store(":memory:"))
    wish = {"untested": True, "actor": "ann"}
    store.health.count_end(["GPU-0"], against=True)
    assert store.wished.resume_gpu("GPU-0", **wish, now=1.0) == (False, False)  # type: ignore[arg-type]
    store.health.set_aside("GPU-0", "XID 79", is_lasting=False, boot_id="boot", now=2.0)
    row = store.health.rows()["GPU-0"]
    assert row.resume_asked_at == row.resumed_at
    assert store.wished.resume_gpu("GPU-0", **wish, now=3.0) == (False, True)  # type: ignore[arg-type]
    assert store.health.rows()["GPU-0"].resume_asked_at != row.resumed_at
    store.health.readmit("GPU-0", "ann said so", accepts=None, now=4.0)
    row = store.health.rows()["GPU-0"]
    assert row.resume_asked_at == row.resumed_at == 3.0
    store.close()


def test_a_test_that_proves_nothing_undoes_no_wish_and_no_failure() -> None:
    store = stored.with_gpus(Store(":memory:"))
    store.health.set_aside("GPU-0", "a bad test", is_lasting=False, boot_id="boot", now=1.0)
    store.health.tested("GPU-0", "wrong sums", {"verdict": "bad"}, now=2.0)
    store.health.tested("GPU-0", None, {"verdict": "undecided"}, now=3.0)
    assert store.health.rows()["GPU-0"].failed_tests == 1
    store.wished.resume_gpu("GPU-0", untested=True, actor="ann", now=4.0)
    store.health.tested("GPU-0", "wrong sums", {"verdict": "bad"}, now=5.0)
    row = store.health.rows()["GPU-0"]
    assert (row.failed_tests, row.resume_asked_at, row.resumed_at) == (2, 4.0, None)
    store.wished.resume_gpu("GPU-0", untested=False, actor="ann", now=6.0)
    store.health.tested("GPU-0", None, {"verdict": "good"}, now=7.0)
    row = store.health.rows()["GPU-0"]
    assert (row.failed_tests, row.resumed_at) == (0, row.resume_asked_at)
    store.close()


# ─── tests under way ─────────────────────────────────────────────────────────────────────────────


def real(**more: Any) -> Gpu:
    return replace(gpu(**more), uuid=stub_cuda.UUID)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's children find a driver without a GPU, which hangs."""
    for name, value in stub_cuda.environment(tmp_path, "hangs").items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("driver")
def test_while_a_gpu_is_tested_it_is_nobody_elses(tmp_path: Path) -> None:
    """Not a job's, not another daemon's; and the test itself is no stranger on it."""
    another = GpuLocks(LOCKS)

    async def deed(daemon: Alive) -> None:
        await known_to_be_free(daemon, real())
        daemon.loop.wish_tests([stub_cuda.UUID], "ann")
        await daemon.turn()
        assert state(daemon) == (GpuState.QUARANTINED, "being tested: asked by ann")
        pids = daemon.loop._health.pids_of_tests
        await until(pids, "the test to begin")
        (pid,) = pids()
        stranger = replace(ours(7, "20G"), pid=pid, job=None)
        await daemon.show(real(processes=[stranger]))
        job = daemon.submit("true", request=ONE)
        await daemon.turn()
        assert daemon.row(job)["state"] == "queued"
        assert list(another.take([stub_cuda.UUID])) == [stub_cuda.UUID]
        (seen,) = daemon.loop.gpus or ()
        assert seen.processes == ()
        assert seen.calm_samples is None, "it owes nobody any calm readings afterwards"

    try:
        with_alive(tmp_path, deed)
    finally:
        assert not another.take([stub_cuda.UUID]), "what a daemon has it lets go of when it leaves"
        another.close()


def test_a_gpu_that_another_daemon_was_faster_to_lock_is_not_tested(tmp_path: Path) -> None:
    another = GpuLocks(LOCKS)

    async def deed(daemon: Alive) -> None:
        await known_to_be_free(daemon, real())
        assert not another.take([stub_cuda.UUID])
        daemon.loop.wish_tests([stub_cuda.UUID], "ann")
        await daemon.turn()
        assert not daemon.loop._health.held()
        why = state(daemon)
        assert why[0] is GpuState.FOREIGN
        assert str(why[1]).startswith("held by another gpuq daemon")
        another.close()
        await known_to_be_free(daemon, real())
        await daemon.turn()
        assert not daemon.loop._health.held(), "nobody asks any more"

    try:
        with_alive(tmp_path, deed)
    finally:
        another.close()


def run_test(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, **how: Any) -> Examined:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return asyncio.run(one_test(real(), **how))


async def one_test(card: Gpu, **how: Any) -> Examined:
    children: list[Any] = []
    tests = GpuTests("nvml", wake=lambda: None, on_started=children.extend, **how)
    running = asyncio.ensure_future(tests.run())
    tests.begin(card, "asked")
    await until(lambda: tests.ended or running.done(), "the test to end")
    ended = tests.ended.popleft()
    assert tests.under_way == {card.uuid: "asked"}, "until its end is written down"
    tests.settle(card.uuid)
    await until(lambda: not tests.under_way, "the GPU to be free again")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert all(processes.identity(pid) is None for _, pid, _ in children)
    return ended


def test_a_test_that_is_good_has_measured_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_test(stub_cuda.environment(tmp_path) | {"STUB_MIB": "150"}, monkeypatch)
    assert (ended.verdict, ended.trouble) == ("good", None)
    assert ended.result["by"] == "the CUDA driver"
    assert ended.result["memory_bytes"] == 2**27
    assert ended.result["memory_gb_s"] > 0
    assert ended.result["seconds"] > 0


def test_a_test_that_could_not_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_test(stub_cuda.environment(tmp_path, "full"), monkeypatch)
    assert (ended.verdict, ended.trouble) == ("undecided", "its memory is in use by others")


def test_a_gpu_in_whose_driver_a_test_hangs_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_test(stub_cuda.environment(tmp_path, "hangs"), monkeypatch, deadline_s=1.5)
    assert (ended.verdict, ended.trouble) == ("bad", "it did not end within 1.5 s")


def test_a_test_that_does_not_come_as_far_as_the_gpu_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_test(stub_cuda.environment(tmp_path, "hangs"), monkeypatch, deadline_s=0.0)
    assert (ended.verdict, ended.trouble) == ("undecided", "it did not end within 0 s")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "json.py").write_text("raise SystemExit(3)")
    found = {"PYTHONPATH": str(broken)}
    ended = run_test(found, monkeypatch)
    assert ended.verdict == "undecided"
    assert ended.trouble == "it ended without a verdict, with exit code 3"


def test_a_test_that_an_earlier_daemon_left_hanging_is_not_followed_by_a_second() -> None:
    async def main(left: "subprocess.Popen[bytes]") -> None:
        identity = processes.identity(left.pid)
        assert identity is not None
        previous = [("GPU-0", *identity), ("GPU-1", 2**22 + 1, 7)]
        tests = GpuTests(
            "nvml", wake=lambda: None, on_started=lambda children: None, previous=previous
        )
        assert tests.under_way == {
            "GPU-0": f"a test of an earlier daemon hangs in the driver, process {left.pid}"
        }
        running = asyncio.ensure_future(tests.run())
        await until(lambda: not tests.under_way, "that process to be gone")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with subprocess.Popen(["sleep", "600"]) as left:
        try:
            asyncio.run(main(left))
            assert left.wait() == -signal.SIGKILL
        finally:
            left.kill()


class Hanging(subprocess.Popen[bytes]):
    """A child of an earlier daemon."""

    def __init__(self) -> None:
        super().__init__(["sleep", "600"])

    def child(self, gpu: str) -> Child:
        own = processes.identity(self.pid)
        assert own is not None
        return gpu, *own

    def __exit__(self, *error: Any) -> None:
        self.kill()
        super().__exit__(*error)


@pytest.fixture
def kill_is_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for what hangs in a driver."""
    monkeypatch.setattr(processes, "send", lambda pid, signal, *, start: None)


@pytest.mark.usefixtures("kill_is_deferred")
def test_a_test_that_hangs_is_known_however_many_daemons_come_and_go() -> None:
    async def main(left: Child) -> None:
        noted: list[Child] = []

        def note(children: Any) -> None:
            noted[:] = children

        tests = GpuTests("sim:2x24G", wake=lambda: None, on_started=note, previous=[left])
        running = asyncio.ensure_future(tests.run())
        tests.begin(toy(1), "asked")
        await until(lambda: tests.ended, "the other test to end")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [gpu for gpu, _, _ in noted] == ["GPU-0", uuid(1)]
        follows = GpuTests("nvml", wake=lambda: None, on_started=note, previous=noted)
        assert list(follows.under_way) == ["GPU-0"]

    with Hanging() as left:
        asyncio.run(main(left.child("GPU-0")))


@pytest.mark.usefixtures("kill_is_deferred")
def test_an_error_of_a_gpu_in_whose_driver_an_old_test_hangs_is_not_lost(tmp_path: Path) -> None:
    async def main(left: Hanging) -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(toy())
            first.loop._health._note_children([left.child(uuid(0))])
        async with alive(tmp_path) as second:
            await second.show(toy())
            assert state(second)[0] is GpuState.QUARANTINED, "a test hangs"
            await second.show(toy(xids=(48,)))
            await second.turn()
            why = "the driver told of XID 48: an error in its memory that could not be corrected"
            assert told(second, "gpu_quarantined") == [why]
            left.kill()
            await until(lambda: not second.loop._health.held(), "the old test to be gone")
            await second.show(toy())
            assert state(second) == (GpuState.QUARANTINED, f"set aside: {why}")
            second.loop.wish_tests([uuid(0)], "ann")
            await has_tested(second, 1)
            assert told(second, "gpu_tested") == [None], "that error was told before it began"
            assert state(second) == (GpuState.FREE, None)

    with Hanging() as left:
        asyncio.run(main(left))


def speaking(folder: Path, script: str) -> dict[str, str]:
    """A child that says what the script says, and no more."""
    folder.mkdir()
    (folder / "json.py").write_text(f"import os, time\n{script}\nos._exit(0)\n")
    return {"PYTHONPATH": str(folder)}


def test_what_loads_slowly_has_all_its_time_for_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
time.sleep(0.9)
os.write(1, b'{"by": "torch"}\\n')
time.sleep(0.9)
os.write(1, b'{"verdict": "good"}\\n')"""
    ended = run_test(speaking(tmp_path / "slow", script), monkeypatch, deadline_s=1.5)
    assert (ended.verdict, ended.trouble) == ("good", None)
    assert ended.result["seconds"] > 1.5


def test_an_answer_without_an_end_is_not_heard_to_its_end() -> None:
    async def main() -> None:
        child = _Child(("/bin/sh", "-c", f"head -c {4 * MOST_BYTES} /dev/zero"), os.environ)
        while await child.listen():
            pass
        assert len(child.answer) == MOST_BYTES
        await child.dismiss()
        assert child.gone.done()

    asyncio.run(main())


def test_a_test_that_cannot_be_watched_is_ended_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def out_of_descriptors(pid: int) -> int:
        pids.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main() -> Examined:
        tests = GpuTests("sim:1x24G", wake=lambda: None, on_started=lambda children: None)
        running = asyncio.ensure_future(tests.run())
        before = os.listdir("/proc/self/fd")
        tests.begin(toy(), "asked")
        await until(lambda: tests.ended, "the test to end")
        assert os.listdir("/proc/self/fd") == before
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return tests.ended.popleft()

    monkeypatch.setattr(os, "pidfd_open", out_of_descriptors)
    ended = asyncio.run(main())
    assert (ended.verdict, ended.trouble) == (
        "undecided",
        "it could not be started: Too many open files",
    )
    (pid,) = pids
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_an_error_that_the_driver_tells_during_a_test_is_the_gpus(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        daemon.loop.wish_tests([uuid(0)], "ann")
        await until(daemon.loop._health.held, "the test to begin")
        await daemon.show(toy(xids=(13, 48)))
        await has_tested(daemon, 1)
        assert told(daemon, "gpu_tested") == ["the driver told of XID 48 meanwhile"]
        assert told(daemon, "gpu_quarantined") == [
            "its test failed: the driver told of XID 48 meanwhile"
        ]

    with_alive(tmp_path, deed)


def test_a_gpu_that_is_in_use_is_not_tested_later_without_being_asked_again(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.show(toy())
        job = daemon.submit(FOR_EVER, request=ONE)
        await daemon.running(job)
        daemon.loop.wish_tests([uuid(0)], "ann")
        await daemon.turn()
        daemon.kill(job, grace_s=0.0)
        await daemon.ended(job)
        await daemon.turn()
        assert not daemon.loop._health.held()

    with_alive(tmp_path, deed)
