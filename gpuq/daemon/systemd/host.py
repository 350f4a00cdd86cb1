"""What becomes of the machine that the daemon runs on: it goes down, or it has slept.

`systemctl restart gpuqd` leaves jobs running, a shutdown must not: then they get TERM and their grace
while the disks and the network are still there. The one is told from the other by what systemd says of
itself, and only by that: a wrong guess would end jobs that nobody wanted ended, while jobs that go down
with their machine unannounced are found to be lost after it is up again.
"""

import asyncio
import os
import subprocess
from typing import Protocol

import structlog

from gpuq.config import Config
from gpuq.core.model import EndCause, Snapshot
from gpuq.core.states import CAUSES
from gpuq.core.units import format_seconds
from gpuq.daemon.clock import Clock
from gpuq.daemon.linux.syscalls import ClockJumps
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.systemd.bus import MANAGER, Bus
from gpuq.daemon.systemd.inhibitor import LOGIND, Inhibitor
from gpuq.daemon.systemd.notify import Notifier

ASK_S = 1.0
LEAVE_S = 5.0  # after the last grace, for what comes of the KILL to be written down
SLEPT_S = 1.0  # less is not worth telling
BOOTED = "/run/systemd/system"  # sd_booted(3)

log = structlog.get_logger()


class World(Protocol):
    """What the loop does for it."""

    def close_down(self, cause: EndCause | None, within_s: float = 0.0) -> None: ...

    def ask_to_stop(self, reason: str, *, back: bool = False) -> None: ...

    def read_gpus(self) -> None: ...

    def wake(self) -> None: ...


