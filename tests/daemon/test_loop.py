"""What a daemon does with its jobs, whatever becomes of its clocks, its disk and itself."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import EndCause, LeaseState, Request
from gpuq.daemon import deeds
from gpuq.daemon import loop as loop_module
from gpuq.daemon.linux import processes
from gpuq.daemon.store import Store
from tests import stored
from tests.alive import YEAR_S, Alive, MovedClock, alive, shown_by_hand, with_alive
from tests.builders import gpu
from tests.desk import is_gone, until
from tests.stored import full

HOUR_S = 3600.0
FOR_EVER = "exec sleep 600"
FAILS = "exit 3"
WHOLE = Request(gpus=1)

# What somebody may do to the clock on the wall.
SETTINGS = [-HOUR_S, YEAR_S, -YEAR_S, 0.0]


# ─── a limit is a length of time ─────────────────────────────────────────────────────────────────


def test_no_setting_of_the_clock_brings_a_job_to_its_limit_or_keeps_it_from_it(
    tmp_path: Path,
) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FOR_EVER, time_limit_s=100.0)
        await daemon.running(job)
        for seconds in SETTINGS:
            daemon.clock.set_s = seconds
            await daemon.turn()
            assert daemon.row(job)["state"] == "running"
            assert daemon.attempts(job)[0]["ending"] is None
        daemon.clock.awake_s += 90.0
        await daemon.turn()
        assert daemon.row(job)["state"] == "running"
        daemon.clock.set_s = -YEAR_S
        daemon.clock.awake_s += 10.0
        await daemon.turn()
        told = await daemon.ended(job)
        assert (told["outcome"], told["signal"]) == ("timed_out", signal.SIGTERM)
        assert told["reason"].startswith("timed out: it reached its time limit of 1:40")

    with_alive(tmp_path, deed)


def test_time_in_which_the_machine_sleeps_does_not_count(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        limited = daemon.submit(FOR_EVER, time_limit_s=100.0)
        silent = daemon.submit(FOR_EVER, heartbeat_s=100.0)
        for job in (limited, silent):
            await daemon.running(job)
        daemon.clock.asleep_s += 10 * HOUR_S
        await daemon.turn()
        assert {daemon.row(job)["state"] for job in (limited, silent)} == {"running"}
        daemon.clock.awake_s += 101.0
        await daemon.turn()
        assert (await daemon.ended(limited))["outcome"] == "timed_out"
        assert (await daemon.ended(silent))["outcome"] == "timed_out"

    with_alive(tmp_path, deed)


def test_time_in_which_a_job_stands_still_does_not_count(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FOR_EVER, time_limit_s=100.0, heartbeat_s=500.0)
        await daemon.running(job)
        daemon.pause(job)
        await daemon.until(lambda: daemon.row(job)["paused_mono"] is not None, "the pause")
        daemon.clock.awake_s += 10 * HOUR_S
        await daemon.turn()
        assert daemon.row(job)["state"] == "running"
        daemon.pause(job, False)
        await daemon.until(lambda: daemon.row(job)["paused_mono"] is None, "the pause to end")
        daemon.clock.awake_s += 90.0
        await daemon.turn()
        assert daemon.row(job)["state"] == "running"
        assert daemon.attempts(job)[0]["paused_s"] >= 10 * HOUR_S
        daemon.clock.awake_s += 10.0
        await daemon.turn()
        assert (await daemon.ended(job))["reason"].startswith("timed out: it reached")

    with_alive(tmp_path, deed)


def test_a_limit_is_reached_without_anybody_asking(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        limited = daemon.submit(FOR_EVER, time_limit_s=0.3)
        silent = daemon.submit(FOR_EVER, heartbeat_s=0.3)
        ends = [(await daemon.ended(job))["reason"] for job in (limited, silent)]
        assert ends == [
            "timed out: it reached its time limit of 0.3s; ended by SIGTERM",
            "timed out: it gave no sign of life for 0.3s; ended by SIGTERM",
        ]

    with_alive(tmp_path, deed)


def test_who_reports_in_time_goes_on(tmp_path: Path) -> None:
    """In time is in so much time, and not so much earlier that a runner has noticed it by then."""

    async def deed(daemon: Alive) -> None:
        script = 'for n in 1 2 3; do sleep 0.9; echo >> "$GPUQ_REPORT"; done'
        reports = daemon.submit(script, heartbeat_s=1.0)
        stops = daemon.submit('echo >> "$GPUQ_REPORT"; sleep 600', heartbeat_s=0.5)
        assert (await daemon.ended(stops))["outcome"] == "timed_out"
        assert (await daemon.ended(reports))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


# ─── a wait between two attempts ─────────────────────────────────────────────────────────────────


def test_no_setting_of_the_clock_shortens_or_lengthens_a_wait(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FAILS, retries=1, backoff="100s")
        await daemon.waits_again(job)
        for seconds in SETTINGS:
            daemon.clock.set_s = seconds
            await daemon.turn()
            assert daemon.row(job)["attempt"] == 1
        daemon.clock.set_s = -YEAR_S
        daemon.clock.awake_s += 100.0
        await daemon.turn()
        assert (await daemon.ended(job))["attempt"] == 2

    with_alive(tmp_path, deed)


def test_a_wait_goes_on_while_the_machine_sleeps(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FAILS, retries=1, backoff="100s")
        await daemon.waits_again(job)
        daemon.clock.asleep_s += 99.0
        await daemon.turn()
        assert daemon.row(job)["attempt"] == 1
        daemon.clock.asleep_s += 2.0
        await daemon.turn()
        assert (await daemon.ended(job))["attempt"] == 2

    with_alive(tmp_path, deed)


def test_a_wait_ends_without_anybody_asking(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit('test "$GPUQ_ATTEMPT" -ge 3', retries=5, backoff="0.2s,0.1s")
        told = await daemon.ended(job)
        assert (told["outcome"], told["attempt"]) == ("succeeded", 3)
        ends = [(one["outcome"], one["exit_code"]) for one in daemon.attempts(job)]
        assert ends == [("failed", 1), ("failed", 1), ("succeeded", 0)]
        began = [one["started_mono"] for one in daemon.attempts(job)]
        assert began[1] - began[0] >= 0.2
        assert began[2] - began[1] >= 0.1

    with_alive(tmp_path, deed)


def test_after_the_last_retry_it_has_ended(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FAILS, retries=2, backoff="0s")
        told = await daemon.ended(job)
        assert (told["outcome"], told["attempt"]) == ("failed", 3)
        assert told["reason"] == "exit code 3; attempt 3 of 3 was the last"

    with_alive(tmp_path, deed)


def test_what_somebody_ended_is_not_tried_again(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        runs = daemon.submit(FOR_EVER, retries=5, backoff="0s")
        waits = daemon.submit(FAILS, retries=5, backoff="100s")
        await daemon.running(runs)
        await daemon.waits_again(waits)
        for job in (runs, waits):
            daemon.kill(job)
            told = await daemon.ended(job)
            assert (told["outcome"], told["attempt"]) == ("cancelled", 1)

    with_alive(tmp_path, deed)


def test_the_order_of_what_happened_does_not_depend_on_the_clock(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        jobs = []
        for seconds in SETTINGS:
            daemon.clock.set_s = seconds
            jobs.append(daemon.submit("exit 0"))
            await daemon.ended(jobs[-1])
        ends = [one["job"] for one in stored.events(daemon.store) if one["kind"] == "ended"]
        assert ends == jobs

    with_alive(tmp_path, deed)


# ─── another daemon ──────────────────────────────────────────────────────────────────────────────


def test_a_limit_goes_on_counting_while_no_daemon_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            job = first.submit(FOR_EVER, time_limit_s=100.0)
            await first.running(job)
        async with alive(tmp_path, MovedClock(awake_s=90.0)) as second:
            await second.turn()
            assert second.row(job)["state"] == "running"
            second.clock.awake_s += 10.0
            await second.turn()
            told = await second.ended(job)
            assert (told["outcome"], told["signal"]) == ("timed_out", signal.SIGTERM)

    asyncio.run(main())


def test_a_limit_that_was_reached_meanwhile_is_kept_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            job = first.submit(FOR_EVER, time_limit_s=100.0)
            await first.running(job)
        async with alive(tmp_path, MovedClock(awake_s=HOUR_S)) as second:
            assert (await second.ended(job))["outcome"] == "timed_out"

    asyncio.run(main())


def test_a_silence_goes_on_counting_while_no_daemon_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            silent = first.submit(f'echo >> "$GPUQ_REPORT"; {FOR_EVER}', heartbeat_s=100.0)
            await first.running(silent)
            beat = lambda: first.loop._supervisor.last_beat(silent)  # noqa: E731
            await until(beat, "its sign of life")
        async with alive(tmp_path, MovedClock(awake_s=90.0), leave=True) as second:
            await second.turn()
            assert second.row(silent)["state"] == "running", "it was heard of 90 s ago"
        async with alive(tmp_path, MovedClock(awake_s=101.5)) as third:
            told = await third.ended(silent)
            assert told["reason"].startswith("timed out: it gave no sign of life for 1:40")

    asyncio.run(main())


def test_who_reported_while_no_daemon_was_there_is_not_taken_for_silent(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            script = 'while ! [ -e stop ]; do echo >> "$GPUQ_REPORT"; sleep 0.02; done'
            job = first.submit(script, heartbeat_s=1.0)
            await first.running(job)
            since = first.clock.monotonic()
        async with alive(tmp_path) as second:
            supervisor = second.loop._supervisor
            await until(lambda: (supervisor.last_beat(job) or 0) > since + 1.5, "signs of life")
            await second.turn()
            assert second.row(job)["state"] == "running"
            (tmp_path / "stop").touch()
            assert (await second.ended(job))["outcome"] == "succeeded"

    asyncio.run(main())


def test_a_wait_goes_on_while_no_daemon_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            job = first.submit(FAILS, retries=1, backoff="100s")
            await first.waits_again(job)
        async with alive(tmp_path, MovedClock(asleep_s=90.0), leave=True) as second:
            await second.turn()
            assert second.row(job)["attempt"] == 1
        async with alive(tmp_path, MovedClock(asleep_s=101.0)) as third:
            assert (await third.ended(job))["attempt"] == 2

    asyncio.run(main())


def test_who_stood_still_stands_still_and_goes_on_where_that_was_wished(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            job = first.submit("while :; do :; done")  # see the next test
            pid = await first.running(job)
            first.pause(job)
            await until(lambda: _state(pid) == "T", "it to stand still")
            await first.until(lambda: first.row(job)["paused_mono"], "that to be noted")
        async with alive(tmp_path, leave=True) as second:
            await second.turn()
            assert _state(pid) == "T"
            assert second.row(job)["paused_mono"] is not None
            stored.write(second.store, "update jobs set paused_by = null")
        async with alive(tmp_path) as third:
            await until(lambda: _state(pid) in "SR", "it to go on")
            assert third.row(job)["paused_mono"] is None

    asyncio.run(main())


def test_a_pause_that_was_noted_and_no_more_is_made_by_the_next_daemon(tmp_path: Path) -> None:
    """The time that it runs on would not count."""

    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            # Without children: a shell whose vfork is stopped waits for it in state D, not T.
            job = first.submit("while :; do :; done")
            pid = await first.running(job)
            first.store.wished.pause(job, paused=True, actor="ann", now=1.0)
            now = first.clock.monotonic()
            first.store.happened.pause(job, 1, mono=now, now=1.0)
        async with alive(tmp_path) as second:
            await until(lambda: _state(pid) == "T", "it to stand still")
            second.pause(job, False)
            await until(lambda: _state(pid) in "SR", "it to go on")

    asyncio.run(main())


def test_what_is_ended_while_it_stands_still_goes_on_for_that(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit('trap "exit 5" TERM; : > ready; while :; do :; done')
        pid = await daemon.running(job)
        await until((tmp_path / "ready").exists, "its handler")
        daemon.pause(job)
        await until(lambda: _state(pid) == "T", "it to stand still")
        daemon.kill(job, grace_s=600.0)
        told = await daemon.ended(job)
        assert (told["outcome"], told["exit_code"]) == ("cancelled", 5)
        assert told["paused_mono"] is None
        assert "resumed" in stored.kinds(daemon.store, job)

    with_alive(tmp_path, deed)


def _state(pid: int) -> str:
    fields = processes.stat_fields(pid)
    return "gone" if fields is None else fields[0].decode()


# ─── another boot ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that has the pid which a runner had before the machine was restarted."""
    child = subprocess.Popen(["sleep", "600"])
    yield child.pid
    child.kill()
    child.wait()


