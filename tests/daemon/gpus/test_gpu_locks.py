"""Two daemons of one machine never give the same GPU away, whoever of them lives or dies."""

import asyncio
import contextlib
import getpass
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Lease, Request
from gpuq.core.policy import Policy
from gpuq.daemon.attempt import gate as gates
from gpuq.daemon.gpus import GpuWatch
from gpuq.daemon.gpus.locks import LEAVING, NAME, NAMELESS, GpuLocks
from gpuq.daemon.linux import processes
from gpuq.daemon.supervisor import Exited, News
from tests.alive import LOCKS as ALIVE
from tests.alive import Alive, MovedClock, alive, shown_by_hand
from tests.builders import STEADY, gpu, lease, uuid
from tests.conftest import until
from tests.desk import Desk, is_gone, with_desk
from tests.desk import until as in_loop_until

LOCKS = f"gpuq-test-locks-{os.getpid()}-"
ZERO, ONE = uuid(0), uuid(1)
ME = getpass.getuser()


def by_daemon(pid: int) -> str:
    return f"held by another gpuq daemon (pid {pid}, {ME})"


BY_A_JOB = f"held by a job that another gpuq daemon left behind ({ME})"


@pytest.fixture
def make() -> Iterator[Callable[[], GpuLocks]]:
    """The locks of as many daemons as are wanted, all in this process."""
    made: list[GpuLocks] = []

    def one() -> GpuLocks:
        made.append(GpuLocks(LOCKS, pid=0))
        return made[-1]

    yield one
    for locks in made:
        locks.close()


# Another daemon, as a process: it locks what it is told to. With a runner that has the locks too.
OTHER = """
import subprocess, sys
from gpuq.daemon.gpus.locks import GpuLocks
locks = GpuLocks(sys.argv[1])
refused = locks.take(sys.argv[3:])
runner = 0
if sys.argv[2] == "runner":
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    held = locks.descriptors(sys.argv[3:])
    runner = subprocess.Popen(["sleep", "600"], pass_fds=held, **quiet).pid
print(runner, dict(refused), flush=True)
sys.stdin.read()
"""


class Other:
    def __init__(self, *uuids: str, runner: bool = False) -> None:
        words = [sys.executable, "-c", OTHER, LOCKS, "runner" if runner else "alone", *uuids]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        runner_pid, self.refused = self.process.stdout.readline().decode().split(" ", 1)
        self.runner = processes.identity(int(runner_pid)) if runner else None

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end_runner(self) -> None:
        assert self.runner is not None
        pid, start = self.runner
        processes.send(pid, 9, start=start)
        until(lambda: is_gone(pid), "the runner to be gone")


@contextlib.contextmanager
def other(*uuids: str, runner: bool = False) -> Iterator[Other]:
    one = Other(*uuids, runner=runner)
    try:
        yield one
    finally:
        one.kill()
        if one.runner is not None:
            one.end_runner()


