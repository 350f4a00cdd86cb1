"""A runner that ended clean takes another attempt, and nothing of one job is found by the next.
Launcher, runner and supervisor are the real ones, and so are the jobs."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.model import Exit
from gpuq.daemon.attempt import condition, record, runner
from gpuq.daemon.linux import cgroup, processes
from gpuq.daemon.linux.cgroup import Leaf
from gpuq.daemon.supervisor import Exited, Known
from tests.desk import Desk, desk_in, is_gone, until

IDLE_S = 60.0  # longer than any test: what leaves before that does so for another reason
LONG = "sleep 0.1; "  # long enough for the runner to leave the control group


@pytest.fixture(params=["processes", "a group"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    if request.param == "processes":
        yield None
        return
    root = cgroup.find_root(str(tmp_path))
    if root is None:
        pytest.skip("there are no control groups to be had here")
    yield root
    cgroup.sweep(root, set())
    os.rmdir(root)


def with_desk(
    folder: Path,
    deed: Callable[[Desk], Awaitable[None]],
    groups: str | None = None,
    idle_s: float = IDLE_S,
) -> None:
    async def main() -> None:
        async with desk_in(folder, groups, idle_s) as desk:
            await asyncio.wait_for(deed(desk), 40)

    asyncio.run(main())


async def one(desk: Desk, job: int, script: str = ":", **changes: Any) -> Known:
    """A job from its start to its end."""
    known = await desk.start("sh", "-c", script, job=job, **changes)
    assert await desk.exited(job) is not None
    return known


def runner_of(known: Known) -> tuple[int, int]:
    return known.runner_pid, known.runner_start


async def has_left(known: Known) -> None:
    await until(lambda: not processes.is_alive(*runner_of(known)), "its runner to leave")


# ─── who takes another one ───────────────────────────────────────────────────────────────────────


def test_a_clean_runner_takes_the_next_attempt(tmp_path: Path, groups: str | None) -> None:
    async def deed(desk: Desk) -> None:
        first = await one(desk, 1, "exit 3")
        for job, script in enumerate(("exit 4", f"{LONG} exit 5", "kill -9 $$", ":"), start=2):
            after = await one(desk, job, script)
            assert runner_of(after) == runner_of(first)
            assert after.cgroup == first.cgroup
        codes = [(exit.exit_code, exit.signal) for exit in await _exits(desk, 5)]
        assert codes == [(3, None), (4, None), (5, None), (None, signal.SIGKILL), (0, None)]
        for known in desk.known:
            assert (desk.record(known) or {})["nonce"] == known.nonce

    with_desk(tmp_path, deed, groups)


def test_a_clean_runner_waits_longer_than_for_the_commit(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        first = await one(desk, 1)
        await asyncio.sleep(5 * runner.COMMIT_S)
        assert runner_of(await one(desk, 2)) == runner_of(first)

    with_desk(tmp_path, deed)


async def _exits(desk: Desk, jobs: int) -> list[Exit]:
    return [await desk.exited(job) or Exit() for job in range(1, jobs + 1)]


LEAVES_SOMETHING = {
    "a process": ("sleep 0.05 &", {}),
    "a limit": ("prlimit --pid $PPID --core=0:0", {}),
    "a niceness": ("renice -n 3 -p $PPID", {}),
    "an OOM score": ("echo 100 > /proc/$PPID/oom_score_adj", {}),
    "an urgency of its disk": ("ionice -c 3 -p $PPID", {}),
    "a slack of its timers": ("echo 999999 > /proc/$PPID/timerslack_ns", {}),
    "what its core dump holds": ("echo 0x7f > /proc/$PPID/coredump_filter", {}),
    "a signal": ("kill $PPID", {}),
    "a command beside it": (":", {"on_kill": "true"}),
}


@pytest.mark.parametrize("what", LEAVES_SOMETHING)
def test_who_is_not_as_before_leaves(tmp_path: Path, what: str) -> None:
    script, changes = LEAVES_SOMETHING[what]

    async def deed(desk: Desk) -> None:
        known = await one(desk, 1, script, **changes)
        await has_left(known)
        assert runner_of(await one(desk, 2)) != runner_of(known)

    with_desk(tmp_path, deed)


def test_who_could_not_start_its_job_leaves(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start(str(tmp_path / "none"))
        assert (await desk.exited() or Exit()).exit_code == 127
        await has_left(known)

    with_desk(tmp_path, deed)


def test_who_was_told_anything_from_here_leaves(tmp_path: Path, groups: str | None) -> None:
    """What was done to a job may be still on its way to the group."""

    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.01; done")
        await desk.running()
        await asyncio.sleep(0.05)
        desk.supervisor.signal(1, signal.SIGTERM)
        assert (await desk.exited() or Exit()).exit_code == 6
        await has_left(known)
        assert not os.path.exists(known.cgroup or "/nowhere")

    with_desk(tmp_path, deed, groups)


def test_a_group_in_which_somebody_is_left_is_no_place_for_another_job(tmp_path: Path) -> None:
    """Somebody who is no descendant of the job."""
    root = cgroup.find_root(str(tmp_path))
    if root is None:
        pytest.skip("there are no control groups to be had here")

    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done")
        stranger = await asyncio.create_subprocess_exec("sleep", "600")
        Path(known.cgroup or "", "cgroup.procs").write_text(str(stranger.pid))
        (tmp_path / "go").touch()
        assert await desk.exited() is not None
        await has_left(known)
        stranger.kill()
        await stranger.wait()

    with_desk(tmp_path, deed, root)
    cgroup.sweep(root, set())
    os.rmdir(root)


def test_who_has_used_up_its_time_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a limit of CPU time that is meant for its job would end it."""
    monkeypatch.setattr("gpuq.daemon.attempt.condition.MOST_CPU_S", 1e6)
    assert not condition.is_spent()
    monkeypatch.setattr("gpuq.daemon.attempt.condition.MOST_CPU_S", 0.0)
    assert condition.is_spent()