class Host:
    """`user_bus` is that of the daemon's own user, where it is not the whole machine's daemon: with the
    services of that user it goes away as well."""

    def __init__(
        self,
        world: World,
        store: Store,
        config: Config,
        clock: Clock,
        notifier: Notifier,
        *,
        system_bus: Bus,
        user_bus: Bus | None = None,
    ) -> None:
        self._world = world
        self._store = store
        self._config = config
        self._clock = clock
        self._notifier = notifier
        self._system_bus = system_bus
        self._user_bus = user_bus
        self._inhibitor = Inhibitor(system_bus)
        self._asleep_s = _asleep_s(clock)
        self._is_preparing = False  # for a shutdown, says logind
        self._is_closing = False
        self._emptied = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Listens until it is cancelled."""
        loop, jumps = asyncio.get_running_loop(), ClockJumps()
        loop.add_reader(jumps.fd, self._clock_jumped, jumps)
        try:
            await self._system_bus.subscribe(
                LOGIND, "PrepareForShutdown", self._prepare, on_renewed=self._look_anew
            )
            await self._inhibitor.run()
        finally:
            loop.remove_reader(jumps.fd)
            jumps.close()
            if self._asking is not None:
                self._asking.cancel()

    def heed(self, snapshot: Snapshot) -> None:
        """What the loop has just seen."""
        if snapshot.closing is not None and not snapshot.active:
            self._emptied.set()
        self._inhibitor.want(self._config.inhibit_shutdown if snapshot.active else "none")
        asleep_s = max(_asleep_s(self._clock), self._asleep_s)
        slept_s, self._asleep_s = asleep_s - self._asleep_s, asleep_s
        if slept_s >= SLEPT_S:
            self._wake_up(slept_s)

    def notes(self) -> list[str]:
        """What somebody should know who looks at the daemon, in sentences."""
        trouble = self._inhibitor.trouble
        if trouble is None:
            return []
        setting = f"inhibit_shutdown = {self._config.inhibit_shutdown}"
        then = "the machine may go down while jobs run"
        return [f"{setting} is not in force: {trouble}; {then}"]

    def leave(self, why: str, *, back: bool = False) -> None:
        """Somebody wants the daemon gone: systemd or a person. Jobs go on, unless what they run on goes
        away: then they are ended first. `back`: but for that, clients may wait for the next one."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave(why, back))

    # ── going down ──

    async def _leave(self, why: str, back: bool) -> None:
        try:
            cause = EndCause.SHUTDOWN if self._is_preparing else await self._ask_what_goes()
            if cause is not None:
                why, back = CAUSES[cause], False
                await self._end_all(cause)
        finally:
            self._world.ask_to_stop(why, back=back)

    async def _end_all(self, cause: EndCause) -> None:
        self._emptied.clear()
        self._close_down(cause)
        patience_s = self._config.shutdown_grace + LEAVE_S
        self._notifier.extend(patience_s + LEAVE_S)
        try:
            async with asyncio.timeout(patience_s):
                await self._emptied.wait()
        except TimeoutError:
            log.error("leaving though not all jobs have ended", waited_s=patience_s)

    def _close_down(self, cause: EndCause) -> None:
        self._world.close_down(cause, self._config.shutdown_grace)
        if not self._is_closing:
            self._is_closing = True
            self._tell("closing", CAUSES[cause])

    async def _ask_what_goes(self) -> EndCause | None:
        machine, user = await asyncio.gather(
            _is_stopping(self._system_bus, "--system"),
            _is_stopping(self._user_bus, "--user"),
        )
        if machine:
            return EndCause.SHUTDOWN
        return EndCause.LOGOUT if user else None

    def _prepare(self, is_going_down: bool) -> None:
        """logind tells before anything is stopped, and tells as well where it comes to nothing."""
        if is_going_down == self._is_preparing:
            return
        self._is_preparing = is_going_down
        if is_going_down:
            self._close_down(EndCause.SHUTDOWN)
        elif self._leaving is None:
            self._is_closing = False
            self._world.close_down(None)
            self._tell("closing_over", "the machine stays up after all")

    def _look_anew(self) -> None:
        """The signal may have come while nobody listened."""
        self._asking = asyncio.ensure_future(self._ask_whether_preparing())

    async def _ask_whether_preparing(self) -> None:
        reply = await self._system_bus.get(LOGIND, "PreparingForShutdown", deadline_s=ASK_S)
        if isinstance(reply.value, bool):
            self._prepare(reply.value)

    # ── sleep ──

    def _clock_jumped(self, jumps: ClockJumps) -> None:
        """Somebody has set the clock, or the machine has just woken: the next turn sees which."""
        jumps.acknowledge()
        self._world.wake()

    def _wake_up(self, slept_s: float) -> None:
        """What was read of the GPUs before is old by now, and their driver may have been reset."""
        words = f"for {format_seconds(round(slept_s))}, which no limit of a job counts"
        self._tell("machine_slept", words, {"seconds": round(slept_s, 1)})
        self._world.read_gpus()

    def _tell(self, kind: str, cause: str, detail: dict[str, float] | None = None) -> None:
        log.info(kind.replace("_", " "), why=cause)
        try:
            self._store.machine.event(kind, now=self._clock.wall(), cause=cause, detail=detail)
        except DiskTrouble as trouble:
            log.error("an event could not be stored", kind=kind, why=str(trouble))


def _asleep_s(clock: Clock) -> float:
    """How long the machine has slept since it was started; less where we are held up between the two
    clocks, and never more."""
    boottime = clock.boottime()
    return boottime - clock.monotonic()


async def _is_stopping(bus: Bus | None, which: str) -> bool:
    """Does this systemd, the machine's or the user's, stop all that it has started?"""
    if bus is None:
        return False
    reply = await bus.get(MANAGER, "SystemState", deadline_s=ASK_S)
    if reply.trouble is None:
        return bool(reply.value == "stopping")
    return os.path.isdir(BOOTED) and await asyncio.to_thread(_ask_systemctl, which) == "stopping"


def _ask_systemctl(which: str) -> str | None:
    """Late in a shutdown D-Bus may be gone, and systemctl has a way of its own to systemd."""
    known = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
    environment = {name: os.environ[name] for name in known if name in os.environ}
    try:
        ran = subprocess.run(
            ["systemctl", which, "is-system-running"],
            env=environment | {"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()
