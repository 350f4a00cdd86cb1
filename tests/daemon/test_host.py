"""What a daemon hears of its machine, from a systemd and a logind of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.systemd import host as host_module
from gpuq.daemon.systemd import inhibitor
from gpuq.daemon.systemd.bus import Bus
from gpuq.daemon.systemd.host import Host
from gpuq.daemon.systemd.notify import Notifier
from tests import stored
from tests.alive import Alive, alive, shown_by_hand
from tests.builders import gpu
from tests.desk import DEADLINE_S, until
from tests.fake_host import FakeHost, fake_host

FOR_EVER = "exec sleep 600"
HOUR_S = 3600.0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeHost]:
    with fake_host(tmp_path / "bus") as host:
        yield host


class Home:
    """A daemon at home on a machine."""

    def __init__(self, daemon: Alive, host: Host) -> None:
        self.daemon = daemon
        self.host = host

    @property
    def stop_reason(self) -> str | None:
        return self.daemon.loop.stop_reason

    async def left(self) -> str | None:
        await until(lambda: self.stop_reason, "the daemon to want to leave")
        return self.stop_reason

    def told(self, kind: str) -> list[str]:
        events = stored.events(self.daemon.store)
        return [one["cause"] for one in events if one["kind"] == kind]


@asynccontextmanager
async def at_home(
    folder: Path, system: str | None, user: str | None = None, **flags: Any
) -> AsyncIterator[Home]:
    async with alive(folder, **({"cpu_slots": "8"} | flags)) as daemon:
        buses = [Bus(system), Bus(user)]
        host = Host(
            daemon.loop,
            daemon.store,
            daemon.config,
            daemon.clock,
            Notifier(),
            system_bus=buses[0],
            user_bus=None if user is None else buses[1],
        )
        daemon.loop.on_look = host.heed
        running = asyncio.ensure_future(host.run())
        await daemon.turn()
        try:
            yield Home(daemon, host)
        finally:
            assert not running.done(), running.exception()
            daemon.loop.close_down(None)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for bus in buses:
                await bus.close()


def with_home(
    folder: Path, deed: Callable[[Home], Awaitable[None]], system: str | None, **how: Any
) -> None:
    async def main() -> None:
        async with at_home(folder, system, **how) as home:
            await asyncio.wait_for(deed(home), 2 * DEADLINE_S)

    asyncio.run(main())


# ─── going down ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["running", "degraded", "starting", "maintenance"])
def test_a_daemon_that_is_stopped_on_a_machine_that_stays_leaves_its_jobs_alone(
    tmp_path: Path, machine: FakeHost, state: str
) -> None:
    machine.state = state

    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await home.daemon.running(job)
        home.host.leave("it got SIGTERM")
        assert await home.left() == "it got SIGTERM"
        await home.daemon.turn()
        assert home.daemon.attempts(job)[0]["ending"] is None

    with_home(tmp_path, deed, machine.address)
    assert "SystemState" in machine.asked


def test_a_daemon_that_is_stopped_with_its_machine_ends_its_jobs_first(
    tmp_path: Path, machine: FakeHost
) -> None:
    machine.state = "stopping"

    async def deed(home: Home) -> None:
        daemon = home.daemon
        dies = daemon.submit(FOR_EVER)
        saves = daemon.submit('trap "exit 0" TERM; : > ready; while :; do sleep 0.01; done')
        again = daemon.submit(FOR_EVER, retries=1, backoff="100s")
        for job in (dies, saves, again):
            await daemon.running(job)
        await until((tmp_path / "ready").exists, "the trap")
        home.host.leave("it got SIGTERM")
        await until(lambda: home.told("closing"), "it to find out")
        later = daemon.submit(FOR_EVER)
        assert await home.left() == "the machine is shutting down"
        assert daemon.row(dies)["reason"] == "lost: the machine was shut down; ended by SIGTERM"
        assert daemon.row(saves)["reason"] == "lost: the machine was shut down; exit code 0"
        assert daemon.row(again)["state"] == "queued"
        assert daemon.attempts(again)[0]["outcome"] == "lost"
        await daemon.turn()
        assert (daemon.row(later)["state"], daemon.row(later)["attempt"]) == ("queued", 0)
        assert daemon.loop.plan.standstill == "the machine is shutting down"
        assert home.told("closing") == ["the machine is shutting down"]

    with_home(tmp_path, deed, machine.address)


def test_a_daemon_of_a_user_whose_services_are_stopped_ends_its_jobs_and_says_so(
    tmp_path: Path, machine: FakeHost
) -> None:
    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await home.daemon.running(job)
        home.host.leave("it got SIGTERM")
        assert await home.left() == "the services of this user are being stopped"
        assert home.daemon.row(job)["reason"].startswith("lost: the services of its user were")

    with fake_host(tmp_path / "user") as user:
        user.state = "stopping"
        with_home(tmp_path, deed, machine.address, user=user.address)


def test_no_grace_keeps_the_machine_up_for_longer_than_the_settings_say(
    tmp_path: Path, machine: FakeHost
) -> None:
    machine.state = "stopping"

    async def deed(home: Home) -> None:
        stubborn = 'trap "" TERM; : > ready; while :; do sleep 0.01; done'
        job = home.daemon.submit(stubborn, grace_s=HOUR_S)
        await home.daemon.running(job)
        await until((tmp_path / "ready").exists, "the trap")
        home.host.leave("it got SIGTERM")
        await home.left()
        assert home.daemon.row(job)["reason"] == "lost: the machine was shut down; ended by SIGKILL"

    with_home(tmp_path, deed, machine.address, shutdown_grace="0.2s")


def test_a_job_that_nothing_can_end_does_not_keep_the_daemon(
    tmp_path: Path, machine: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hangs in the kernel: nobody hears of its end."""
    machine.state = "stopping"
    monkeypatch.setattr(host_module, "LEAVE_S", 0.1)

    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await home.daemon.running(job)
        heard = home.daemon.loop._supervisor._report
        home.daemon.loop._supervisor._report = lambda news: None
        home.host.leave("it got SIGTERM")
        assert await home.left() == "the machine is shutting down"
        assert home.daemon.row(job)["state"] == "running"
        home.daemon.loop._supervisor._report = heard
        home.daemon.store.happened.end(stored.ended(job), now=stored.NOW)

    with_home(tmp_path, deed, machine.address, shutdown_grace="0.1s")


