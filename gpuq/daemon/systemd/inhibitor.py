"""Asks logind to keep the machine from going down while jobs run, where the settings want that.

A lock of logind is a descriptor: it is held for as long as that is open, and goes with the daemon.
"""

import asyncio
import os

import structlog

from gpuq.daemon.systemd.bus import Bus, Target

LOGIND = Target(
    service="org.freedesktop.login1",
    path="/org/freedesktop/login1",
    interface="org.freedesktop.login1.Manager",
)
# Jobs that follow each other closely are no reason to let go and ask again each time.
APART_S = 1.0
# To put off sleep would serve nobody: jobs go on after it as if nothing had been.
WHAT = {"delay": "shutdown", "block": "shutdown:sleep"}
WHY = "jobs run on the GPUs of this machine: gpuq status"

log = structlog.get_logger()


class Inhibitor:
    """`want` says what is wanted now: none, delay or block. `trouble` is why that is not had."""

    def __init__(self, bus: Bus) -> None:
        self.trouble: str | None = None
        self._bus = bus
        self._wanted = "none"
        self._changed = asyncio.Event()
        self._lock: int | None = None

    def want(self, mode: str) -> None:
        if mode != self._wanted:
            self._wanted = mode
            self._changed.set()

    async def run(self) -> None:
        """Has what is wanted until it is cancelled."""
        had = "none"
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._wanted != had:
                    had = self._wanted
                    await self._change_to(had)
                await asyncio.sleep(APART_S)
        finally:
            self._let_go()

    async def _change_to(self, mode: str) -> None:
        before, self._lock = self._lock, None
        try:
            if mode != "none":
                await self._take(mode)
        finally:
            if before is not None:
                os.close(before)

    async def _take(self, mode: str) -> None:
        reply = await self._bus.call(LOGIND, "Inhibit", "ssss", WHAT[mode], "gpuq", WHY, mode)
        trouble = reply.trouble if reply.fds else reply.trouble or "logind gave no lock"
        if reply.fds:
            self._lock = reply.fds[0]
        if trouble is not None and trouble != self.trouble:
            log.warning(
                "the machine may go down while jobs run", inhibit_shutdown=mode, why=trouble
            )
        self.trouble = trouble

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