def before_the_reboot(folder: Path, pid: int) -> dict[str, int]:
    """What a database holds when the machine goes down: one job of each kind."""
    (folder / "state").mkdir()
    store = Store(folder / "state" / "gpuq.db")
    cards = [gpu(0), gpu(1), gpu(2)]
    store.machine.see_gpus(cards, now=stored.NOW)
    identity = processes.identity(pid)
    assert identity is not None
    known = {"boot_id": "earlier", "runner_pid": pid, "runner_start": identity[1]}
    jobs = {}
    for name, changes in (
        ("runs", {}),
        ("runs again", {"retries": 1, "backoff": "0s"}),
        ("starts", {}),
        ("waits", {"retries": 1}),
        ("waited long", {"retries": 1}),
        ("cools", {}),
    ):
        asked = {"argv": (b"true",), "request": Request(gpus=0), **changes}
        jobs[name] = stored.submit_one(store, **asked)
        stored.start(store, jobs[name], **known)
    for name in ("runs", "runs again", "waits", "waited long", "cools"):
        stored.run(store, jobs[name])
    stored.fail(store, jobs["waits"], wait_s=100.0)
    stored.fail(store, jobs["waited long"], wait_s=100.0)
    stored.write(store, "update jobs set delayed_boot = 'earlier' where delayed_boot is not null")
    stored.end(store, jobs["cools"])
    held = stored.submit_one(store, argv=(b"true",))
    leases = [stored.lease(held, one.uuid) for one in cards]
    stored.start(store, held, *leases, **known)
    stored.end(store, held, cooling=(stored.MONO, "earlier"))
    store.machine.mark_dirty(cards[1].uuid, 0, "5G in use", now=stored.NOW)
    store.close()
    return jobs