def test_logind_tells_of_a_shutdown_before_anything_is_stopped(
    tmp_path: Path, machine: FakeHost
) -> None:
    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await home.daemon.running(job)
        machine.prepare_for_shutdown(True)
        assert (await home.daemon.ended(job))["outcome"] == "lost"
        assert home.stop_reason is None, "systemd says when it is to leave"
        home.host.leave("it got SIGTERM")
        assert await home.left() == "the machine is shutting down"
        assert machine.state == "running", "logind knew it first"
        assert len(home.told("closing")) == 1

    with_home(tmp_path, deed, machine.address)


def test_a_shutdown_that_comes_to_nothing_lets_the_queue_go_on(
    tmp_path: Path, machine: FakeHost
) -> None:
    async def deed(home: Home) -> None:
        machine.prepare_for_shutdown(True)
        await until(lambda: home.told("closing"), "the shutdown to be heard of")
        waits = home.daemon.submit("exit 0")
        await home.daemon.turn()
        assert home.daemon.row(waits)["state"] == "queued"
        machine.prepare_for_shutdown(False)
        assert (await home.daemon.ended(waits))["outcome"] == "succeeded"
        assert home.told("closing_over") == ["the machine stays up after all"]

    with_home(tmp_path, deed, machine.address)


def test_a_daemon_that_comes_while_the_machine_goes_down_starts_nothing(
    tmp_path: Path, machine: FakeHost
) -> None:
    machine.is_preparing = True

    async def deed(home: Home) -> None:
        await until(lambda: home.told("closing"), "it to find out")
        job = home.daemon.submit("exit 0")
        await home.daemon.turn()
        assert home.daemon.row(job)["state"] == "queued"

    with_home(tmp_path, deed, machine.address)


@pytest.mark.parametrize("what", ["no bus", "a bus without systemd", "a systemd that says nothing"])
def test_where_nobody_says_that_the_machine_goes_down_jobs_go_on(
    tmp_path: Path, machine: FakeHost, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(host_module, "ASK_S", 0.1)
    monkeypatch.setattr(host_module, "BOOTED", "/no/such/folder")
    address = None if what == "no bus" else machine.address
    machine.state = None

    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await home.daemon.running(job)
        if what == "a bus without systemd":
            machine.close()
        home.host.leave("it got SIGTERM")
        assert await home.left() == "it got SIGTERM"
        assert home.daemon.attempts(job)[0]["ending"] is None

    with_home(tmp_path, deed, address)


@pytest.mark.parametrize(("says", "ends"), [("stopping", True), ("running", False), ("", False)])
def test_where_d_bus_is_gone_systemctl_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, ends: bool
) -> None:
    monkeypatch.setattr(host_module, "BOOTED", "/proc")
    asked = []

    def answer(which: str) -> str:
        asked.append(which)
        return says

    monkeypatch.setattr(host_module, "_ask_systemctl", answer)

    async def deed(home: Home) -> None:
        home.host.leave("it got SIGTERM")
        reason = "the machine is shutting down" if ends else "it got SIGTERM"
        assert await home.left() == reason

    with_home(tmp_path, deed, f"unix:path={tmp_path}/no-such-bus")
    assert asked == ["--system"]


