"""A systemd and a logind that say what the test wants them to say, on a D-Bus of their own.

    with fake_host(tmp_path) as host:
        host.state = "stopping"              what the manager says of itself
        host.prepare_for_shutdown(True)      what logind tells everybody
        host.locks                           [(what, who, why, mode)] of inhibitors that are held

What gpuqd reads of the machine's bus is found by DBUS_SYSTEM_BUS_ADDRESS, of the user's by
DBUS_SESSION_BUS_ADDRESS: `host.address`. The bus is a true dbus-daemon.
"""

import asyncio
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

SYSTEMD, LOGIND = "org.freedesktop.systemd1", "org.freedesktop.login1"
MANAGER, LOGIN = f"{SYSTEMD}.Manager", f"{LOGIND}.Manager"

# Anybody may say and own anything here.
CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


class FakeHost:
    def __init__(self, address: str) -> None:
        self.address = address
        self.state: str | None = "running"  # None: no answer at all
        self.is_preparing = False
        self.refusal: str | None = None  # why no inhibitor is given
        self.asked: list[str] = []  # the members that were called
        self._held: list[tuple[tuple[str, ...], int]] = []  # with our end of the pipe
        self._loop = asyncio.new_event_loop()
        self._bus: MessageBus | None = None
        self._sending: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result(20)

    # ── what a test says and asks ──

    def prepare_for_shutdown(self, active: bool) -> None:
        self.is_preparing = active
        self._signal("PrepareForShutdown", active)

    @property
    def locks(self) -> list[tuple[str, ...]]:
        """Those whose other end is still open."""
        return [words for words, fd in self._held if not _is_closed(fd)]

    def close(self) -> None:
        """systemd and logind are gone; the bus is not."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()
        for _, fd in self._held:
            os.close(fd)

    # ── in the thread ──

    async def _connect(self) -> None:
        self._bus = await MessageBus(bus_address=self.address, negotiate_unix_fd=True).connect()
        self._bus.add_message_handler(self._answer)
        for name in (SYSTEMD, LOGIND):
            await self._bus.request_name(name)

    async def _disconnect(self) -> None:
        assert self._bus is not None
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()

    def _signal(self, member: str, active: bool) -> None:
        path = f"/{LOGIND.replace('.', '/')}"
        message = Message.new_signal(path, LOGIN, member, "b", [active])

        async def send() -> None:
            assert self._bus is not None
            await self._bus.send(message)

        asyncio.run_coroutine_threadsafe(send(), self._loop).result(20)

    def _answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        words = (message.interface, message.member, *message.body)
        if message.member == "Get":
            self.asked.append(message.body[1])
            return self._property(message)
        if words[:2] == (LOGIN, "Inhibit"):
            self.asked.append("Inhibit")
            return self._inhibit(message)
        return None

    def _property(self, message: Message) -> Message | bool:
        if message.body == [MANAGER, "SystemState"]:
            if self.state is None:
                return True
            return Message.new_method_return(message, "v", [Variant("s", self.state)])
        assert message.body == [LOGIN, "PreparingForShutdown"], message.body
        return Message.new_method_return(message, "v", [Variant("b", self.is_preparing)])

    def _inhibit(self, message: Message) -> Message | bool:
        if self.refusal is not None:
            denied = "org.freedesktop.DBus.Error.AccessDenied"
            return Message.new_error(message, denied, self.refusal)
        ours, theirs = os.pipe()
        self._held.append((tuple(message.body), ours))
        reply = Message.new_method_return(message, "h", [0], unix_fds=[theirs])
        self._sending = self._loop.create_task(self._give_away(reply, theirs))
        return True

    async def _give_away(self, reply: Message, fd: int) -> None:
        """What is sent stays open here as well until somebody closes it."""
        assert self._bus is not None
        await self._bus.send(reply)
        os.close(fd)


def _is_closed(fd: int) -> bool:
    """Has the other end of this pipe been closed?"""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


@contextmanager
def fake_bus(folder: Path) -> Iterator[str]:
    """A dbus-daemon; gives its address."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("there is no dbus-daemon on this machine: install the package dbus")
    folder.mkdir(exist_ok=True)
    config, path = folder / "bus.conf", folder / "bus"
    config.write_text(CONFIG.format(path=path))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"]
    bus = subprocess.Popen([*command, "--print-address=1"], stdout=subprocess.PIPE)
    try:
        assert bus.stdout is not None
        assert bus.stdout.readline(), "the bus did not come up"
        path.chmod(0o666)
        yield f"unix:path={path}"
    finally:
        bus.terminate()
        bus.wait(20)
        assert bus.stdout is not None
        bus.stdout.close()


@contextmanager
def fake_host(folder: Path) -> Iterator[FakeHost]:
    with fake_bus(folder) as address:
        host = FakeHost(address)
        try:
            yield host
        finally:
            host.close()