def wall_at(moment: float) -> MovedClock:
    clock = MovedClock()
    clock.set_s = moment - clock.wall()
    return clock


def test_what_ran_when_the_machine_went_down_is_lost_and_tried_again_where_it_may(
    tmp_path: Path, stranger: int
) -> None:
    jobs = before_the_reboot(tmp_path, stranger)

    async def deed(daemon: Alive) -> None:
        for name in ("runs", "starts"):
            told = await daemon.ended(jobs[name])
            assert (told["outcome"], told["attempt"]) == ("lost", 1)
            assert told["reason"].startswith("lost: the machine was restarted while it ran")
        told = await daemon.ended(jobs["runs again"])
        assert (told["outcome"], told["attempt"]) == ("succeeded", 2)
        assert daemon.attempts(jobs["runs again"])[0]["outcome"] == "lost"
        assert not is_gone(stranger), "its pid is somebody else's now"

    with_alive(tmp_path, deed, wall_at(stored.NOW + 10))


def test_every_gpu_is_cool_after_a_restart_of_the_machine(tmp_path: Path, stranger: int) -> None:
    before_the_reboot(tmp_path, stranger)

    async def deed(daemon: Alive) -> None:
        assert daemon.store.current.leases() == []

    with_alive(tmp_path, deed, wall_at(stored.NOW + 10))