def test_systemctl_that_cannot_say_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on this machine, unless it is one of systemd that is being shut down."""
    assert host_module._ask_systemctl("--system") != "stopping"
    monkeypatch.setattr(host_module, "ASK_S", 0.0)
    assert host_module._ask_systemctl("--system") is None


# ─── kept from going down ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inhibitor, "APART_S", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("mode", "what"), [("delay", "shutdown"), ("block", "shutdown:sleep")])
def test_the_machine_is_kept_up_while_jobs_run_where_that_is_wanted(
    tmp_path: Path, machine: FakeHost, mode: str, what: str
) -> None:
    async def deed(home: Home) -> None:
        assert machine.locks == []
        jobs = [home.daemon.submit(FOR_EVER) for _ in range(2)]
        await until(lambda: machine.locks, "the lock")
        assert machine.locks == [(what, "gpuq", inhibitor.WHY, mode)]
        home.daemon.kill(jobs[0])
        await home.daemon.ended(jobs[0])
        assert len(machine.locks) == 1, "there is another one"
        home.daemon.kill(jobs[1])
        await until(lambda: not machine.locks, "the lock to be let go")
        home.daemon.submit(FOR_EVER)
        await until(lambda: machine.locks, "another lock")

    with_home(tmp_path, deed, machine.address, inhibit_shutdown=mode)
    # A lock that was still on its way goes with the bus that carried it.
    asyncio.run(until(lambda: not machine.locks, "a daemon that leaves to let go"))


@pytest.mark.usefixtures("at_once")
def test_nobody_is_kept_from_anything_unless_that_is_wanted(
    tmp_path: Path, machine: FakeHost
) -> None:
    async def deed(home: Home) -> None:
        await home.daemon.running(home.daemon.submit(FOR_EVER))
        await home.daemon.turn()

    with_home(tmp_path, deed, machine.address)
    assert "Inhibit" not in machine.asked


@pytest.mark.usefixtures("at_once")
def test_a_lock_that_is_refused_is_noted_and_jobs_run(tmp_path: Path, machine: FakeHost) -> None:
    machine.refusal = "interactive authentication is required"

    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await home.daemon.running(job)
        await until(home.host.notes, "the note")
        (note,) = home.host.notes()
        assert note == (
            "inhibit_shutdown = block is not in force: org.freedesktop.login1: interactive "
            "authentication is required; the machine may go down while jobs run"
        )
        assert machine.asked.count("Inhibit") == 1
        machine.refusal = None
        home.daemon.kill(job)
        await home.daemon.ended(job)
        home.daemon.submit(FOR_EVER)
        await until(lambda: machine.locks, "the lock")
        await until(lambda: not home.host.notes(), "the note to go")

    with_home(tmp_path, deed, machine.address, inhibit_shutdown="block")


@pytest.mark.usefixtures("at_once")
def test_a_shutdown_that_was_put_off_goes_on_once_the_jobs_have_ended(
    tmp_path: Path, machine: FakeHost
) -> None:
    async def deed(home: Home) -> None:
        job = home.daemon.submit(FOR_EVER)
        await until(lambda: machine.locks, "the lock")
        machine.prepare_for_shutdown(True)
        await home.daemon.ended(job)
        await until(lambda: not machine.locks, "the lock to be let go")

    with_home(tmp_path, deed, machine.address, inhibit_shutdown="delay")


# ─── sleep ───────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_that_slept_is_told_of_and_its_gpus_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(home: Home) -> None:
        daemon, asked = home.daemon, []
        await daemon.show(gpu(0))
        job = daemon.submit(FOR_EVER, time_limit_s=100.0)
        await daemon.running(job)
        monkeypatch.setattr(daemon.loop._lookout._probe, "ask", lambda: asked.append(1))
        await daemon.turn()
        assert (home.told("machine_slept"), asked) == ([], [])
        daemon.clock.asleep_s += 2 * HOUR_S
        await daemon.turn()
        assert home.told("machine_slept") == ["for 2:00:00, which no limit of a job counts"]
        assert asked
        await daemon.turn()
        assert len(home.told("machine_slept")) == 1, "once for each time"
        assert daemon.row(job)["state"] == "running"

    with_home(tmp_path, deed, None)


def test_how_long_it_slept_is_in_the_event(tmp_path: Path) -> None:
    async def deed(home: Home) -> None:
        home.daemon.clock.asleep_s += 90.0
        await home.daemon.turn()
        (slept,) = [
            one for one in stored.events(home.daemon.store) if one["kind"] == "machine_slept"
        ]
        assert slept["detail"] == '{"seconds": 90.0}'

    with_home(tmp_path, deed, None)


@pytest.mark.parametrize("set_s", [-HOUR_S, HOUR_S])
def test_a_clock_that_somebody_sets_is_no_sleep(tmp_path: Path, set_s: float) -> None:
    async def deed(home: Home) -> None:
        home.daemon.clock.set_s = set_s
        home.daemon.clock.awake_s += 5.0
        await home.daemon.turn()
        assert home.told("machine_slept") == []

    with_home(tmp_path, deed, None)
