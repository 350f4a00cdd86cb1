"""What a bounded job is promised where systemd can hold it: who is asked, and for what, where runner
and job are then, and what comes of a refusal. D-Bus is real, and somebody answers on it as systemd
does. The bounds stand in plain files, since it takes a memory controller to have them; where processes
are moved, the control groups are real and have no controllers."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gpuq.core.ends.bounds import Bounds, Enforcement
from gpuq.daemon.linux import cgroup, processes
from gpuq.daemon.linux.cgroup import Leaf, find_root
from gpuq.daemon.systemd import scopes as scopes_module
from gpuq.daemon.systemd.bus import Bus
from gpuq.daemon.systemd.scopes import NO_CPU, NO_MEMORY, Scope, ScopeFailed, Scopes
from tests.alive import Alive, alive
from tests.conftest import until as until_now
from tests.desk import DEADLINE_S, until
from tests.private_bus import FakeTree, PrivateBus, RealTree, Systemd, private_bus, systemd_on

__all__ = ["private_bus"]

GIB = 2**30
NONCE = "0123456789abcdef"
NAME = "gpuq-7-2-01234567.scope"
BOTH = Bounds(mem_bytes=8 * GIB, cpus=4)
FOR_EVER = "sleep 600"
KILLED = "kill -9 $$"

Deed = Callable[[Systemd, Scopes], Awaitable[None]]


@pytest.fixture
def tree(tmp_path: Path) -> FakeTree:
    return FakeTree(tmp_path)


def with_systemd(
    private_bus: PrivateBus, tree: FakeTree | RealTree, deed: Deed, wanted: str = "auto"
) -> None:
    async def main() -> None:
        bus = Bus(private_bus.address)
        try:
            async with systemd_on(private_bus, tree.make_group) as there:
                scopes = Scopes(bus, wanted, directory_of=tree.directory_of)
                await asyncio.wait_for(deed(there, scopes), 2 * DEADLINE_S)
        finally:
            await bus.close()

    asyncio.run(main())


async def make(scopes: Scopes, bounds: Bounds = BOTH) -> Scope | None:
    return await scopes.make(7, 2, NONCE, pid=os.getpid(), bounds=bounds, grace_s=10.0)


# ─── what is asked of systemd ────────────────────────────────────────────────────────────────────


def test_a_scope_is_asked_for_with_the_bounds_and_the_runner(
    private_bus: PrivateBus, tree: FakeTree
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        scope = await make(scopes)
        path = f"{tree.folder}/gpuq.slice/{NAME}"
        assert scope == Scope(path=path, mem=True, cpus=True)
        assert scope.job_group == f"{path}/job"
        assert systemd.asked == {
            NAME: {
                "Description": "gpuq-7-2-01234567: a job of gpuq",
                "Slice": "gpuq.slice",
                "PIDs": [os.getpid()],
                "Delegate": True,
                "CollectMode": "inactive-or-failed",
                "TasksMax": 2**64 - 1,
                "Before": ["gpuqd.service"],
                "TimeoutStopUSec": 15_000_000,
                "MemoryMax": 8 * GIB,
                "MemorySwapMax": 0,
                "CPUQuotaPerSecUSec": 4_000_000,
            }
        }

    with_systemd(private_bus, tree, deed)


def test_what_nobody_bounds_gets_no_bound(private_bus: PrivateBus, tree: FakeTree) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        assert await make(scopes, Bounds()) is None
        assert systemd.asked == {}
        scope = await make(scopes, Bounds(cpus=2))
        assert scope is not None
        assert (scope.mem, scope.cpus) == (False, True)
        assert not {"MemoryMax", "MemorySwapMax"} & systemd.asked[NAME].keys()

    with_systemd(private_bus, tree, deed)


def test_a_bound_is_enforced_only_where_the_kernel_holds_that_very_value(
    private_bus: PrivateBus, tree: FakeTree
) -> None:
    held = {"memory.max": "max", "cpu.max": "max 100000"}

    def make_group(name: str, properties: dict[str, object]) -> None:
        tree.make_group(name, properties)
        for file, value in held.items():
            Path(f"{tree.folder}/gpuq.slice/{name}/{file}").write_text(f"{value}\n")

    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        systemd._make_group = make_group
        for number, (memory, cpu, bounded) in enumerate(
            [
                ("max", "max 100000", (False, False)),
                (str(9 * GIB), "500000 100000", (False, False)),
                (str(8 * GIB), "400000 100000", (True, True)),
                (str(8 * GIB - 4096), "2000000 500000", (True, True)),
                ("", "", (False, False)),
            ]
        ):
            held.update({"memory.max": memory, "cpu.max": cpu})
            scope = await scopes.make(number, 1, NONCE, pid=1, bounds=BOTH, grace_s=1.0)
            assert scope is not None
            assert (scope.mem, scope.cpus) == bounded, (memory, cpu)

    with_systemd(private_bus, tree, deed)


# ─── where there is none to be had ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("controllers", "wanted", "here"),
    [
        ("cpu memory", "auto", Enforcement()),
        ("cpu io", "auto", Enforcement(mem_trouble=NO_MEMORY)),
        ("memory", "auto", Enforcement(cpu_trouble=NO_CPU)),
        ("hugetlb", "auto", Enforcement(mem_trouble=NO_MEMORY, cpu_trouble=NO_CPU)),
        (
            "cpu memory",
            "none",
            Enforcement(
                mem_trouble="scopes = none in the settings",
                cpu_trouble="scopes = none in the settings",
            ),
        ),
    ],
)
def test_it_is_known_beforehand_what_the_kernel_can_hold(
    private_bus: PrivateBus, tmp_path: Path, controllers: str, wanted: str, here: Enforcement
) -> None:
    tree = FakeTree(tmp_path, controllers)

    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        assert await scopes.enforcement() == here
        made = await make(scopes)
        assert (made is None) == (here.mem_trouble is not None and here.cpu_trouble is not None)
        assert bool(systemd.asked) == (made is not None)

    with_systemd(private_bus, tree, deed, wanted)


def test_without_a_bus_nobody_is_asked_and_why_is_told() -> None:
    async def main() -> None:
        scopes = Scopes(Bus(None))
        assert await make(scopes) is None
        here = await scopes.enforcement()
        assert here.mem_trouble == "no systemd answers (there is no D-Bus)"

    asyncio.run(main())


@pytest.mark.parametrize("trouble", ["refused", "failed", "silent", "invisible"])
def test_who_gets_no_scope_is_told_and_not_asked_to_wait_again(
    private_bus: PrivateBus, tree: FakeTree, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(scopes_module, "DEADLINE_S", 0.3)
    told = {
        "refused": f"org.freedesktop.systemd1: Unit {NAME} was already loaded.",
        "failed": f"systemd did not start {NAME}: failed",
        "silent": f"systemd did not start {NAME} in 0.3 s",
        "invisible": f"the control group of {NAME} is not to be seen",
    }[trouble]

    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        await scopes.enforcement()
        systemd.refusal = "UnitExists" if trouble == "refused" else None
        systemd.result = "failed" if trouble == "failed" else "done"
        systemd.is_silent = trouble == "silent"
        if trouble == "invisible":
            scopes._directory_of = lambda membership: None
        with pytest.raises(ScopeFailed) as failed:
            await make(scopes)
        assert str(failed.value) == told
        asked = dict(systemd.asked)
        assert await make(scopes) is None, "the next one is not kept waiting"
        assert systemd.asked == asked
        assert (await scopes.enforcement()).mem_trouble == told

    with_systemd(private_bus, tree, deed)


def test_a_start_that_has_ended_before_its_answer_came_is_not_waited_for(
    private_bus: PrivateBus, tree: FakeTree
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        assert await make(scopes, Bounds(cpus=1)) is not None  # it listens from here on
        systemd.is_silent = True

        def make_group(name: str, properties: dict[str, object]) -> None:
            tree.make_group(name, properties)
            systemd.tell(name)

        systemd._make_group = make_group
        assert await scopes.make(8, 1, NONCE, pid=1, bounds=BOTH, grace_s=1.0) is not None

    with_systemd(private_bus, tree, deed)


# ─── a job in its scope ──────────────────────────────────────────────────────────────────────────


def bounded(daemon: Alive, script: str, **asked: object) -> int:
    return daemon.submit(script, bounds=BOTH, **asked)


def test_an_end_by_its_own_bound_is_told_with_the_number(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path
) -> None:
    tree.events = "low 0\nhigh 0\nmax 90\noom 1\noom_kill 3\noom_group_kill 1\n"

    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        async with alive(tmp_path, scopes=scopes) as daemon:
            whole = bounded(daemon, KILLED)
            row = await daemon.ended(whole)
            assert (row["outcome"], row["memory_peak_bytes"]) == ("out_of_memory", 8 * GIB)
            assert row["reason"] == (
                "out of memory: it used more than the 8G of memory it asked for (--mem) "
                "(ended by SIGKILL)"
            )
            assert (row["mem_bound_by"], row["cpu_bound_by"]) == ("kernel", "kernel")
            # A worker was killed, and the main process says so in its own way.
            assert (await daemon.ended(bounded(daemon, "exit 1")))["outcome"] == "out_of_memory"
            assert (await daemon.ended(bounded(daemon, "exit 0")))["outcome"] == "succeeded"
            again = bounded(daemon, KILLED, retries=1, retry_on="oom", backoff="1h")
            assert "attempt 2 of 2" in (await daemon.waits_again(again))["reason"]

    with_systemd(private_bus, tree, deed)


def test_another_ones_bound_is_not_taken_for_its_own(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path
) -> None:
    tree.events = "oom 0\noom_kill 1\n"  # the machine itself had no memory

    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        async with alive(tmp_path, scopes=scopes) as daemon:
            row = await daemon.ended(bounded(daemon, KILLED))
            assert row["reason"].startswith("out of memory: the kernel ended it for want of memory")
            assert (await daemon.ended(bounded(daemon, "exit 1")))["outcome"] == "failed"

    with_systemd(private_bus, tree, deed)


def test_only_who_bounds_his_job_waits_for_systemd(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        async with alive(tmp_path, scopes=scopes) as daemon:
            row = await daemon.ended(daemon.submit("exit 0"))
            assert (row["mem_bound_by"], row["cpu_bound_by"]) == (None, None)
            assert systemd.asked == {}

    with_systemd(private_bus, tree, deed)


def test_whom_the_kernel_holds_nobody_watches(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        async with alive(tmp_path, scopes=scopes) as daemon:
            await daemon.running(bounded(daemon, FOR_EVER))
            assert daemon.store.measured.watched() == []

    with_systemd(private_bus, tree, deed)


def test_a_job_that_gets_no_scope_runs_with_another_runner_and_is_watched(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        systemd.result = "failed"
        async with alive(tmp_path, scopes=scopes) as daemon:
            job = bounded(daemon, FOR_EVER)
            await daemon.running(job)
            row = daemon.row(job)
            assert (row["mem_bound_by"], row["cpu_bound_by"]) == ("watched", "nobody")
            (attempt,) = daemon.attempts(job)
            (asked,) = systemd.asked.values()
            assert asked["PIDs"] != [attempt["runner_pid"]], "that one may yet be moved somewhere"

    with_systemd(private_bus, tree, deed)


def slow(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts what it is asked to, and takes a long time over it."""
    monkeypatch.setattr(scopes_module, "DEADLINE_S", 10 * DEADLINE_S)
    systemd.is_silent = True


