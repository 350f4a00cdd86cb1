"""Transient scopes: systemd's control groups in which the kernel holds a job to --mem and --cpus.

A scope is a unit of its own beside the daemon's service, so that controllers in it keep nobody from
restarting that. The runner stays in the scope, the job lives in a group below it, and both leave no
trace: systemd removes a scope once it is empty. Without systemd, without D-Bus and without the kernel's
controllers a job runs all the same, and somebody else sees to its bounds.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gpuq.core.ends.bounds import Bounds, Enforcement
from gpuq.daemon.linux import cgroup
from gpuq.daemon.linux.cgroup import Leaf
from gpuq.daemon.systemd.bus import MANAGER, Bus, Target, Variant

SLICE = "gpuq.slice"
JOB_GROUP = "job"  # of the scope's
DEADLINE_S = 3.0
# What was found out holds for so long: somebody may start systemd's user manager, or D-Bus, later.
KNOWN_FOR_S = 30.0
# What a runner needs after the end of its job to write down how that went.
LEAVING_S = 5.0
INFINITY = 2**64 - 1

NO_MEMORY = "cgroup 2 has no memory controller here"
NO_CPU = "cgroup 2 has no cpu controller here"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """`path` is the directory of its control group. `mem` and `cpus`: the kernel holds these bounds."""

    path: str
    mem: bool
    cpus: bool

    @property
    def job_group(self) -> str:
        """Where the job itself is."""
        return f"{self.path}/{JOB_GROUP}"


class ScopeFailed(Exception):
    """systemd was asked for one, and it cannot be said what has become of that."""


class Scopes:
    """`wanted` is the setting; `directory_of` finds the directory of a line of /proc/PID/cgroup."""

    def __init__(
        self,
        bus: Bus,
        wanted: str = "auto",
        *,
        directory_of: Callable[[str], str | None] = cgroup.directory_of,
    ) -> None:
        self._bus = bus
        self._wanted = wanted
        self._directory_of = directory_of
        self._is_listening = False
        self._waiting: dict[str, asyncio.Future[str]] = {}  # for the end of a job of systemd's
        self._ended: dict[str, str] = {}  # before anybody waited for it
        self._here: Enforcement | None = None
        self._known_until = 0.0
        self._one_at_a_time = asyncio.Lock()  # who waits behind one that fails need not try

    async def enforcement(self) -> Enforcement:
        """What the kernel enforces on this box."""
        now = asyncio.get_running_loop().time()
        if self._here is None or now >= self._known_until:
            self._here = await self._find_out()
            self._known_until = now + KNOWN_FOR_S
        return self._here

    async def make(
        self, job: int, attempt: int, nonce: str, *, pid: int, bounds: Bounds, grace_s: float
    ) -> Scope | None:
        """A scope with `pid` in it, that is to go on alone; None where none is to be had that bounds
        anything. ScopeFailed: nobody knows where that process is now, or will be."""
        if not bounds:
            return None
        async with self._one_at_a_time:
            if not (await self.enforcement()).can_do_any_of(bounds):
                return None
            return await self._make(job, attempt, nonce, pid, bounds, grace_s)

    async def _make(
        self, job: int, attempt: int, nonce: str, pid: int, bounds: Bounds, grace_s: float
    ) -> Scope:
        # A name that an earlier try has left behind would be refused.
        name = f"gpuq-{job}-{attempt}-{nonce[:8]}.scope"
        try:
            async with asyncio.timeout(DEADLINE_S):
                path = await self._start(name, _properties(name, pid, bounds, grace_s))
        except TimeoutError:
            raise self._failed(f"systemd did not start {name} in {DEADLINE_S:g} s") from None
        group = Leaf(path)
        return Scope(
            path=path,
            mem=bounds.mem_bytes is not None and _holds_memory(group, bounds.mem_bytes),
            cpus=bounds.cpus is not None and group.cpu_limit() == bounds.cpus,
        )

    # ── what there is ──

    async def _find_out(self) -> Enforcement:
        if self._wanted == "none":
            return _nothing("scopes = none in the settings")
        reply = await self._bus.get(MANAGER, "ControlGroup")
        if reply.trouble is not None:
            return _nothing(f"no systemd answers ({reply.trouble})")
        group = self._directory_of(f"0::{reply.value or '/'}")
        if group is None:
            return _nothing("no cgroup 2 is to be seen here")
        there = cgroup.controllers(group)
        return Enforcement(
            mem_trouble=None if "memory" in there else NO_MEMORY,
            cpu_trouble=None if "cpu" in there else NO_CPU,
        )

    def _failed(self, why: str) -> ScopeFailed:
        """Nobody is to wait for the same again at once."""
        log.warning("a job gets no scope of systemd", why=why)
        self._here = _nothing(why)
        self._known_until = asyncio.get_running_loop().time() + KNOWN_FOR_S
        return ScopeFailed(why)

    # ── one scope ──

    async def _start(self, name: str, properties: list[list[Any]]) -> str:
        """Starts the unit; returns the directory of its control group."""
        if not self._is_listening:
            self._is_listening = True  # for good: the bus takes it up again by itself
            await self._bus.subscribe(MANAGER, "JobRemoved", self._job_removed)
        asked = await self._bus.call(
            MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", properties, []
        )
        if asked.trouble is not None:
            raise self._failed(asked.trouble)
        try:
            result = await self._end_of(asked.value)
        finally:
            self._waiting.pop(asked.value, None)
        if result != "done":
            raise self._failed(f"systemd did not start {name}: {result}")
        return await self._group_of(name)

    async def _end_of(self, job: str) -> str:
        if job in self._ended:
            return self._ended.pop(job)
        self._waiting[job] = asyncio.get_running_loop().create_future()
        return await self._waiting[job]

    def _job_removed(self, _id: int, job: str, unit: str, result: str) -> None:
        if (waiting := self._waiting.get(job)) is not None:
            if not waiting.done():
                waiting.set_result(result)
        elif unit.startswith("gpuq-"):
            self._ended = {job: result}  # one start at a time, so one is enough

    async def _group_of(self, name: str) -> str:
        unit = await self._bus.call(MANAGER, "GetUnit", "s", name)
        if unit.trouble is not None:
            raise self._failed(unit.trouble)
        scope = Target(
            service=MANAGER.service,
            path=unit.value,
            interface="org.freedesktop.systemd1.Scope",
        )
        group = await self._bus.get(scope, "ControlGroup")
        path = self._directory_of(f"0::{group.value}") if group.value else None
        if path is None:
            raise self._failed(group.trouble or f"the control group of {name} is not to be seen")
        return path


def _properties(name: str, pid: int, bounds: Bounds, grace_s: float) -> list[list[Any]]:
    """See org.freedesktop.systemd1(5). With Delegate the kernel's killing of one process is not taken
    for the end of the scope, and what is below it is ours."""
    properties = {
        "Description": Variant("s", f"{name.removesuffix('.scope')}: a job of gpuq"),
        "Slice": Variant("s", SLICE),
        "PIDs": Variant("au", [pid]),
        "Delegate": Variant("b", True),
        "CollectMode": Variant("s", "inactive-or-failed"),  # nobody is to clean up after it
        "TasksMax": Variant("t", INFINITY),
        # Started before it means stopped after it: when the machine goes down the daemon hears of it
        # first, ends the jobs by their own graces and writes down what came of them.
        "Before": Variant("as", ["gpuqd.service"]),
        # When the machine goes down all of it gets TERM, and then has its grace.
        "TimeoutStopUSec": Variant("t", int((grace_s + LEAVING_S) * 1e6)),
    }
    if bounds.mem_bytes is not None:
        # Without swap: a job that needs more is to end, not to crawl and take the disk from others.
        properties["MemoryMax"] = Variant("t", bounds.mem_bytes)
        properties["MemorySwapMax"] = Variant("t", 0)
    if bounds.cpus is not None:
        properties["CPUQuotaPerSecUSec"] = Variant("t", bounds.cpus * 10**6)
    return [[key, value] for key, value in properties.items()]


def _holds_memory(group: Leaf, wanted_bytes: int) -> bool:
    """The kernel counts in whole pages (4 KiB, up to 64 KiB elsewhere)."""
    limit = group.memory_limit_bytes()
    return limit is not None and wanted_bytes - 2**16 < limit <= wanted_bytes


def _nothing(why: str) -> Enforcement:
    return Enforcement(mem_trouble=why, cpu_trouble=why)