@pytest.mark.parametrize(
    ("since_s", "left_s"),
    [(30.0, 70.0), (100.0, 0.0), (YEAR_S, 0.0), (-YEAR_S, 100.0)],
    ids=["a while", "long enough", "very long", "before it began, says the clock"],
)
def test_a_wait_goes_on_over_a_reboot_and_is_never_longer_than_it_was(
    tmp_path: Path, stranger: int, since_s: float, left_s: float
) -> None:
    jobs = before_the_reboot(tmp_path, stranger)

    async def deed(daemon: Alive) -> None:
        job = jobs["waits"]
        if not left_s:
            assert (await daemon.ended(job))["attempt"] == 2
            return
        await daemon.turn()
        daemon.clock.asleep_s += left_s - 10.0
        await daemon.turn()
        assert (daemon.row(job)["state"], daemon.row(job)["attempt"]) == ("queued", 1)
        daemon.clock.asleep_s += 10.0
        await daemon.turn()
        assert (await daemon.ended(job))["attempt"] == 2

    with_alive(tmp_path, deed, wall_at(stored.NOW + since_s))


# ─── the disk is full ────────────────────────────────────────────────────────────────────────────


STUBBORN = 'trap "" TERM; : > ready; while :; do sleep 0.01; done'


def test_what_is_being_ended_is_ended_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And though there are others to cancel, which cannot be noted."""
    monkeypatch.setattr(loop_module, "DISK_AGAIN_S", 0.1)

    async def deed(daemon: Alive) -> None:
        job = daemon.submit(STUBBORN)
        pid = await daemon.running(job)
        await until((tmp_path / "ready").exists, "it to ignore TERM")
        waiting = daemon.submit(FOR_EVER, request=Request(gpus=0, cpus=4096))
        daemon.kill(job, grace_s=0.5)
        await daemon.until(lambda: daemon.row(job)["term_mono"], "TERM to be sent")
        daemon.store.wished.stop(waiting, grace_s=0.0, actor="ann", now=1.0)
        with full(daemon.store):
            await until(lambda: is_gone(pid), "the job to be killed")
            assert daemon.row(job)["state"] == "running", "which could not be noted yet"
        told = await daemon.ended(job)
        assert (told["outcome"], told["signal"]) == ("cancelled", signal.SIGKILL)
        assert (await daemon.ended(waiting))["outcome"] == "cancelled"

    with_alive(tmp_path, deed)


def test_nothing_is_ended_for_a_cause_that_could_not_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be taken for a failure of its own, and tried again."""
    monkeypatch.setattr(loop_module, "DISK_AGAIN_S", 0.05)

    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FOR_EVER, time_limit_s=100.0)
        pid = await daemon.running(job)
        with full(daemon.store):
            daemon.clock.awake_s += 200.0
            for _ in range(3):
                await daemon.turn()
            assert not is_gone(pid)
        assert (await daemon.ended(job))["outcome"] == "timed_out"

    with_alive(tmp_path, deed)