@contextlib.contextmanager
def squatter(name: str, backlog: int | None = None) -> Iterator[socket.socket]:
    """Somebody who has the name, and listens only where a backlog is given."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(b"\0" + (LOCKS + name).encode())
        if backlog is not None:
            sock.listen(backlog)
        yield sock


# ─── between two daemons ─────────────────────────────────────────────────────────────────────────


def test_a_gpu_is_locked_once_and_who_has_it_is_named(make: Callable[[], GpuLocks]) -> None:
    ours = make()
    with other(ZERO) as theirs:
        assert theirs.refused == "{}\n"
        assert ours.holder(ZERO) == by_daemon(theirs.pid)
        assert ours.take([ZERO]) == {ZERO: by_daemon(theirs.pid)}
        assert ours.holder(ONE) is None
        assert ours.take([ONE]) == {}
        with other(ONE) as third:
            assert by_daemon(os.getpid()) in third.refused


def test_of_several_gpus_all_are_locked_or_none(make: Callable[[], GpuLocks]) -> None:
    ours, third = make(), make()
    with other(ONE) as theirs:
        assert ours.take([ZERO, ONE, uuid(2)]) == {ONE: by_daemon(theirs.pid)}
        assert ours.descriptors([ZERO, ONE, uuid(2)]) == ()
        assert third.take([ZERO, uuid(2)]) == {}


def test_what_is_had_already_stays_when_more_is_refused(make: Callable[[], GpuLocks]) -> None:
    ours, third = make(), make()
    assert ours.take([ZERO]) == {}
    with other(ONE):
        assert ours.take([ZERO, ONE]).keys() == {ONE}
    assert third.holder(ZERO) == by_daemon(os.getpid())


def test_what_a_killed_daemon_had_is_free_at_once(make: Callable[[], GpuLocks]) -> None:
    ours = make()
    with other(ZERO) as theirs:
        assert ours.holder(ZERO) is not None
        theirs.kill()
        assert ours.holder(ZERO) is None
        assert ours.take([ZERO]) == {}


def test_a_gpu_stays_locked_while_a_job_of_a_killed_daemon_lives(
    make: Callable[[], GpuLocks],
) -> None:
    seen_before, seen_after = make(), make()
    with other(ZERO, runner=True) as theirs:
        assert seen_before.holder(ZERO) == by_daemon(theirs.pid)
        theirs.kill()
        for ours in (seen_before, seen_after):
            assert ours.holder(ZERO) == BY_A_JOB
            assert ours.take([ZERO]) == {ZERO: BY_A_JOB}
        theirs.end_runner()
        assert [seen_before.holder(ZERO), seen_after.holder(ZERO)] == [None, None]
        assert seen_after.take([ZERO]) == {}


def test_who_took_it_next_is_named_and_not_who_had_it(make: Callable[[], GpuLocks]) -> None:
    ours = make()
    with other(ZERO) as first:
        assert ours.holder(ZERO) == by_daemon(first.pid)
    with other(ZERO) as second:
        assert ours.holder(ZERO) == by_daemon(second.pid)


def test_looking_as_often_as_one_likes_costs_the_holder_nothing(
    make: Callable[[], GpuLocks],
) -> None:
    """Nobody accepts on a lock: each connection that is made stays in a short queue for ever."""
    ours = make()
    with squatter(ZERO, backlog=1) as sock:
        for _ in range(100):
            assert ours.holder(ZERO) == by_daemon(os.getpid())
        sock.setblocking(False)
        sock.accept()[0].close()
        with pytest.raises(BlockingIOError):
            sock.accept()


# ─── others who have the name ────────────────────────────────────────────────────────────────────


def test_somebody_who_only_has_the_name_is_respected_though_he_says_nothing(
    make: Callable[[], GpuLocks],
) -> None:
    ours = make()
    with squatter(ZERO):
        assert ours.take([ZERO]) == {ZERO: NAMELESS}
        assert ours.holder(ZERO) == NAMELESS, "it is remembered, or it would be tried in a circle"
        assert ours.take([ZERO]) == {ZERO: NAMELESS}
    assert ours.holder(ZERO) is None
    assert ours.take([ZERO]) == {}


def test_somebody_who_says_who_only_later_is_named_then(make: Callable[[], GpuLocks]) -> None:
    """As a daemon is between two of its system calls."""
    ours = make()
    with squatter(ZERO) as sock:
        assert ours.take([ZERO]) == {ZERO: NAMELESS}
        sock.listen()
        assert ours.holder(ZERO) == by_daemon(os.getpid())
    assert ours.holder(ZERO) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can be somebody else")
@pytest.mark.parametrize("uid", [65534, 54321], ids=["with a name", "without a name"])
def test_somebody_else_is_named_by_the_user_who_he_is(
    make: Callable[[], GpuLocks], uid: int
) -> None:
    """As the kernel knows him, from the moment in which he locked it."""
    ours = make()
    with squatter(ZERO) as sock:
        os.seteuid(uid)
        try:
            sock.listen()
        finally:
            os.seteuid(0)
        name = {65534: "nobody"}.get(uid, str(uid))
        assert ours.take([ZERO]) == {
            ZERO: f"held by another gpuq daemon (pid {os.getpid()}, {name})"
        }


def test_somebody_of_whom_too_many_have_asked_does_not_say_who(
    make: Callable[[], GpuLocks],
) -> None:
    ours = [make() for _ in range(3)]
    with squatter(ZERO, backlog=1):
        words = [one.holder(ZERO) for one in ours]
        assert words == [by_daemon(os.getpid())] * 2 + [NAMELESS]
        assert ours[2].take([ZERO]) == {ZERO: NAMELESS}
    assert ours[2].holder(ZERO) is None


def test_somebody_who_talks_back_or_hangs_up_is_still_there(make: Callable[[], GpuLocks]) -> None:
    ours = make()
    with squatter(ZERO, backlog=5) as sock:
        assert ours.holder(ZERO) is not None
        line = sock.accept()[0]
        line.sendall(b"hello")
        assert ours.holder(ZERO) == by_daemon(os.getpid())
        line.close()
        for _ in range(10):
            assert ours.holder(ZERO) == by_daemon(os.getpid())


@pytest.mark.parametrize(
    "name", ["", "GPU-ä/../x y\n", "\0\0", "MIG-GPU-4/1/0", "\ud800", "x" * 95]
)
def test_a_uuid_may_hold_any_characters(name: str) -> None:
    """And as many as the driver's may have."""
    ours, theirs = GpuLocks(), GpuLocks(pid=0)
    strange = f"{name[:85]}{os.getpid():010}"
    try:
        assert ours.take([strange]) == {}
        assert theirs.take([strange]) == {strange: by_daemon(os.getpid())}
        assert len((NAME + strange).encode("utf-8", "replace")) <= 107
    finally:
        ours.close()
        theirs.close()


