"""Requests that look into one job: which processes it is now, and how an attempt of it went."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpuq.core.asked.wire_fields import to_text
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import JobState
from gpuq.core.results.series import Series
from gpuq.daemon.callers.discretion import Discretion, Sight
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.linux import investigate
from gpuq.daemon.linux.process_readings import MOST_PROCESSES, ProcessReading
from gpuq.daemon.requests.refs import References
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.upkeep.aside import OneByOne
from gpuq.errors import NothingMatched, UsageError

Answer = dict[str, Any]
Request = Mapping[str, Any]
NOT_BEGUN, NO_MORE = "it has not begun", "it has ended"


class LookingInto:
    """`discretion` is what somebody may see."""

    def __init__(
        self,
        store: Store,
        refs: References,
        world: World,
        discretion: Callable[[Peer], Discretion],
    ) -> None:
        self._store = store
        self._refs = refs
        self._world = world
        self._discretion = discretion
        self._looks = OneByOne()

    # ── processes ──

    async def processes(self, request: Request, peer: Peer) -> Answer:
        """The processes that a job is, in the order of their pids, with what each has had of CPUs
        (`cpu_s`, since it began) at the moment `at` (s, a clock that nobody sets). `why` says in words
        why there are none. Who may not see what the job runs is told of no process; where the machine
        hides processes, command lines are its owner's to see."""
        row = self._refs.find_last(request.get("ref"), peer)
        sight = self._discretion(peer).sight(row["uid"])
        answer = {"job": row["id"], "attempt": row["attempt"], "processes": [], "left_out": 0}
        answer |= {"at": time.monotonic(), "hidden": sight < Sight.COMMANDS, "why": None}
        if (why := _why_no_process(row)) is not None:
            return answer | {"why": why}
        if sight < Sight.COMMANDS:
            return answer | {"why": f"its processes are {row['user']}'s to see"}
        found = await self._world.processes_of(
            row["id"], lambda look: self._looks.do(peer.uid, look)
        )
        sees_commands = sight is Sight.ALL or not investigate.hides_processes()
        on_gpus = memory_by_pid(self._world.gpus or ())
        return answer | {
            "at": time.monotonic(),
            "processes": [_view(one, on_gpus, sees_commands) for one in found.read],
            "left_out": max(found.number - MOST_PROCESSES, 0),
            "why": None if found.read else "none of its processes is there any more",
        }

    # ── how it went ──

    async def series(self, request: Request, peer: Peer) -> Answer:
        """What was measured of an attempt (None: of the last) over its life: for each of the
        `quantities` the least, the mean and the most, and its points [number, mean, max, count], each
        of the stretch of `width_s` that began number * width_s after the start. Everybody is told, as
        of what jobs have used in all. `why` says in words why there are no points."""
        row = self._refs.find_last(request.get("ref"), peer)
        number = _attempt(request, row)
        answer = {"job": row["id"], "attempt": number, "simulated": False, "why": None}
        answer |= {"started_at": None, "ended_at": None, "width_s": 1.0, "quantities": {}}
        if not number:
            return answer | {"why": NOT_BEGUN}
        attempt = self._attempt_of(row, number)
        series = self._find_series(row["id"], number, runs=attempt["ended_at"] is None)
        held = json.loads(attempt["gpus"])
        answer |= {name: attempt[name] for name in ("started_at", "ended_at")}
        answer |= {"simulated": bool(held and held.get("simulated", False))}
        if series is None:
            return answer | {"why": _why_no_series(attempt, bool(held and held.get("indices")))}
        return answer | series.told()

    def _attempt_of(self, row: Row, number: int) -> Row:
        found = [one for one in self._store.found.attempts(row["id"]) if one["attempt"] == number]
        if not found:
            raise NothingMatched(f"job {row['id']} has no attempt {number}: gpuq show {row['id']}")
        return found[0]

    def _find_series(self, job: int, attempt: int, *, runs: bool) -> Series | None:
        latest = self._world.series(job, attempt) if runs else None
        return latest or self._store.series.read(job, attempt)


def memory_by_pid(gpus: Iterable[Gpu]) -> dict[int, int | None]:
    """What each process has of all GPUs together, by its pid; None where the driver does not say."""
    found: dict[int, int | None] = {}
    for process in (one for gpu in gpus for one in gpu.processes or () if not gpu.simulated):
        if process.memory_bytes is None:
            found.setdefault(process.pid, None)
        else:
            found[process.pid] = (found.get(process.pid) or 0) + process.memory_bytes
    return found


def _view(one: ProcessReading, on_gpus: Mapping[int, int | None], sees_commands: bool) -> Answer:
    return {
        "pid": one.pid,
        "ppid": one.ppid,
        "state": one.state,
        "command": [to_text(word) for word in one.command] if sees_commands else [],
        "cpu_s": one.cpu_s,
        "rss_bytes": one.rss_bytes,
        "gpu_memory_bytes": on_gpus.get(one.pid),
    }


def _why_no_process(row: Row) -> str | None:
    if row["state"] == JobState.ENDED:
        return NO_MORE
    return NOT_BEGUN if row["state"] != JobState.RUNNING else None


def _attempt(request: Request, row: Row) -> int:
    number = request.get("attempt")
    if number is None:
        return int(row["attempt"])
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"attempt: {number!r} is no number of an attempt: they count from 1")
    return number


def _why_no_series(attempt: Row, has_gpus: bool) -> str:
    if not has_gpus and attempt["mem_bound_by"] != "watched":
        return "it has no GPU, and no --mem that gpuq watches: nothing is measured as it goes"
    if attempt["ended_at"] is None:
        return "nothing has been measured yet"
    return "it was over before it had been measured twice"