def test_trouble_with_the_disk_does_not_make_the_loop_turn_ever_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "DISK_AGAIN_S", 0.1)

    async def deed(daemon: Alive) -> None:
        job = daemon.submit(FOR_EVER, time_limit_s=100.0)
        await daemon.running(job)
        with full(daemon.store):
            daemon.clock.awake_s += 200.0
            for _ in range(30):
                await daemon.turn()
            before = daemon.loop.turns
            await asyncio.sleep(1.0)
            assert daemon.loop.turns - before < 50

    with_alive(tmp_path, deed)


# ─── between two steps ───────────────────────────────────────────────────────────────────────────


def test_who_is_asked_to_end_before_it_is_there_hears_of_it_once_it_is(tmp_path: Path) -> None:
    """Its runner is held up, as by a slow disk: the TERM finds nobody."""

    async def deed(daemon: Alive) -> None:
        runners = daemon.loop._supervisor._runners
        runners._idle_s = 0.0  # none that has ended clean waits beside the one that is held up
        first = daemon.submit("true")
        await daemon.ended(first)
        await until(lambda: runners._standby is not None, "a runner")
        assert runners._standby is not None
        held_up = (await runners._standby).pid
        os.kill(held_up, signal.SIGSTOP)
        job = daemon.submit(FOR_EVER)
        await daemon.until(lambda: daemon.row(job)["state"] == "starting", "it to be started")
        daemon.kill(job, grace_s=600.0)
        told = await daemon.ended(job)
        assert (told["outcome"], told["signal"]) == ("cancelled", signal.SIGTERM)

    with_alive(tmp_path, deed)


def test_a_drained_daemon_starts_nothing_ends_what_runs_and_goes_on_when_told(
    tmp_path: Path,
) -> None:
    async def deed(daemon: Alive) -> None:
        runs = daemon.submit(FOR_EVER)
        await daemon.running(runs)
        daemon.drain("new driver")
        waits = daemon.submit("true")
        unwanted = daemon.submit("true")
        again = daemon.submit(FAILS, retries=1, backoff="0s")
        await daemon.turn()
        assert daemon.loop.plan.reasons[waits] == "the queue is drained by bob: new driver"
        daemon.kill(runs, grace_s=0.0)
        daemon.kill(unwanted)
        assert (await daemon.ended(runs))["outcome"] == "cancelled"
        assert (await daemon.ended(unwanted))["outcome"] == "cancelled"
        assert {daemon.row(job)["attempt"] for job in (waits, again)} == {0}
        daemon.drain(None)
        assert (await daemon.ended(waits))["outcome"] == "succeeded"
        assert (await daemon.ended(again))["attempt"] == 2

    with_alive(tmp_path, deed)


