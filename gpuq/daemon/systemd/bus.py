"""The door to D-Bus: call a method, read a property, hear a signal.

A bus that is absent, mute or being restarted is an answer in here, `Reply.trouble`, and no exception:
gpuq works without one. It connects when it is first needed; while somebody listens it comes back after
the bus was restarted. Nothing waits for longer than its deadline.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError
from dbus_fast.unpack import unpack_variants

__all__ = ["MANAGER", "Bus", "Reply", "Target", "Variant", "find_address"]

DEADLINE_S = 2.0
# One that takes connections and says nothing would cost each caller the whole deadline.
MUTE_FOR_S = 30.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
UNKNOWN_OWNER = "org.freedesktop.DBus.Error.NameHasNoOwner"

# All that goes wrong in there comes out of here as `trouble`.
logging.getLogger("dbus_fast").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An interface of an object of a service."""

    service: str
    path: str
    interface: str


DBUS = Target(
    service="org.freedesktop.DBus",
    path="/org/freedesktop/DBus",
    interface="org.freedesktop.DBus",
)
# systemd's own: of the machine on the system bus, of the user on the user's.
MANAGER = Target(
    service="org.freedesktop.systemd1",
    path="/org/freedesktop/systemd1",
    interface="org.freedesktop.systemd1.Manager",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. `trouble` says why nothing did, and `error` is the name of the error where the
    service refused. Descriptors in it are the caller's to close."""

    body: tuple[Any, ...] = ()
    fds: tuple[int, ...] = ()
    trouble: str | None = None
    error: str | None = None

    @property
    def value(self) -> Any:
        """The first of the body; None where there is none."""
        return self.body[0] if self.body else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subscription:
    target: Target
    signal: str
    on_signal: Callable[..., None]
    on_renewed: Callable[[], None] | None


def find_address(environ: Mapping[str, str], *, system: bool, uid: int) -> str | None:
    """Where the bus of the machine or of the user listens; None where the user has none."""
    if system:
        return environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
    if environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return environ["DBUS_SESSION_BUS_ADDRESS"]
    for folder in (environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        if folder and os.path.exists(f"{folder}/bus"):
            return f"unix:path={quote(f'{folder}/bus', safe='/-_.')}"
    return None


class Bus:
    """One connection to one bus, made when it is needed. `address` as D-Bus writes it, or None."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._live: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._subscriptions: list[_Subscription] = []
        self._keeper: asyncio.Task[None] | None = None
        self._mute_until = 0.0
        self._is_closed = False

    async def call(
        self,
        target: Target,
        member: str,
        signature: str = "",
        *arguments: Any,
        deadline_s: float = DEADLINE_S,
    ) -> Reply:
        """Calls a method. `arguments` are as dbus-fast takes them: a{sv} is a dict of Variants."""
        message = Message(
            destination=target.service,
            path=target.path,
            interface=target.interface,
            member=member,
            signature=signature,
            body=list(arguments),
        )
        try:
            async with asyncio.timeout(deadline_s):
                connection = await self._reach()
                return await connection.call(message)
        except TimeoutError:
            return Reply(trouble=f"{target.service} gave no answer in {deadline_s:g} s")
        except (_NoBus, DBusFastError, OSError, EOFError) as error:
            return Reply(trouble=str(error) or f"the connection to {target.service} was closed")

    async def get(self, target: Target, name: str, *, deadline_s: float = DEADLINE_S) -> Reply:
        """A property, as the reply's `value`."""
        of = Target(
            service=target.service, path=target.path, interface="org.freedesktop.DBus.Properties"
        )
        return await self.call(of, "Get", "ss", target.interface, name, deadline_s=deadline_s)

    async def subscribe(
        self,
        target: Target,
        signal: str,
        on_signal: Callable[..., None],
        *,
        on_renewed: Callable[[], None] | None = None,
    ) -> bool:
        """Has `on_signal` called with what each such signal holds, for as long as the bus is open.

        True once it is heard; otherwise it will be as soon as there is such a bus. Only the owner of
        the service's name is believed: anybody may send a signal that looks like its. `on_renewed`
        is called once it is heard, and when that is so again after the bus or the service was
        restarted: signals may have been missed, and what was kept for the old connection is gone.
        """
        subscription = _Subscription(
            target=target, signal=signal, on_signal=on_signal, on_renewed=on_renewed
        )
        self._subscriptions.append(subscription)
        try:
            async with asyncio.timeout(DEADLINE_S):
                connection = await self._reach()
                await connection.listen(subscription)
            return True
        except (TimeoutError, _NoBus, DBusFastError, OSError, EOFError):
            if self._live is not None:
                self._live.close()  # what is half heard is tried again as a whole
            return False
        finally:
            self._keep()

    async def close(self) -> None:
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._live is not None:
            self._live.close()
            await self._live.gone()

    # ── the connection ──

    async def _reach(self) -> "_Connection":
        """The connection that lives, or a new one."""
        async with self._connecting:
            # Word that it is gone may lie there unread: one turn to find that, one to take it in.
            for _ in range(0 if self._live is None else 2):
                await asyncio.sleep(0)
            if self._live is None or not self._live.is_open:
                self._live = await self._connect()
                self._keep()
            return self._live

    async def _connect(self) -> "_Connection":
        if self._address is None:
            raise _NoBus("there is no D-Bus")
        if self._is_closed:
            raise _NoBus("the connection to D-Bus was closed")
        now = asyncio.get_running_loop().time()
        if now < self._mute_until:
            raise _NoBus(f"D-Bus gives no answer at {self._address}")
        self._mute_until = now + MUTE_FOR_S
        connection = await self._connect_to(self._address)
        self._mute_until = 0.0
        return connection

    async def _connect_to(self, address: str) -> "_Connection":
        """Only who is kept waiting leaves the mark that it is mute: no bus at all is known at once."""
        try:
            bus = MessageBus(bus_address=address, negotiate_unix_fd=True)
            await bus.connect()
        except (DBusFastError, OSError, EOFError, ValueError) as error:
            self._mute_until = 0.0
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise _NoBus(f"no D-Bus at {address}: {why}") from error
        return _Connection(bus, self._subscriptions)

    def _keep(self) -> None:
        if (self._keeper is None or self._keeper.done()) and not self._is_closed:
            self._keeper = asyncio.ensure_future(self._stay_connected())

    async def _stay_connected(self) -> None:
        """For as long as somebody listens; who only calls connects anew with the next call."""
        pause_s = SHORTEST_PAUSE_S
        while True:
            live = self._live
            if live is not None and live.is_open:
                await live.gone()
                pause_s = SHORTEST_PAUSE_S
            if not self._subscriptions:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            await self._listen_again()

    async def _listen_again(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                connection = await self._reach()
                for subscription in self._subscriptions.copy():
                    await connection.listen(subscription)
        except (TimeoutError, _NoBus, DBusFastError, OSError, EOFError):
            if self._live is not None:
                self._live.close()


class _NoBus(Exception):
    """There is nothing to talk to; says why."""


class _Connection:
    """A connection that stands, until it is gone."""

    def __init__(self, bus: MessageBus, subscriptions: list[_Subscription]) -> None:
        self._bus = bus
        self._subscriptions = subscriptions
        self._heard: list[_Subscription] = []
        self._owners: dict[str, str | None] = {}  # of services that somebody listens to
        self._awaited: dict[int, asyncio.Future[Message]] = {}  # by the number of the call
        self._gone = asyncio.ensure_future(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
        self._gone.add_done_callback(self._lose_awaited)
        bus.add_message_handler(self._take)

    @property
    def is_open(self) -> bool:
        return bool(self._bus.connected)

    def close(self) -> None:
        if self._bus.connected:
            self._bus.disconnect()

    async def gone(self) -> None:
        """Until it is; how it went is of no matter."""
        await asyncio.wait({self._gone})

    async def call(self, message: Message) -> Reply:
        """Not by dbus-fast's own `call`: nobody would hear there of a message that cannot be sent."""
        if not self.is_open:
            raise EOFError
        message.serial = self._bus.next_serial()
        awaited = self._awaited[message.serial] = asyncio.get_running_loop().create_future()
        try:
            await self._bus.send(message)
            reply = await awaited
        finally:
            del self._awaited[message.serial]
        body = tuple(unpack_variants(reply.body))
        if reply.message_type is MessageType.ERROR:
            said = body[0] if body and isinstance(body[0], str) else reply.error_name
            return Reply(trouble=f"{message.destination}: {said}", error=reply.error_name)
        return Reply(body=body, fds=tuple(reply.unix_fds))

    async def listen(self, subscription: _Subscription) -> None:
        """Has the bus send such signals, and finds out whom to believe; _NoBus where it refuses."""
        if subscription in self._heard:
            return
        target = subscription.target
        if target.service not in self._owners:
            self._owners[target.service] = None
            changes = f"{_rule(DBUS, 'NameOwnerChanged')},arg0='{target.service}'"
            heard = await self._ask("AddMatch", changes)
            owner = await self._ask("GetNameOwner", target.service)
            if heard.trouble or (owner.trouble and owner.error != UNKNOWN_OWNER):
                del self._owners[target.service]
                raise _NoBus(heard.trouble or owner.trouble)
            self._owners[target.service] = None if owner.trouble else owner.value
        heard = await self._ask("AddMatch", _rule(target, subscription.signal))
        if heard.trouble:
            raise _NoBus(heard.trouble)
        self._heard.append(subscription)
        self._renew(subscription)

    async def _ask(self, member: str, text: str) -> Reply:
        return await self.call(
            Message(
                destination=DBUS.service,
                path=DBUS.path,
                interface=DBUS.interface,
                member=member,
                signature="s",
                body=[text],
            )
        )

    def _lose_awaited(self, gone: "asyncio.Future[None]") -> None:
        if not gone.cancelled():
            gone.exception()  # or it would be told of as one that nobody looked at
        for awaited in self._awaited.values():
            if not awaited.done():
                awaited.set_exception(EOFError())

    def _take(self, message: Message) -> None:
        is_reply = message.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR)
        awaited = self._awaited.get(message.reply_serial) if is_reply else None
        if awaited is not None and not awaited.done():
            awaited.set_result(message)
            return
        for fd in message.unix_fds:
            os.close(fd)  # sent without having been asked for, or too late
        if message.message_type is MessageType.SIGNAL:
            self._take_signal(message)

    def _take_signal(self, message: Message) -> None:
        if message.sender == DBUS.service and message.member == "NameOwnerChanged":
            self._note_owner(*message.body)
        for subscription in self._heard:
            if self._is_meant(subscription, message):
                body = unpack_variants(message.body)
                asyncio.get_running_loop().call_soon(subscription.on_signal, *body)

    def _is_meant(self, subscription: _Subscription, message: Message) -> bool:
        target = subscription.target
        said = (message.interface, message.path, message.member)
        owner = target.service if target == DBUS else self._owners[target.service]
        return said == (target.interface, target.path, subscription.signal) and (
            message.sender == owner
        )

    def _note_owner(self, service: str, _before: str, after: str) -> None:
        if service not in self._owners or self._owners[service] == (after or None):
            return
        self._owners[service] = after or None
        for subscription in self._heard:
            if after and subscription.target.service == service:
                self._renew(subscription)

    def _renew(self, subscription: _Subscription) -> None:
        if subscription.on_renewed is not None:
            asyncio.get_running_loop().call_soon(subscription.on_renewed)


def _rule(target: Target, signal: str) -> str:
    parts = {
        "type": "signal",
        "sender": target.service,
        "path": target.path,
        "interface": target.interface,
        "member": signal,
    }
    return ",".join(f"{name}='{value}'" for name, value in parts.items())
