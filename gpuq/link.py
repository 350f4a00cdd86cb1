"""The way to one daemon: found, started where that is allowed, and found again when it is replaced.

Several threads may ask at the same time: each request that is under way has a connection of its own,
and connections are kept for the next. On the start-up path: standard library, and little of it.
"""

from __future__ import annotations

import os
import time
from itertools import count

import gpuq
from gpuq import paths, protocol
from gpuq.connection import Connection, Gone
from gpuq.errors import DaemonUnreachable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from gpuq.locate import Address

RESTART_S = 30.0  # how long a client waits for a daemon that is being replaced
GREETING_S = 60.0
# A daemon that dies in the moment in which we come: the next one may answer on the same socket.
MOST_UNGREETED = 3


class Link:
    """`daemon` is what the daemon's hello said, empty before the first request."""

    def __init__(
        self, address: Address, *, autostart: bool = False, say: Callable[[str], None]
    ) -> None:
        self.address = address
        self.daemon: protocol.Message = {}
        self._autostart = autostart and address.may_start
        self._say = say
        self._idle: list[Connection] = []  # append and pop are one step each, for all threads
        self._pid = os.getpid()
        self._ids = count(1)
        self._was_connected = False

    def close(self) -> None:
        """Those that are in use by now are closed when their answer has come."""
        idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    def call(
        self, do: str, arguments: Mapping[str, Any], answer_s: float | None
    ) -> protocol.Message:
        """One request and its answer, asked again where the daemon was replaced meanwhile."""
        deadline, ungreeted = time.monotonic() + RESTART_S, 0
        while True:
            try:
                return self._ask(do, arguments, answer_s)
            except Gone as gone:
                self.close()
                # Who says that it comes back does, though it said nothing else to us yet.
                self._was_connected |= gone.back_soon
                ungreeted += not self._was_connected
                if gone.for_good or ungreeted > MOST_UNGREETED or time.monotonic() > deadline:
                    raise DaemonUnreachable(str(gone)) from None
                time.sleep(0.1)

    def stream(self, do: str, arguments: Mapping[str, Any], silence_s: float) -> Stream:
        """A request that is answered again and again, on a connection of its own."""
        number = next(self._ids)
        try:
            line = self._connect()
        except Gone as gone:
            raise DaemonUnreachable(str(gone)) from None
        return Stream(line, {"id": number, "do": do, **arguments}, silence_s)

    def _ask(
        self, do: str, arguments: Mapping[str, Any], answer_s: float | None
    ) -> protocol.Message:
        number = next(self._ids)
        request = protocol.encode({"id": number, "do": do, **arguments})
        if len(request) > protocol.FRAME_LIMIT:
            raise UsageError(
                f"this {do} takes {len(request) // 2**20 + 1} MiB; a daemon takes "
                f"{protocol.FRAME_LIMIT // 2**20} MiB in one go. Split it"
            )
        self._forget_those_of_our_parent()
        kept = self._idle
        line = _pop(kept) or self._connect()
        try:
            line.send(request)
            answer = line.receive(answer_s, number)
        except BaseException:  # a Ctrl-C, too: the next request would wait behind this one
            line.close()
            raise
        if kept is self._idle:
            kept.append(line)
        else:
            line.close()
        return protocol.result_of(answer)

    def _forget_those_of_our_parent(self) -> None:
        """After a fork two processes would read each other's answers from one connection."""
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()

    def _connect(self) -> Connection:
        try:
            line = Connection(self.address.socket)
        except OSError as error:
            line = self._connect_otherwise(error)
        try:
            line.send(protocol.encode(protocol.hello(gpuq.__version__)))
            greeting = line.receive(GREETING_S, None)
            if "error" in greeting:
                protocol.raise_failure(greeting["error"])
        except BaseException:
            line.close()
            raise
        self.daemon = greeting.get("hello", {})
        self._was_connected = True
        return line

    def _connect_otherwise(self, error: OSError) -> Connection:
        """Nobody listens there: it is being restarted, or it is to be started, or there is none."""
        if self._was_connected:
            raise Gone(f"the daemon at {self.address.socket} went away") from None
        if self._autostart and isinstance(error, FileNotFoundError | ConnectionRefusedError):
            from gpuq.autostart import start_own_daemon

            self._say(start_own_daemon(self.address.state_dir))
            return Connection(self.address.socket)
        if self.address.socket == paths.SYSTEM_SOCKET and not isinstance(error, PermissionError):
            return self._wait_for_system_daemon()
        raise DaemonUnreachable(_why_unreachable(self.address, error)) from None

    def _wait_for_system_daemon(self) -> Connection:
        deadline = time.monotonic() + RESTART_S
        while time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                return Connection(self.address.socket)
            except OSError:
                continue
        raise DaemonUnreachable(
            f"this machine's daemon does not answer at {self.address.socket}. "
            "See: systemctl status gpuqd"
        )


class Stream:
    """The answers to one request, as they come, until it is closed, which any thread may do.
    DaemonUnreachable where the daemon leaves, or is silent for so long; GpuqError where it says what
    is no answer."""

    def __init__(self, line: Connection, request: protocol.Message, silence_s: float) -> None:
        self._line = line
        self._request = request
        self._silence_s = silence_s
        self._is_closed = False

    def __iter__(self) -> Iterator[protocol.Message]:
        try:
            self._line.send(protocol.encode(self._request))
            while True:
                answer = self._line.receive(self._silence_s, self._request["id"])
                yield protocol.result_of(answer)
        except Gone as gone:
            if not self._is_closed:
                raise DaemonUnreachable(str(gone)) from None
        finally:
            self._line.close()

    def close(self) -> None:
        self._is_closed = True
        self._line.hang_up()


def _pop(kept: list[Connection]) -> Connection | None:
    try:
        return kept.pop()
    except IndexError:
        return None


def _why_unreachable(address: Address, error: OSError) -> str:
    where = f"{address.socket} (from {address.origin})"
    if isinstance(error, PermissionError):
        return f"you may not use the daemon at {where}: {error.strerror}"
    if address.state_dir is None:
        return f"no daemon answers at {where}. Is that the right socket? Start it as it was started"
    return f"no daemon answers at {where}. Start one: gpuq daemon start"
