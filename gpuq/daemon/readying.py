"""Runners for jobs that the kernel is to bound: each is in its scope before its job is committed, or
nobody could end such a job that outlived us.

systemd may take its time over a scope. That goes on beside the loop, which meanwhile ends what is to
end and starts those that need none. Part of the loop and on its thread.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from gpuq.core.decisions import Decision, Start
from gpuq.core.ends.bounds import Bounds, CpuBound, MemBound
from gpuq.daemon.runners import Gate
from gpuq.daemon.systemd.scopes import Scope, ScopeFailed, Scopes

# A scope is there in some milliseconds as a rule: the loop waits as long, and needs no second turn.
AT_ONCE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A runner at its gate, and who sees to the bounds of its job; `scope` is where the kernel does."""

    gate: Gate
    nonce: str
    bounds: Bounds
    scope: Scope | None

    @property
    def mem_bound_by(self) -> MemBound | None:
        if self.bounds.mem_bytes is None:
            return None
        return MemBound.KERNEL if self.scope is not None and self.scope.mem else MemBound.WATCHED

    @property
    def cpu_bound_by(self) -> CpuBound | None:
        if self.bounds.cpus is None:
            return None
        return CpuBound.KERNEL if self.scope is not None and self.scope.cpus else CpuBound.NOBODY


class Readying:
    """`take_runner` gives one that waits at its gate; `wake` is called when one has become ready."""

    def __init__(
        self, take_runner: Callable[[], Awaitable[Gate]], scopes: Scopes, wake: Callable[[], None]
    ) -> None:
        self._take_runner = take_runner
        self._scopes = scopes
        self._wake = wake
        self._under_way: dict[tuple[int, int], asyncio.Task[Ready]] = {}  # by job and attempt
        self._asked: dict[tuple[int, int], tuple[Bounds, float]] = {}

    async def is_ready(self, start: Start, bounds: Bounds, grace_s: float) -> bool:
        """False: it will be, and then the loop is woken. An attempt without bounds is always."""
        key = start.job, start.attempt
        if key in self._under_way and self._asked[key] != (bounds, grace_s):
            _drop(self._under_way.pop(key))  # it was edited meanwhile
        if not bounds:
            return True
        if key not in self._under_way:
            task = asyncio.ensure_future(self._make_ready(start, bounds, grace_s))
            self._under_way[key], self._asked[key] = task, (bounds, grace_s)
            await asyncio.wait({task}, timeout=AT_ONCE_S)
            if not task.done():
                task.add_done_callback(lambda _: self._wake())
        return self._under_way[key].done()

    async def take(self, start: Start) -> Ready:
        """Raises what kept the runner from becoming ready."""
        key = start.job, start.attempt
        task = self._under_way.pop(key, None)
        self._asked.pop(key, None)
        if task is not None:
            return task.result()
        return unbounded(await self._take_runner())

    def is_under_way(self, decision: Decision) -> bool:
        """Is there nothing to be done about it before its runner is ready?"""
        if not isinstance(decision, Start):
            return False
        task = self._under_way.get((decision.job, decision.attempt))
        return task is not None and not task.done()

    def keep_for(self, decisions: Iterable[Decision]) -> None:
        """Whoever is not to start after all needs no runner; it leaves, and its scope goes with it."""
        wanted = {(one.job, one.attempt) for one in decisions if isinstance(one, Start)}
        for key in self._under_way.keys() - wanted:
            _drop(self._under_way.pop(key))
            del self._asked[key]

    async def close(self) -> None:
        dropped = list(self._under_way.values())
        self.keep_for(())
        await asyncio.gather(*dropped, return_exceptions=True)

    async def _make_ready(self, start: Start, bounds: Bounds, grace_s: float) -> Ready:
        nonce, gate, scope = _new_nonce(), await self._take_runner(), None
        try:
            scope = await self._scopes.make(
                start.job, start.attempt, nonce, pid=gate.pid, bounds=bounds, grace_s=grace_s
            )
        except ScopeFailed:
            # systemd may yet move this one, late, to where nobody would look for its job.
            gate.close()
            gate = await self._take_runner()
        except BaseException:
            gate.close()
            raise
        return Ready(gate=gate, nonce=nonce, bounds=bounds, scope=scope)


def unbounded(gate: Gate) -> Ready:
    return Ready(gate=gate, nonce=_new_nonce(), bounds=Bounds(), scope=None)


def _new_nonce() -> str:
    return secrets.token_hex(8)


def _drop(task: "asyncio.Task[Ready]") -> None:
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is None:
        task.result().gate.close()