async def first_asked(systemd: Systemd, number: int = 1) -> tuple[str, int]:
    """The name of the scope, and the runner that is to be in it."""
    await until(lambda: len(systemd.asked) == number, "systemd to be asked for a scope")
    name, properties = list(systemd.asked.items())[-1]
    return name, properties["PIDs"][0]


def test_while_systemd_makes_a_scope_others_start_and_end(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        slow(systemd, monkeypatch)
        async with alive(tmp_path, scopes=scopes, cpu_slots="3") as daemon:
            jobs = [bounded(daemon, "exit 0"), bounded(daemon, "exit 0")]
            name, _ = await first_asked(systemd)
            assert (await daemon.ended(daemon.submit("exit 0")))["outcome"] == "succeeded"
            assert [daemon.row(job)["state"] for job in jobs] == ["queued", "queued"]
            assert len(systemd.asked) == 1, "the next one knows whether this one came to be"
            turns = daemon.loop.turns
            await daemon.turn()
            assert daemon.loop.turns < turns + 10, "the loop turns in a tight circle"
            systemd.tell(name)
            name, _ = await first_asked(systemd, 2)
            systemd.tell(name)
            for job in jobs:
                row = await daemon.ended(job)
                assert (row["outcome"], row["mem_bound_by"]) == ("succeeded", "kernel")

    with_systemd(private_bus, tree, deed)


def test_who_is_not_to_start_after_all_leaves_no_runner_in_a_scope(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        slow(systemd, monkeypatch)
        async with alive(tmp_path, scopes=scopes) as daemon:
            job = bounded(daemon, "exit 0")
            _, runner = await first_asked(systemd)
            daemon.drain("a new disk")
            await until(lambda: not processes.identity(runner), "the runner to leave")
            daemon.drain(None)
            name, runner = await first_asked(systemd, 2)
            daemon.kill(job)
            assert (await daemon.ended(job))["outcome"] == "cancelled"
            await until(lambda: not processes.identity(runner), "the runner to leave")
            systemd.tell(name)
            assert (await daemon.ended(daemon.submit("exit 0")))["outcome"] == "succeeded"

    with_systemd(private_bus, tree, deed)


def test_a_daemon_that_leaves_takes_the_runner_of_a_half_made_scope_along(
    private_bus: PrivateBus, tree: FakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        slow(systemd, monkeypatch)
        async with alive(tmp_path, scopes=scopes, leave=True) as daemon:
            job = bounded(daemon, "exit 0")
            _, runner = await first_asked(systemd)
        await until(lambda: not processes.identity(runner), "the runner to leave")
        systemd.is_silent = False
        async with alive(tmp_path, scopes=scopes) as daemon:
            row = await daemon.ended(job)
            assert (row["outcome"], row["attempt"]) == ("succeeded", 1)

    with_systemd(private_bus, tree, deed)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealTree]:
    """With controllers only in name: what they would do, nobody does."""
    root = find_root(str(tmp_path / "scopes"))
    if root is None:
        pytest.skip("NOT TESTED: this process may make no groups in a cgroup 2 here")
    monkeypatch.setattr(cgroup, "controllers", lambda group: {"cpu", "memory"})
    yield RealTree(root)
    whole = Leaf(root)
    whole.kill()
    until_now(whole.remove, "the end of the groups")


def test_the_runner_is_in_the_scope_and_the_job_below_it(
    private_bus: PrivateBus, real: RealTree, tmp_path: Path
) -> None:
    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        async with alive(tmp_path, scopes=scopes, cgroup="auto") as daemon:
            job = bounded(daemon, f"{FOR_EVER} & {FOR_EVER}")
            pid = await daemon.running(job)
            (attempt,) = daemon.attempts(job)
            (name,) = systemd.asked
            scope = f"{real.root}/gpuq.slice/{name}"
            assert attempt["cgroup"] == f"{scope}/job"
            await until(lambda: len(Leaf(attempt["cgroup"]).members()) == 3, "the job")
            assert pid in Leaf(attempt["cgroup"]).members()
            await until(lambda: _direct(scope) == [attempt["runner_pid"]], "the runner to go back")
            if _may_be_spared():
                await until(lambda: _score(attempt["runner_pid"]) == -1000, "the runner's safety")
            assert _score(pid) == 0
            daemon.kill(job, grace_s=0.0)
            assert (await daemon.ended(job))["outcome"] == "cancelled"
            await until(lambda: not os.path.exists(attempt["cgroup"]), "its group to be gone")
            await until(lambda: not Leaf(scope).is_populated(), "its runner to be gone")

    with_systemd(private_bus, real, deed)


def test_a_later_daemon_ends_all_of_a_job_in_its_scope(
    private_bus: PrivateBus, real: RealTree, tmp_path: Path
) -> None:
    """Its runner has been killed too, so that only the group tells who belongs to it."""

    async def deed(systemd: Systemd, scopes: Scopes) -> None:
        async with alive(tmp_path, scopes=scopes, cgroup="auto", leave=True) as daemon:
            job = bounded(daemon, f"env -i setsid {FOR_EVER} & {FOR_EVER}")
            await daemon.running(job)
            (attempt,) = daemon.attempts(job)
            leaf = Leaf(attempt["cgroup"])
            await until(lambda: len(leaf.members()) == 3, "the job")
            members = leaf.members()
        async with alive(tmp_path, scopes=scopes, cgroup="auto") as daemon:
            assert all(processes.identity(pid) for pid in members)
            runner = attempt["runner_pid"], attempt["runner_start"]
            processes.send(runner[0], signal.SIGKILL, start=runner[1])
            assert (await daemon.ended(job))["outcome"] == "lost"
            assert not any(processes.identity(pid) for pid in members)

    with_systemd(private_bus, real, deed)


def _direct(group: str) -> list[int]:
    """Who is in the group itself."""
    return [int(pid) for pid in Path(group, "cgroup.procs").read_text().split()]


def _may_be_spared() -> bool:
    """It takes CAP_SYS_RESOURCE, which root may lack in a container."""
    ask = "echo -1000 > /proc/self/oom_score_adj"
    return subprocess.run(["sh", "-c", ask], capture_output=True, check=False).returncode == 0


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