def test_a_limit_of_cpu_time_ends_the_job_and_not_its_runner(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        for job in range(1, 4):
            await one(desk, job)
        burning = "while :; do :; done"
        known = await one(desk, 4, burning, limits={"RLIMIT_CPU": 1})
        assert (await desk.exited(4) or Exit()).signal == signal.SIGXCPU
        assert runner_of(known) == runner_of(desk.known[0]) == runner_of(await one(desk, 5))

    with_desk(tmp_path, deed)


# ─── when ────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_has_the_runner_of_an_attempt_whose_end_is_not_stored(tmp_path: Path) -> None:
    """Or two attempts that have not ended would be known by the same runner, should we die now."""

    async def deed(desk: Desk) -> None:
        stored: list[Exited] = []
        desk.stores = stored.append
        known = await one(desk, 1)
        other = await desk.supervisor.take_runner()
        assert (other.pid, other.start) != runner_of(known)
        desk.supervisor.dismiss(other)
        desk.supervisor.end_is_stored(1, 1)
        again = await desk.supervisor.take_runner()
        assert (again.pid, again.start) == runner_of(known)
        desk.supervisor.dismiss(again)
        await has_left(known)

    with_desk(tmp_path, deed)


def test_one_that_nobody_needs_leaves_after_a_while(tmp_path: Path, groups: str | None) -> None:
    async def deed(desk: Desk) -> None:
        known = await one(desk, 1, LONG)
        await has_left(known)
        assert not os.path.exists(known.cgroup or "/nowhere")
        assert await one(desk, 2)

    with_desk(tmp_path, deed, groups, idle_s=0.2)


def test_as_many_are_kept_as_were_at_work(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        wait = "while ! [ -e go ]; do sleep 0.01; done"
        for job in (1, 2, 3):
            await desk.start("sh", "-c", wait, job=job)
        (tmp_path / "go").touch()
        for job in (1, 2, 3):
            await desk.exited(job)
        gates = [await desk.supervisor.take_runner() for _ in range(3)]
        assert {(gate.pid, gate.start) for gate in gates} == set(map(runner_of, desk.known))
        for gate in gates:
            desk.supervisor.dismiss(gate)

    with_desk(tmp_path, deed)


def test_one_that_was_killed_as_it_waited_is_not_taken(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await one(desk, 1)
        os.kill(known.runner_pid, signal.SIGKILL)
        await has_left(known)
        assert runner_of(await one(desk, 2, "exit 4")) != runner_of(known)
        assert (await desk.exited(2) or Exit()).exit_code == 4

    with_desk(tmp_path, deed)


def test_one_that_is_killed_after_it_was_taken_has_run_nothing(tmp_path: Path) -> None:
    """Though it has run another attempt, and has an end of that on record."""

    async def deed(desk: Desk) -> None:
        first = await one(desk, 1, "exit 3")
        gate = await desk.supervisor.take_runner()
        assert (gate.pid, gate.start) == runner_of(first)
        os.kill(gate.pid, signal.SIGKILL)
        known = desk.name(gate, 2)
        desk.supervisor.dispatch(gate, known, desk.order(known, "touch", "ran"))
        assert await desk.exited(2) is None
        assert not (tmp_path / "ran").exists()

    with_desk(tmp_path, deed)


def test_its_end_in_a_second_job_is_the_end_of_that_alone(
    tmp_path: Path, groups: str | None
) -> None:
    async def deed(desk: Desk) -> None:
        first = await one(desk, 1, f"{LONG} exit 3")
        second = await desk.start("sh", "-c", "(setsid sleep 600 &); exec sleep 600", job=2)
        running = await desk.running(2)
        assert runner_of(second) == runner_of(first)
        os.kill(second.runner_pid, signal.SIGKILL)
        assert (await desk.exited(2) or Exit()).lost
        assert is_gone(running.pid)
        assert [news.exit for news in desk.news if isinstance(news, Exited) and news.job == 1] == [
            await desk.exited(1)
        ]
        assert (desk.record(first) or {})["exit_code"] == 3

    with_desk(tmp_path, deed, groups)


def test_when_the_daemon_is_gone_it_leaves(tmp_path: Path, groups: str | None) -> None:
    async def deed(desk: Desk) -> None:
        known = await one(desk, 1, LONG)
        await desk.supervisor.close()
        await has_left(known)
        assert not os.path.exists(known.cgroup or "/nowhere")
        desk.supervisor.start()

    with_desk(tmp_path, deed, groups)


def test_its_second_job_is_adopted_by_the_next_daemon(tmp_path: Path, groups: str | None) -> None:
    async def deed(desk: Desk) -> None:
        first = await one(desk, 1, f"{LONG} exit 3")
        wait = "while ! [ -e go ]; do sleep 0.01; done; exit 5"
        second = await desk.start("sh", "-c", wait, job=2)
        assert runner_of(second) == runner_of(first)
        await desk.running(2)
        other = Desk(tmp_path, groups, IDLE_S)
        await desk.supervisor.close()
        desk.supervisor.start()
        other.supervisor.adopt(second)
        assert other.supervisor.owner_of((await other.running(2)).pid) == 2
        (tmp_path / "go").touch()
        assert (await other.exited(2) or Exit()).exit_code == 5
        assert is_gone(second.runner_pid)

    with_desk(tmp_path, deed, groups)


# ─── what the next job finds ─────────────────────────────────────────────────────────────────────

SEEN = """umask; pwd; ulimit -a; ls /proc/$$/fd; env | grep -v -e MARK -e TMPDIR | sort
grep -E '^(Sig[^Q]|Shd|Threads|NoNewPrivs|Cpus_allowed|Groups|Uid|Gid)' /proc/self/status
cat /proc/self/oom_score_adj; cut -d' ' -f 18,19,40,41 /proc/self/stat; ps -o ppid=,pgid= -p $$ | wc -w
"""
AWAY = (
    "ulimit -n 100; umask 011; cd /usr; trap '' USR1 HUP; export LEAKED=1; exec 7</dev/zero; exit 3"
)


def test_the_next_job_finds_what_the_first_one_did(tmp_path: Path, groups: str | None) -> None:
    there = tmp_path / "there"
    there.mkdir()
    other = {
        "umask": 0o077,
        "cwd": str(there),
        "limits": {
            "RLIMIT_NOFILE": 200,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_CORE": 5,
            "RLIMIT_STACK": 2**20,
        },
        "env": ("LEAKED=1", "HOME=/elsewhere"),
        "log": str(there / "log"),
    }

    async def deed(desk: Desk) -> None:
        first = await one(desk, 1, SEEN)
        await one(desk, 2, AWAY, **other)
        last = await one(desk, 3, SEEN)
        assert runner_of(last) == runner_of(first)
        assert desk.log(3).read_text() == desk.log(1).read_text()
        there.rename(tmp_path / "elsewhere")
        assert os.readlink(f"/proc/{last.runner_pid}/cwd") == "/"

    with_desk(tmp_path, deed, groups)


def test_its_runner_keeps_nothing_open(tmp_path: Path, groups: str | None) -> None:
    options: dict[str, Any] = {
        "stderr": str(tmp_path / "errors"),
        "log_index": str(tmp_path / "index"),
        "report": str(tmp_path / "report"),
        "heartbeat_s": 60.0,
    }

    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        await asyncio.sleep(0.1)  # it has said hello, and looks at itself
        before = _descriptors(gate.pid)
        known = desk.name(gate)
        desk.known.append(known)
        order = desk.order(known, "sh", "-c", "echo 5%; exit 3", **options)
        desk.supervisor.dispatch(gate, known, order, [os.open("/dev/zero", os.O_RDONLY)])
        assert await desk.exited() is not None
        for job in range(2, 5):
            assert runner_of(await one(desk, job, "exit 3", **options)) == runner_of(known)
        await until(lambda: _descriptors(gate.pid) == before, "them to be closed")

    with_desk(tmp_path, deed, groups)


def _descriptors(pid: int) -> list[str]:
    """None at all while one of them is being closed: then one has to look again."""
    folder = f"/proc/{pid}/fd"
    try:
        return sorted(os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))
    except FileNotFoundError:
        return []


def test_what_the_daemon_has_locked_is_free_when_the_job_has_ended(tmp_path: Path) -> None:
    name = f"\0gpuq-test-{os.getpid()}-{tmp_path.name}"

    async def deed(desk: Desk) -> None:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        lock.bind(name)
        await desk.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done", fds=(lock.fileno(),))
        await desk.running()
        lock.close()
        with pytest.raises(OSError, match="in use"):
            _bind(name)
        (tmp_path / "go").touch()
        assert await desk.exited() is not None
        _bind(name)
        assert runner_of(await one(desk, 2)) == runner_of(desk.known[0])

    with_desk(tmp_path, deed)


def _bind(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.bind(name)


def test_the_next_job_is_in_the_group_and_alone_in_there(tmp_path: Path) -> None:
    root = cgroup.find_root(str(tmp_path))
    if root is None:
        pytest.skip("there are no control groups to be had here")

    async def deed(desk: Desk) -> None:
        for job, script in enumerate((":", LONG), start=1):
            await one(desk, job, script)
        fugitive = "(env -i setsid sh -c 'echo $$ > fugitive; exec sleep 600' &) ; exec sleep 600"
        known = await desk.start("sh", "-c", fugitive, job=3)
        assert runner_of(known) == runner_of(desk.known[0])
        leaf = Leaf(known.cgroup or "")
        whole = {(await desk.running(3)).pid, await desk.pid_in("fugitive")}
        await until(lambda: set(leaf.members()) == whole, "the two of them to be alone")
        leaf.kill()
        assert (await desk.exited(3) or Exit()).signal == signal.SIGKILL

    with_desk(tmp_path, deed, root)
    os.rmdir(root)


# ─── its end is durable ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("says", "is_committed"), [(b"\0\0\0\2{}", True), (None, False), (b"", False)]
)
def test_only_a_word_of_the_daemon_is_as_good_as_the_disk(
    says: bytes | None, is_committed: bool
) -> None:
    """Not its silence, and not its end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if says:
            theirs.send(says)
        elif says is not None:
            theirs.close()
        assert runner._is_committed(ours) is is_committed
        if says:
            assert ours.recv(100) == says, "it is still to be read"


def test_a_closed_record_keeps_nothing_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    began = record.begin(str(tmp_path / "attempt"), "a1")
    record.write(str(tmp_path / "attempt"), began, {"nonce": "a1", "exit_code": 0})
    record.sync(str(tmp_path / "attempt"), began)
    record.close(began)
    assert os.listdir("/proc/self/fd") == before