def test_jobs_in_control_groups_live_and_end_like_all_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, cgroup="auto", leave=True) as first:
            if first.loop._cgroup_root is None:
                pytest.skip("NOT TESTED: this process may make no groups in a cgroup 2 here")
            job = first.submit(STUBBORN, time_limit_s=100.0)
            await first.running(job)
            assert os.path.isdir(first.attempts(job)[0]["cgroup"])
        async with alive(tmp_path, MovedClock(awake_s=90.0), cgroup="auto") as second:
            group = second.attempts(job)[0]["cgroup"]
            second.pause(job)
            await second.until(lambda: second.row(job)["paused_mono"], "the pause")
            frozen = Path(f"{group}/cgroup.events")
            await until(lambda: "frozen 1" in frozen.read_text(), "it to stand still")
            second.kill(job, grace_s=0.1)
            told = await second.ended(job)
            assert (told["outcome"], told["signal"]) == ("cancelled", signal.SIGKILL)
            await until(lambda: not os.path.exists(group), "its group to be removed")
        assert not os.path.exists(os.path.dirname(group)), "nothing is left of the daemon's own"

    asyncio.run(main())


# ─── GPUs after their jobs ───────────────────────────────────────────────────────────────────────


def leases(daemon: Alive) -> dict[str, LeaseState]:
    return {held.gpu: held.state for held in daemon.store.current.leases()}


def card(**changes: Any) -> Gpu:
    return gpu(0, "24G", **changes)


async def known_to_be_calm(daemon: Alive, card: Gpu) -> None:
    for _ in range(daemon.config.policy().calm_samples):
        daemon.clock.awake_s += daemon.config.policy().calm_s
        await daemon.show(card)


async def ended_on(daemon: Alive, card: Gpu) -> int:
    """A job that had this GPU and has left it; another one waits for it."""
    await known_to_be_calm(daemon, card)
    job = daemon.submit("true", request=WHOLE)
    await daemon.ended(job)
    return daemon.submit("true", request=WHOLE)


def test_a_gpu_is_given_on_once_a_reading_shows_that_its_memory_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(daemon: Alive) -> None:
        following = await ended_on(daemon, card())
        assert leases(daemon) == {"GPU-0": LeaseState.COOLING}
        await daemon.show(card(used="5G"))
        assert leases(daemon) == {"GPU-0": LeaseState.COOLING}
        assert daemon.row(following)["state"] == "queued"
        await daemon.show(card())
        assert (await daemon.ended(following))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


@pytest.mark.parametrize(
    ("warm", "clean", "why"),
    [
        ({"used": "5G"}, {}, "outside gpuq: 5G in use, and no process to be seen"),
        (
            {"used": "310M"},
            {"used": "299M"},
            "outside gpuq: 310M in use, and no process to be seen",
        ),
        ({"utilization_percent": 50}, {}, "outside gpuq: 50 % busy, and no process to be seen"),
        ({"fault": "has fallen off the bus"}, {}, "has fallen off the bus"),
    ],
    ids=["much memory", "a little memory", "busy", "a fault"],
)
def test_a_gpu_that_is_not_cool_in_time_is_dirty_until_a_reading_shows_it_clean(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warm: dict[str, Any],
    clean: dict[str, Any],
    why: str,
) -> None:
    """By that reading alone: nobody need ask for anything."""
    shown_by_hand(monkeypatch)

    async def deed(daemon: Alive) -> None:
        await ended_on(daemon, card())
        daemon.clock.awake_s += 2.0  # what was busy until just now were our own jobs
        await daemon.show(card(**warm))
        daemon.clock.awake_s += 31.0
        await daemon.turn()
        assert leases(daemon) == {"GPU-0": LeaseState.DIRTY}
        assert daemon.store.current.leases()[0].dirt == why
        await daemon.show(card(**warm))
        assert leases(daemon) == {"GPU-0": LeaseState.DIRTY}
        await daemon.show(card(**clean))
        await until(lambda: LeaseState.DIRTY not in leases(daemon).values(), "it to be given on")

    with_alive(tmp_path, deed)