# ─── as long as there is a lease ─────────────────────────────────────────────────────────────────


def test_a_shared_gpu_is_locked_until_the_last_has_left_and_it_has_cooled(
    make: Callable[[], GpuLocks],
) -> None:
    ours, third = make(), make()
    assert ours.take([ZERO]) == {}
    both = [lease(0, 1, "2G"), lease(0, 2, "2G", slot=1)]
    cooling = lease(0, 2, "2G", slot=1, cooling_since=5.0)
    dirty = lease(0, 2, "2G", slot=1, cooling_since=5.0, dirt="python 4 bob")
    for left in (both, both[1:], [cooling], [dirty]):
        ours.settle(left)
        assert third.holder(ZERO) is not None
        assert ours.take([ZERO]) == {}, "another of ours may come beside them"
    ours.settle([])
    assert third.holder(ZERO) is None


def test_what_was_locked_for_a_start_that_came_to_nothing_is_let_go(
    make: Callable[[], GpuLocks],
) -> None:
    ours, third = make(), make()
    assert ours.take([ZERO, ONE]) == {}
    ours.settle([lease(0, 1)])
    assert third.holder(ZERO) is not None
    assert third.take([ONE]) == {}


class Runner:
    """Has the locks of a GPU by descriptors of its own, as a runner does."""

    def __init__(self, locks: GpuLocks, *uuids: str) -> None:
        self.fds = [os.dup(fd) for fd in locks.descriptors(uuids)]

    def end(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


@pytest.fixture
def runner_of_yesterday(make: Callable[[], GpuLocks]) -> Iterator[Runner]:
    """On GPU 0, and its daemon is gone."""
    before = make()
    assert before.take([ZERO]) == {}
    runner = Runner(before, ZERO)
    before.close()
    yield runner
    runner.end()


def test_a_lock_that_a_runner_of_ours_has_is_ours(
    make: Callable[[], GpuLocks], runner_of_yesterday: Runner
) -> None:
    ours, third = make(), make()
    ours.settle([lease(0, 1, "2G")])
    assert ours.holder(ZERO) is None
    assert ours.take([ZERO]) == {}, "another of ours may share it"
    assert ours.descriptors([ZERO]) == (), "but there is nothing to hand on"
    runner_of_yesterday.end()
    assert third.take([ZERO]) == {}, "that lock was all there was"


def test_a_lock_is_had_again_when_the_runner_that_had_it_ends_beside_a_later_one(
    make: Callable[[], GpuLocks], runner_of_yesterday: Runner
) -> None:
    ours, third = make(), make()
    old, new = lease(0, 1, "2G"), lease(0, 2, "2G", slot=1)
    ours.settle([old])
    assert ours.take([ZERO]) == {}
    ours.settle([old, new])
    assert ours.descriptors([ZERO]) == ()
    runner_of_yesterday.end()
    ours.settle([lease(0, 1, "2G", cooling_since=5.0), new])
    assert len(ours.descriptors([ZERO])) == 1
    assert third.holder(ZERO) == by_daemon(os.getpid())


def test_a_runner_that_is_about_to_leave_is_nobody_else(make: Callable[[], GpuLocks]) -> None:
    """It has told of the end of its job, and only writes its record to the disk. The GPU is not ours
    to give yet, but nobody strange has used it."""
    ours, third = GpuLocks(LOCKS), make()
    assert ours.take([ZERO]) == {}
    runner = Runner(ours, ZERO)
    ours.settle([])
    assert third.holder(ZERO) == by_daemon(os.getpid())
    assert ours.holder(ZERO) is None
    assert ours.take([ZERO]) == {ZERO: LEAVING}
    assert ours.holder(ZERO) is None
    runner.end()
    assert ours.take([ZERO]) == {}
    ours.close()


def test_a_gpu_whose_runner_is_gone_is_locked_again_after_a_restart(
    make: Callable[[], GpuLocks],
) -> None:
    ours, third = make(), make()
    cooling = lease(1, 2, cooling_since=5.0)
    dirty = lease(2, 3, cooling_since=5.0, dirt="python 4 bob")
    ours.settle([lease(0, 1), cooling, dirty])
    for index in range(3):
        assert third.holder(uuid(index)) == by_daemon(os.getpid())


def test_a_gpu_that_only_cools_and_that_somebody_else_has_by_now_is_not_ours(
    make: Callable[[], GpuLocks],
) -> None:
    ours = make()
    with other(ZERO) as theirs:
        ours.settle([lease(0, 1, "2G", cooling_since=5.0)])
        assert ours.take([ZERO]) == {ZERO: by_daemon(theirs.pid)}
    ours.settle([lease(0, 1, "2G", cooling_since=5.0)])
    assert len(ours.descriptors([ZERO])) == 1


class Days(RuleBasedStateMachine):
    """A daemon with jobs that come, share, end, cool, and with restarts in between."""

    gpus = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.name = f"gpuq-test-days-{os.getpid()}-"
        self.ours, self.others = GpuLocks(self.name), GpuLocks(self.name, pid=0)
        self.leases: dict[int, Lease] = {}  # by job
        self.runners: dict[int, Runner] = {}
        self.jobs = 0

    def settle(self) -> None:
        self.ours.settle(self.leases.values())

    @rule(index=gpus)
    def start(self, index: int) -> None:
        assert self.ours.take([uuid(index)]) == {}
        self.jobs += 1
        self.leases[self.jobs] = lease(index, self.jobs, "1G", slot=self.jobs)
        self.runners[self.jobs] = Runner(self.ours, uuid(index))
        self.settle()

    @rule(index=gpus)
    def start_in_vain(self, index: int) -> None:
        assert self.ours.take([uuid(index)]) == {}
        self.settle()

    @precondition(lambda self: self.runners)
    @rule(data=st.data(), cools=st.booleans())
    def end(self, data: Any, cools: bool) -> None:
        job = data.draw(st.sampled_from(sorted(self.runners)))
        self.runners.pop(job).end()
        left = self.leases.pop(job)
        if cools:
            index = int(left.gpu.removeprefix("GPU-"))
            self.leases[job] = lease(index, job, "1G", slot=job, cooling_since=5.0)
        self.settle()

    @rule()
    def cool(self) -> None:
        self.leases = {job: one for job, one in self.leases.items() if job in self.runners}
        self.settle()

    @rule()
    def restart(self) -> None:
        self.ours.close()
        self.ours = GpuLocks(self.name)
        self.settle()

    @invariant()
    def what_is_leased_is_locked_and_nothing_else(self) -> None:
        for index in range(2):
            is_leased = any(one.gpu == uuid(index) for one in self.leases.values())
            assert (self.others.holder(uuid(index)) is not None) == is_leased
            assert self.ours.holder(uuid(index)) is None

    def teardown(self) -> None:
        for runner in self.runners.values():
            runner.end()
        self.ours.close()
        self.others.close()


def test_what_is_leased_is_locked_and_nothing_else_whatever_happens() -> None:
    run_state_machine_as_test(Days, settings=STEADY)


# ─── at the runner ───────────────────────────────────────────────────────────────────────────────


def sockets_of(pid: int) -> set[str]:
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {link for link in links if link.startswith("socket:")}


def test_the_runner_holds_the_locks_to_its_end_and_the_job_gets_none(
    tmp_path: Path, make: Callable[[], GpuLocks]
) -> None:
    many = [uuid(index) for index in range(gates.MOST_FDS)]
    ours, third = make(), make()
    assert ours.take(many) == {}
    held = ours.descriptors(many)
    inodes = {os.readlink(f"/proc/self/fd/{fd}") for fd in held}
    assert len(inodes) == gates.MOST_FDS, "one for each GPU of the largest machine"

    async def deed(desk: Desk) -> None:
        script = "echo $$ > pid; while ! [ -e go ]; do sleep 0.01; done"
        known = await desk.start("sh", "-c", script, fds=held)
        job = await desk.pid_in("pid")
        assert inodes <= sockets_of(known.runner_pid)
        ours.close()
        for pid in (job, *processes.descendants(job)):
            assert not sockets_of(pid)
        assert all(third.holder(one) is not None for one in many)
        (tmp_path / "go").touch()
        await desk.exited()
        await in_loop_until(lambda: is_gone(known.runner_pid), "the runner to leave")
        assert not any(third.holder(one) for one in many)

    with_desk(tmp_path, deed)


# ─── a reading ───────────────────────────────────────────────────────────────────────────────────


class Watched:
    """A watch over GPU 0 that is told who has locked it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: str | None = None
        self.watch = GpuWatch(Policy, locked_by=self.look)
        self.at = 0.0

    def look(self, name: str) -> str | None:
        self.asked.append(name)
        return self.answer

    def read(self, *gpus: Gpu, leases: tuple[Lease, ...] = ()) -> bool:
        self.at += 2.0
        return self.watch.accept(list(gpus), leases, lambda pid: None, self.at)


def test_only_a_real_gpu_that_can_be_read_and_is_not_leased_is_looked_up() -> None:
    watched = Watched()
    cards = [gpu(0), gpu(1, simulated=True), gpu(2), gpu(3, fault="has fallen off the bus")]
    watched.read(*cards, leases=(lease(2, 7),))
    assert watched.asked == [ZERO]


def test_that_somebody_locks_a_gpu_or_lets_go_of_it_is_news() -> None:
    watched = Watched()
    for _ in range(5):
        watched.read(gpu(0))
    assert not watched.read(gpu(0))
    for answer in ("held by ann", "held by bob", None):
        watched.answer = answer
        assert watched.read(gpu(0))
        assert [one.locked_by for one in watched.watch.gpus or ()] == [answer]


def test_a_veto_holds_until_the_next_reading_which_is_news() -> None:
    watched = Watched()
    for _ in range(5):
        watched.read(gpu(0), gpu(1))
    watched.watch.veto({ONE: "held by ann"})
    assert [one.locked_by for one in watched.watch.gpus or ()] == [None, "held by ann"]
    assert watched.read(gpu(0), gpu(1))
    assert [one.locked_by for one in watched.watch.gpus or ()] == [None, None]
    assert not watched.read(gpu(0), gpu(1))


# ─── two daemons with the same GPUs ──────────────────────────────────────────────────────────────


WHOLE, SHARE = Request(gpus=1), Request(gpus=1, gpu_mem_bytes=2**30, exclusive=False)
WAITS = "while ! [ -e go ]; do sleep 0.01; done"


def with_two(folder: Path, deed: Callable[[Alive, Alive], Any]) -> None:
    async def main() -> None:
        for name in ("one", "two"):
            (folder / name).mkdir()
        async with alive(folder / "one") as one, alive(folder / "two") as two:
            await deed(one, two)

    asyncio.run(main())


async def show_calm(*daemons: Alive, number: int = 2) -> None:
    """As many readings of idle GPUs as it takes to know that they are free."""
    for daemon in daemons:
        for _ in range(daemon.config.policy().calm_samples + 1):
            daemon.clock.awake_s += daemon.config.policy().calm_s
            await daemon.show(*map(gpu, range(number)))


def shown(daemon: Alive) -> list[str | None]:
    return [one.locked_by for one in daemon.loop.gpus or ()]


async def left(daemon: Alive, job: int) -> None:
    """Its runner, which has the lock until it is gone: some time after it has told of the end."""
    runner = daemon.attempts(job)[0]["runner_pid"]
    await in_loop_until(lambda: is_gone(runner), "the runner to leave")


def reason(daemon: Alive, job: int) -> str:
    return daemon.loop.plan.reasons[job]


@pytest.mark.parametrize("request_", [WHOLE, SHARE], ids=["whole", "shared"])
def test_a_gpu_that_another_daemon_has_given_away_is_not_given_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    """Not even where no reading shows it yet, and it is given once a reading shows it free."""
    shown_by_hand(monkeypatch)

    async def deed(one: Alive, two: Alive) -> None:
        await show_calm(one, two)
        first = one.submit(WAITS, request=WHOLE)
        await one.running(first)
        second = two.submit("true", request=Request(gpus=2) if request_ is WHOLE else request_)
        if request_ is SHARE:  # there is room on the other GPU
            assert (await two.ended(second))["outcome"] == "succeeded"
            second = two.submit("true", request=Request(gpus=2, gpu_mem_bytes=1, exclusive=False))
        before = two.loop.turns
        await two.turn()
        assert two.loop.turns - before < 10, "it does not try in a circle"
        assert two.row(second)["state"] == "queued"
        assert two.attempts(second) == []
        assert by_daemon(os.getpid()) in reason(two, second)
        assert shown(two) == [by_daemon(os.getpid()), None]
        (one.folder / "go").touch()
        await one.ended(first)
        await two.show(gpu(0), gpu(1))
        assert two.row(second)["state"] == "queued", "it cools, and is the first one's until it has"
        await one.show(gpu(0), gpu(1))
        assert one.store.current.leases() == []
        await left(one, first)
        await show_calm(two)
        assert (await two.ended(second))["outcome"] == "succeeded"

    with_two(tmp_path, deed)


def test_a_reading_shows_who_has_locked_a_gpu_and_that_he_has_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(one: Alive, two: Alive) -> None:
        await show_calm(one)
        job = one.submit(WAITS, request=WHOLE)
        await one.running(job)
        await show_calm(one, two)
        assert shown(one) == [None, None], "one's own lock is no obstacle"
        assert shown(two) == [by_daemon(os.getpid()), None]
        one.kill(job, grace_s=0.0)
        await one.ended(job)
        await left(one, job)
        await show_calm(one, two)
        assert shown(two) == [None, None]

    with_two(tmp_path, deed)


def test_a_refusal_is_forgotten_at_the_next_reading_and_the_job_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By that reading alone, however little else it shows that is new."""
    shown_by_hand(monkeypatch)
    others = GpuLocks(ALIVE, pid=0)

    async def main() -> None:
        async with alive(tmp_path) as daemon:
            await show_calm(daemon)
            assert others.take([ZERO, ONE]) == {}
            job = daemon.submit("true", request=WHOLE)
            await daemon.turn()
            assert shown(daemon) == [by_daemon(os.getpid())] * 2
            assert daemon.row(job)["state"] == "queued"
            others.close()
            await daemon.show(gpu(0), gpu(1))
            assert (await daemon.ended(job))["outcome"] == "succeeded"

    asyncio.run(main())


def test_a_daemon_that_comes_back_has_the_locks_of_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two the runner has them; what it left to cool is locked again too."""
    shown_by_hand(monkeypatch)
    folder = tmp_path / "one"
    folder.mkdir()
    others, clock = GpuLocks(ALIVE, pid=0), MovedClock()

    async def main() -> None:
        async with alive(folder, clock, leave=True) as first:
            await show_calm(first)
            job, brief = first.submit(WAITS, request=WHOLE), first.submit("true", request=WHOLE)
            await first.running(job)
            await first.ended(brief)
            assert all(map(others.holder, (ZERO, ONE)))
        assert others.holder(ZERO) is not None
        async with alive(folder, clock) as second:
            assert all(map(others.holder, (ZERO, ONE)))
            (folder / "go").touch()
            await second.ended(job)
            assert others.holder(ZERO) is not None, "it cools"
            await second.show(gpu(0), gpu(1))
            await left(second, brief)
            assert not any(map(others.holder, (ZERO, ONE)))

    asyncio.run(main())
    others.close()


def test_who_comes_when_the_last_runner_of_yesterday_ends_gets_the_lock_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are news of one moment, and until then nobody but that runner had it."""
    shown_by_hand(monkeypatch)
    clock = MovedClock()
    later: list[int] = []

    async def main() -> None:
        async with alive(tmp_path, clock, leave=True) as first:
            await show_calm(first, number=1)
            await first.running(first.submit(WAITS, request=SHARE))
        async with alive(tmp_path, clock) as second:
            await show_calm(second, number=1)
            report = second.loop._supervisor._report

            def hear(news: News) -> None:
                if isinstance(news, Exited) and not later:
                    later.append(second.submit("exec sleep 600", request=SHARE))
                report(news)

            second.loop._supervisor._report = hear
            (tmp_path / "go").touch()
            await in_loop_until(lambda: later, "news")
            await second.running(later[0])
            (held,) = second.loop._locks.descriptors([ZERO])
            runner = second.attempts(later[0])[0]["runner_pid"]
            assert os.readlink(f"/proc/self/fd/{held}") in sockets_of(runner)

    asyncio.run(main())


def test_simulated_gpus_are_locked_by_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, gpus="sim:1x24G") as daemon:
            job = daemon.submit(WAITS, request=WHOLE)
            await daemon.running(job)
            (held,) = daemon.store.current.leases()
            assert daemon.loop._locks.descriptors([held.gpu]) == ()
            (tmp_path / "go").touch()
            await daemon.ended(job)

    asyncio.run(main())


def test_nothing_stays_locked_where_no_runner_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def no_runner() -> None:
        raise OSError("no more processes")

    async def deed(one: Alive, two: Alive) -> None:
        await show_calm(one, two)
        monkeypatch.setattr(one.loop._supervisor, "take_runner", no_runner)
        monkeypatch.setattr(one.loop._supervisor, "take_runner_at_hand", lambda: None)
        stuck = one.submit("true", request=WHOLE)
        await one.turn()
        assert "no more processes" in reason(one, stuck)
        job = two.submit("true", request=WHOLE)
        assert (await two.ended(job))["outcome"] == "succeeded"
        assert one.attempts(stuck) == []
        monkeypatch.undo()
        shown_by_hand(monkeypatch)

    with_two(tmp_path, deed)
