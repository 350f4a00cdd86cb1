"""The connections, before one of them says anything that counts. Every account of this machine can
open as many as it likes, and each costs the server a descriptor; so who has not shown the token has
little time and little room, and who has shown it is left alone.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from gpuq.tui.web.peers import Address, uid_of

HEAD_S = 5.0  # for the head of a request
STRANGERS = 128  # far fewer than the descriptors that a process may have, 1024 as a rule
WAITING = 128  # connections that the kernel holds for us
AGAIN_S = 0.2  # until the next try, where none could be taken
LOGGER = logging.getLogger("gpuq.web")


class Doorway:
    """asyncio's own server takes all that come, and writes a traceback for each that it cannot."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        *,
        head_s: float = HEAD_S,
        strangers: int = STRANGERS,
    ) -> None:
        self._protocol = protocol
        self._head_s = head_s
        self._most = strangers
        self._strangers: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}  # oldest first
        self._has_complained = False

    async def receive(self, listening: socket.socket) -> None:
        """Until it is cancelled."""
        listening.setblocking(False)
        while True:
            try:
                connection, peer = await asyncio.get_running_loop().sock_accept(listening)
            except ConnectionAbortedError:  # it left while it waited
                continue
            except OSError as error:
                self._complain(error)
                self._dismiss_oldest()
                await asyncio.sleep(AGAIN_S)
                continue
            await self._take(connection, peer)
            await asyncio.sleep(0)  # a crowd at the door does not hold up who is inside

    def recognise(self, transport: asyncio.BaseTransport | None) -> None:
        """It has shown the token."""
        if transport is not None and (timer := self._strangers.pop(transport, None)):
            timer.cancel()

    async def _take(self, connection: socket.socket, peer: Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            if uid_of(peer, connection.getsockname()) not in (None, 0, os.geteuid()):
                connection.close()
                return
            self._make_room()
            transport, _ = await loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is gone already
            connection.close()
            return
        self._strangers[transport] = loop.call_later(self._head_s, self._dismiss, transport)

    def _make_room(self) -> None:
        if len(self._strangers) < self._most:
            return
        for gone in [one for one in self._strangers if one.is_closing()]:
            self._dismiss(gone)
        if len(self._strangers) >= self._most:
            self._dismiss_oldest()

    def _dismiss_oldest(self) -> None:
        if self._strangers:
            self._dismiss(next(iter(self._strangers)))

    def _dismiss(self, transport: asyncio.BaseTransport) -> None:
        self._strangers.pop(transport).cancel()
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()  # what it does not read is not waited for

    def _complain(self, error: OSError) -> None:
        if not self._has_complained:
            self._has_complained = True
            LOGGER.warning(
                "gpuq: a connection could not be taken: %s. It is tried again; not said again",
                error,
            )