def test_kill_is_on_its_way_before_anybody_looks_at_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes longer than all else that an end takes."""
    done: list[str] = []

    async def deed(daemon: Alive) -> None:
        supervisor, table = daemon.loop._supervisor, processes.Table
        kill_group, signalled = supervisor.kill_group, supervisor.signal
        monkeypatch.setattr(supervisor, "kill_group", noting("killed", kill_group))
        monkeypatch.setattr(supervisor, "signal", noting("signalled", signalled))
        monkeypatch.setattr(deeds.processes, "Table", noting("looked", table))
        job = daemon.submit("sleep 600")
        await daemon.running(job)
        done.clear()
        daemon.kill(job, grace_s=0.0)
        await daemon.ended(job)
        assert done[:3] == ["killed", "looked", "signalled"]

    def noting(what: str, does: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (done.append(what), does(*given, **named))[1]

    with_alive(tmp_path, deed)


def test_a_dirty_gpu_tells_who_has_its_device_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context that outlives its process keeps memory, and the driver shows nobody."""
    shown_by_hand(monkeypatch)
    monkeypatch.setattr(deeds, "DEVICE", f"{tmp_path}/nvidia{{}}")
    (tmp_path / "nvidia5").touch()

    async def deed(daemon: Alive) -> None:
        await ended_on(daemon, card(minor=5))
        await daemon.show(card(minor=5, memory_used_bytes=8 * 2**30))
        daemon.clock.awake_s += 31.0
        with (tmp_path / "nvidia5").open():
            await daemon.turn()
        dirt = daemon.store.current.leases()[0].dirt or ""
        assert dirt.startswith("outside gpuq: 8G in use, and no process to be seen; ")
        assert dirt.endswith(f"nvidia5 is open in {processes.command(os.getpid())} {os.getpid()}")

    with_alive(tmp_path, deed)


def test_a_gpu_that_was_not_read_since_is_dirty_and_clean_at_the_next_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(daemon: Alive) -> None:
        following = await ended_on(daemon, card())
        daemon.clock.awake_s += 31.0
        await daemon.turn()
        assert daemon.store.current.leases()[0].dirt == "no reading of this GPU since its job ended"
        await daemon.show(card())
        await daemon.ended(following)

    with_alive(tmp_path, deed)


def test_a_gpu_whose_job_ended_while_no_daemon_was_there_cools_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first reading a daemon does not know what its GPUs are."""
    shown_by_hand(monkeypatch)

    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await known_to_be_calm(first, card())
            job = first.submit("while ! [ -e go ]; do sleep 0.01; done", request=WHOLE)
            await first.running(job)
        (tmp_path / "go").touch()
        record = tmp_path / "state" / "attempts" / f"{job}.1" / "record"
        await until(record.exists, "its record")
        async with alive(tmp_path) as second:
            assert (await second.ended(job))["outcome"] == "succeeded"
            assert leases(second) == {"GPU-0": LeaseState.COOLING}
            await second.show(card())
            assert leases(second) == {}

    asyncio.run(main())


def test_simulated_gpus_are_cool_at_once(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        jobs = [daemon.submit("true", request=WHOLE) for _ in range(3)]
        for job in jobs:
            assert (await daemon.ended(job))["outcome"] == "succeeded"
        assert leases(daemon) == {}
        kinds = {one["kind"] for one in stored.events(daemon.store)}
        assert not kinds & {"gpu_dirty", "gpu_clean"}

    with_alive(tmp_path, deed, gpus="sim:1x24G")


def test_the_cause_that_came_first_is_the_one_that_is_told(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit(STUBBORN, time_limit_s=100.0, retries=3, retry_on="timed_out")
        await daemon.running(job)
        await until((tmp_path / "ready").exists, "it to ignore TERM")
        daemon.clock.awake_s += 100.0
        await daemon.turn()
        assert daemon.attempts(job)[0]["ending"] == EndCause.TIME_LIMIT
        daemon.kill(job, grace_s=0.1)
        told = await daemon.ended(job)
        assert (told["outcome"], told["attempt"]) == ("timed_out", 1), "and not tried again"

    with_alive(tmp_path, deed)
