"""systemd is told how the daemon is: that it answers, that its loop turns, what is wrong."""

import asyncio
import errno
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from gpuq.core.gpus.gpu import Bar, GpuState
from gpuq.core.policy import Policy
from gpuq.daemon.linux import processes
from gpuq.daemon.status_line import status_line
from gpuq.daemon.systemd.notify import Notifier, notifier_of
from gpuq.daemon.systemd.pulse import Pulse
from gpuq.errors import GpuqError
from tests.alive import Alive, with_alive
from tests.builders import gpu, lease
from tests.conftest import BIN, Daemon, until
from tests.systemd_side import Ear

WATCHDOG_S = 0.6
NEEDS_A_PERSON = 78


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    with Ear(tmp_path / "notify") as ear:
        yield ear


# ─── one who tells ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["a path", "an abstract name"])
def test_systemd_is_told_wherever_it_listens(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "a path" else f"@gpuq-test-{os.getpid()}"
    with Ear(address) as ear:
        notifier = notifier_of({"NOTIFY_SOCKET": address})
        assert notifier.is_heard
        notifier.ready()
        assert notifier.status("3 running,\n5 queued")
        assert notifier.alive()
        assert ear.heard() == [b"READY=1", b"STATUS=3 running, 5 queued", b"WATCHDOG=1"]


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative"])
def test_where_nobody_listens_nothing_is_said(address: str | None) -> None:
    environ = {"WATCHDOG_USEC": "1000000"} | ({} if address is None else {"NOTIFY_SOCKET": address})
    notifier = notifier_of(environ)
    assert not notifier.is_heard
    assert notifier.watchdog_s is None
    notifier.ready()
    assert not notifier.alive()


def test_a_systemd_that_is_gone_or_does_not_read_harms_nobody(ear: Ear, tmp_path: Path) -> None:
    gone = Notifier(str(tmp_path / "gone"))
    gone.ready()
    gone.stopping("it got SIGTERM")
    assert not gone.status("here")

    notifier = Notifier(ear.address)
    while notifier.alive():  # until there is no room for more
        pass
    assert not notifier.status("here")
    ear.heard()
    assert notifier.status("here")


def test_only_who_is_meant_by_the_watchdog_feeds_it(ear: Ear) -> None:
    def watched(**environ: str) -> float | None:
        return notifier_of({"NOTIFY_SOCKET": ear.address, **environ}).watchdog_s

    me, other = str(os.getpid()), str(os.getpid() + 1)
    assert watched(WATCHDOG_USEC="30000000", WATCHDOG_PID=me) == 30.0
    assert watched(WATCHDOG_USEC="30000000") == 30.0
    assert watched(WATCHDOG_USEC="30000000", WATCHDOG_PID=other) is None
    assert watched(WATCHDOG_USEC="soon") is None
    assert watched(WATCHDOG_USEC="0") is None
    assert watched() is None


def test_a_failure_is_told_with_its_cause(ear: Ear) -> None:
    notifier = Notifier(ear.address)
    try:
        try:
            os.stat("/nowhere")
        except OSError as error:
            raise GpuqError("cannot look:\nno such file") from error
    except GpuqError as error:
        notifier.failed(error)
    notifier.failed(GpuqError("no"))
    told = f"STATUS=cannot look: no such file\nERRNO={errno.ENOENT}".encode()
    assert ear.heard() == [told, b"STATUS=no"]


def test_a_reading_of_the_settings_is_told_only_where_it_was_asked_for(ear: Ear) -> None:
    notifier = Notifier(ear.address)
    notifier.reloading()  # not ready yet, so systemd waits for that
    notifier.reloaded()
    assert ear.heard() == []
    notifier.ready()
    notifier.reloaded()
    assert ear.heard() == [b"READY=1"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.reloaded()
    notifier.reloaded()
    asked, done = ear.heard()
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", asked)
    assert found is not None
    assert before <= int(found[1]) <= time.monotonic_ns() // 1000
    assert done == b"READY=1"


# ─── the pulse ───────────────────────────────────────────────────────────────────────────────────


def test_turns_feed_the_watchdog_at_half_its_interval_at_the_latest(ear: Ear) -> None:
    now = 0.0
    pulse = Pulse(Notifier(ear.address, 30.0), lambda: "", lambda: now)
    assert pulse.longest_sleep_s == 10.0
    fed_at = []

    async def live() -> None:
        nonlocal now
        for step_s in (0.1, 4.8, 0.2, 10.0, 4.9, 10.0, *[0.01] * 2000):
            now += step_s
            pulse.turned()
            fed_at.extend(now for told in ear.heard() if told == b"WATCHDOG=1")
        pulse.stop()

    asyncio.run(live())
    gaps = [later - earlier for earlier, later in pairwise(fed_at)]
    assert max(gaps) <= 15.0
    assert min(gaps) >= 5.0, "a busy loop does not tell of each turn"
    assert len(fed_at) >= 6


def test_a_pulse_that_nobody_hears_wakes_nobody() -> None:
    def describe() -> str:
        raise AssertionError("nobody asked")

    pulse = Pulse(Notifier(), describe, lambda: 0.0)
    assert pulse.longest_sleep_s is None
    pulse.turned()  # needs no event loop: there is no timer


def test_a_status_is_told_when_it_changes_and_once_a_second_at_most(ear: Ear) -> None:
    now = 100.0
    status = "a"
    asked = 0

    def describe() -> str:
        nonlocal asked
        asked += 1
        return status

    async def live() -> None:
        nonlocal now, status
        pulse = Pulse(Notifier(ear.address), describe, lambda: now)
        pulse.turned()
        assert ear.heard() == [b"STATUS=a"]
        now += 2
        pulse.turned()
        assert ear.heard() == [], "nothing has changed"
        now += 0.9
        for status in ("b", "c", "d"):  # noqa: B007 - it is described
            pulse.turned()
        assert (asked, ear.heard()) == (2, [])
        now += 0.1  # the timer rings by the real clock
        while not (heard := ear.heard()):
            await asyncio.sleep(0.01)
        assert (asked, heard) == (3, [b"STATUS=d"]), "the last word is told, though no turn follows"

    asyncio.run(live())


def test_counting_a_long_queue_takes_a_hundredth_of_the_time(ear: Ear) -> None:
    now = 0.0
    described_at = []

    def describe() -> str:
        nonlocal now
        described_at.append(now)
        now += 0.05
        return ""

    async def live() -> None:
        nonlocal now
        pulse = Pulse(Notifier(ear.address), describe, lambda: now)
        pulse.turned()
        while now < 12.0:
            now += 0.5
            pulse.turned()
            if pulse._timer is not None:
                pulse.stop()
                pulse._timer = None  # the next turn comes before it rings
        assert len(described_at) == 3

    asyncio.run(live())


def test_the_status_says_in_words_how_the_daemon_is() -> None:
    def line(*gpus: object, troubles: tuple[str | None, ...] = (), queued: int = 5) -> str:
        held = [lease(0, 1)]
        return status_line(3, queued, gpus, held, Policy(), troubles)  # type: ignore[arg-type]

    aside = gpu(2, bar=Bar(state=GpuState.QUARANTINED, reason="it failed"))
    assert line(gpu(0), gpu(1)) == "3 running, 5 queued; 2 GPUs, 1 of them free"
    assert line(gpu(0)) == "3 running, 5 queued; 1 GPU, not free"
    assert line(gpu(1), queued=0) == "3 running, 0 queued; 1 GPU, free"
    assert line(gpu(0), gpu(1), aside).endswith("; 3 GPUs, 1 of them free, 1 given to nobody")
    assert line(troubles=(None, "drained")) == "3 running, 5 queued; no GPU; drained"
    not_read = status_line(0, 0, None, [], Policy(), [])
    assert not_read == "0 running, 0 queued; GPUs not read yet"


# ─── a true daemon ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def told_daemon(stopped_daemon: Daemon, ear: Ear) -> Daemon:
    stopped_daemon.environment["NOTIFY_SOCKET"] = ear.address
    return stopped_daemon


def test_its_life_is_told_from_ready_to_stopping(told_daemon: Daemon, ear: Ear) -> None:
    told_daemon.start()
    assert ear.until("READY=1")[-1] == "READY=1"
    ear.until("STATUS=0 running, 0 queued; 4 GPUs, 4 of them free")
    with told_daemon.client() as client:
        client.submit(["sleep", "60"], gpus=3)
        client.submit(["sleep", "60"], gpus=2)
        ear.until("STATUS=1 running, 1 queued; 4 GPUs, 1 of them free")
        client.drain("new driver")
        ear.until("GPUs, 1 of them free; the queue is drained by")
        client.drain(None)
    children = processes.descendants(told_daemon.pid)
    for pid in children:
        names = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"NOTIFY_" not in names, "nobody else is to speak to systemd"
    assert told_daemon.stop() == 0
    told = ear.until("STOPPING=1")
    assert told[-1].startswith("STOPPING=1\nSTATUS=leaving, jobs go on: it got SIGTERM")


def test_it_is_not_ready_where_the_socket_does_not_answer(told_daemon: Daemon, ear: Ear) -> None:
    told_daemon.state.mkdir()
    (told_daemon.state / "gpuq.sock").write_text("no socket")
    ran = serve(told_daemon)
    assert ran.returncode == 1
    told = [one.decode() for one in ear.heard()]
    assert not any("READY=1" in one for one in told)
    assert told[-1].startswith("STATUS=cannot listen on")
    (told_daemon.state / "gpuq.sock").unlink()


def test_a_reload_is_over_when_the_file_was_read(told_daemon: Daemon, ear: Ear) -> None:
    file = told_daemon.state.parent / "gpuq.toml"
    file.write_text("cpu_slots = 3\n")
    told_daemon.start("--config", str(file))
    ear.until("READY=1")
    file.write_text("cpu_slots = 'many'\n")
    os.kill(told_daemon.pid, signal.SIGHUP)
    assert ear.until("RELOADING=1")[-1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    ear.until("READY=1")
    ear.until("the file was changed and cannot be read")
    file.write_text("cpu_slots = 4\n")
    os.kill(told_daemon.pid, signal.SIGHUP)
    ear.until("RELOADING=1")
    ear.until("READY=1")
    with told_daemon.client() as client:
        settings = {one["name"]: one["value"] for one in client.call("config")["settings"]}
    assert settings["cpu_slots"] == "4", "it had been read before that was told"


@pytest.mark.parametrize("trouble", ["settings", "an older program", "damage", "GPUs"])
def test_what_no_other_start_mends_is_told_and_says_so(
    told_daemon: Daemon, ear: Ear, trouble: str
) -> None:
    """78 keeps systemd from trying again (RestartPreventExitStatus=)."""
    flags: list[str | Path] = []
    database = told_daemon.state / "gpuq.db"
    told_daemon.start()
    assert told_daemon.stop() == 0
    kept = database.read_bytes()
    if trouble == "settings":
        flags = ["--grace", "soon"]
    elif trouble == "an older program":
        with closing(sqlite3.connect(database)) as db:
            db.execute("pragma user_version = 99")
    elif trouble == "damage":
        database.write_bytes(b"no database")
    else:
        flags = ["--gpus", "nonsense"]
    ear.heard()
    ran = serve(told_daemon, *flags)
    database.write_bytes(kept)
    assert ran.returncode == NEEDS_A_PERSON, ran.stderr
    (told,) = (one.decode() for one in ear.heard())
    said = ran.stderr.strip().removeprefix("gpuqd: ")
    assert told.splitlines()[0] == f"STATUS={said}"


def test_who_only_looks_is_no_service(told_daemon: Daemon, ear: Ear) -> None:
    assert serve(told_daemon, "--only-check").returncode == 0
    wrong = serve(told_daemon, "--only-check", "--grace", "soon")
    assert wrong.returncode == 2, "a word on the command line"
    assert serve(told_daemon, "--no-such-flag").returncode == 2
    assert ear.heard() == []


def test_a_loop_that_stands_still_is_not_fed(told_daemon: Daemon, ear: Ear) -> None:
    faults = told_daemon.state.parent / "faults"
    faults.mkdir()
    told_daemon.environment |= {
        "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        "GPUQ_FAULTS": str(faults),
    }
    told_daemon.start()
    for _ in range(3):
        ear.until("WATCHDOG=1")
    mark = faults / "loop.news"
    mark.write_text("stand still")
    with told_daemon.client() as client:
        client.submit(["true"], gpus=0)
        until(lambda: not mark.exists(), "the loop to stand still")
    ear.heard()
    told = ear.next(3 * WATCHDOG_S)
    told_daemon.kill()
    assert told is None


def test_a_turn_that_never_ends_is_not_fed_though_clients_are_answered(
    tmp_path: Path, ear: Ear
) -> None:
    async def live(daemon: Alive) -> None:
        notifier = Notifier(ear.address, WATCHDOG_S)
        daemon.loop._pulse = Pulse(notifier, lambda: "", daemon.clock.monotonic)
        await daemon.turn()
        for _ in range(2):
            await asyncio.to_thread(ear.until, "WATCHDOG=1")
        is_stuck, let_go = asyncio.Event(), asyncio.Event()
        do = daemon.loop._deeds.do

        async def hang(*given: object) -> None:
            is_stuck.set()
            await let_go.wait()
            await do(*given)  # type: ignore[arg-type]

        daemon.loop._deeds.do = hang  # type: ignore[method-assign]
        daemon.loop.wake()
        await is_stuck.wait()
        ear.heard()
        assert await asyncio.to_thread(ear.next, 2 * WATCHDOG_S) is None
        daemon.loop._deeds.do = do  # type: ignore[method-assign]
        let_go.set()
        await asyncio.to_thread(ear.until, "WATCHDOG=1")

    with_alive(tmp_path, live)


def test_an_idle_loop_turns_only_where_a_watchdog_wants_it(tmp_path: Path, ear: Ear) -> None:
    async def live(daemon: Alive) -> None:
        await daemon.turn()
        assert daemon.loop._longest_sleep_s() is None
        notifier = Notifier(ear.address)
        daemon.loop._pulse = Pulse(notifier, lambda: "", daemon.clock.monotonic)
        assert daemon.loop._longest_sleep_s() is None
        notifier.watchdog_s = 30.0
        assert daemon.loop._longest_sleep_s() == 10.0

    with_alive(tmp_path, live)


def serve(daemon: Daemon, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    """A daemon that is to end by itself."""
    words = [BIN / "gpuqd", "--state-dir", daemon.state, "--gpus", daemon.gpus, *flags]
    return subprocess.run(
        words, env=daemon.environment, capture_output=True, text=True, check=False, timeout=60
    )
