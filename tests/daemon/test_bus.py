"""What the door to D-Bus is promised to do: to answer or to say why not, in time, whatever happens to
the bus. That is a real one, of the test's own."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusUnixFd
from dbus_fast.service import ServiceInterface, dbus_method

from gpuq.daemon.systemd.bus import DBUS, MANAGER, Bus, Target, find_address
from tests.desk import DEADLINE_S, until
from tests.private_bus import PrivateBus, private_bus, send_job_removed, systemd_on

__all__ = ["private_bus"]

HELD = Target(service="org.gpuq.Test", path="/test", interface="org.gpuq.Test")


def with_bus(address: str | None, deed: Callable[[Bus], Awaitable[None]]) -> None:
    async def main() -> None:
        bus = Bus(address)
        try:
            await asyncio.wait_for(deed(bus), DEADLINE_S)
        finally:
            await bus.close()

    asyncio.run(main())


# ─── where there is no bus ───────────────────────────────────────────────────────────────────────


def test_without_a_bus_every_question_is_answered_with_why(tmp_path: Path) -> None:
    async def deed(bus: Bus) -> None:
        assert (await bus.call(DBUS, "ListNames")).trouble == "there is no D-Bus"
        assert (await bus.get(MANAGER, "ControlGroup")).trouble == "there is no D-Bus"
        assert not await bus.subscribe(MANAGER, "JobRemoved", print)

    with_bus(None, deed)


def test_a_bus_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def deed(bus: Bus) -> None:
        told = f"no D-Bus at unix:path={tmp_path}/none: No such file or directory"
        assert (await bus.call(DBUS, "ListNames")).trouble == told

    with_bus(f"unix:path={tmp_path}/none", deed)


@pytest.mark.parametrize("address", ["autolaunch:", "nonsense", "unix:path=a b", ""])
def test_an_address_that_is_none_is_no_fault(address: str) -> None:
    async def deed(bus: Bus) -> None:
        assert "D-Bus" in str((await bus.call(DBUS, "ListNames")).trouble)

    with_bus(address, deed)


def test_one_that_says_nothing_costs_one_deadline_and_not_one_each(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{tmp_path}/mute")
        mute.listen()

        async def deed(bus: Bus) -> None:
            first = await bus.call(DBUS, "ListNames", deadline_s=0.1)
            assert first.trouble == "org.freedesktop.DBus gave no answer in 0.1 s"
            again = await bus.call(DBUS, "ListNames", deadline_s=2 * DEADLINE_S)
            assert again.trouble == f"D-Bus gives no answer at unix:path={tmp_path}/mute"

        with_bus(f"unix:path={tmp_path}/mute", deed)


def test_the_users_bus_is_looked_for_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "bus").touch()
    said = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/x", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert find_address(said, system=False, uid=4_000_000) == "unix:path=/x"
    del said["DBUS_SESSION_BUS_ADDRESS"]
    assert find_address(said, system=False, uid=4_000_000) == f"unix:path={tmp_path}/bus"
    assert find_address({}, system=False, uid=4_000_000) is None
    assert find_address(said, system=True, uid=0) == "unix:path=/run/dbus/system_bus_socket"


# ─── asking ──────────────────────────────────────────────────────────────────────────────────────


def test_methods_and_properties_are_answered(private_bus: PrivateBus) -> None:
    start = "StartTransientUnit", "ssa(sv)a(sa(sv))", "a", "fail", [], []

    async def deed(bus: Bus) -> None:
        async with systemd_on(private_bus) as there:
            reply = await bus.call(MANAGER, "GetUnit", "s", "a.scope")
            assert reply.value == "/org/freedesktop/systemd1/unit/a_2escope"
            assert (await bus.get(MANAGER, "ControlGroup")).value == ""
            there.refusal = "UnitExists"
            refused = await bus.call(MANAGER, *start)
            assert refused.error == "org.freedesktop.systemd1.UnitExists"
            assert refused.trouble == "org.freedesktop.systemd1: Unit a was already loaded."

    with_bus(private_bus.address, deed)


def test_a_service_that_is_not_there_is_a_trouble(private_bus: PrivateBus) -> None:
    async def deed(bus: Bus) -> None:
        reply = await bus.call(HELD, "Anything")
        assert reply.error == "org.freedesktop.DBus.Error.ServiceUnknown"
        assert str(reply.trouble).startswith("org.gpuq.Test: ")

    with_bus(private_bus.address, deed)


class _Lender(ServiceInterface):
    def __init__(self, fd: int) -> None:
        super().__init__("org.gpuq.Test")
        self._fd = fd

    @dbus_method()
    def Lend(self) -> DBusUnixFd:
        return self._fd


def _is_at_end(reading: int) -> bool:
    try:
        return os.read(reading, 10) == b""
    except BlockingIOError:
        return False


def test_a_descriptor_comes_along_and_one_that_nobody_asked_for_is_closed(
    private_bus: PrivateBus,
) -> None:
    async def deed(bus: Bus) -> None:
        reading, writing = os.pipe()
        lender = MessageBus(bus_address=private_bus.address, negotiate_unix_fd=True)
        await lender.connect()
        lender.export("/test", _Lender(writing))
        await lender.request_name("org.gpuq.Test")
        (lent,) = (await bus.call(HELD, "Lend")).fds
        os.write(lent, b"held")
        assert os.read(reading, 10) == b"held"
        os.close(lent)
        unasked = Message.new_signal(
            "/test", "org.gpuq.Test", "Here", signature="h", body=[0], unix_fds=[writing]
        )
        names = set((await bus.call(DBUS, "ListNames")).value)
        (unasked.destination,) = (
            names - {"org.freedesktop.DBus", "org.gpuq.Test"} - {lender.unique_name}
        )
        lender.send(unasked)
        lender.disconnect()
        await lender.wait_for_disconnect()
        os.close(writing)
        os.set_blocking(reading, False)
        await until(lambda: _is_at_end(reading), "nobody to hold it any more")
        os.close(reading)

    with_bus(private_bus.address, deed)


# ─── hearing ─────────────────────────────────────────────────────────────────────────────────────


def test_a_signal_of_the_service_is_heard_and_a_forged_one_is_not(private_bus: PrivateBus) -> None:
    async def deed(bus: Bus) -> None:
        heard: list[str] = []
        async with systemd_on(private_bus) as there:
            assert await bus.subscribe(MANAGER, "JobRemoved", lambda *told: heard.append(told[2]))
            forger = await MessageBus(bus_address=private_bus.address).connect()
            names = (await bus.call(DBUS, "ListNames")).value
            for name in [None, *(name for name in names if name.startswith(":"))]:
                send_job_removed(forger, "forged.scope", "done", destination=name)
            forger.disconnect()
            await forger.wait_for_disconnect()
            there.tell("true.scope")
            await until(lambda: heard, "the signal")
        assert heard == ["true.scope"]

    with_bus(private_bus.address, deed)


def test_after_a_restart_of_the_bus_and_of_the_service_all_is_heard_again(
    private_bus: PrivateBus,
) -> None:
    async def deed(bus: Bus) -> None:
        heard: list[str] = []
        renewed: list[bool] = []

        async def tells(unit: str) -> None:
            before = len(renewed)
            async with systemd_on(private_bus) as there:
                await until(lambda: len(renewed) > before, "word of the service")
                there.tell(unit)
                await until(lambda: heard[-1:] == [unit], unit)

        assert await bus.subscribe(
            MANAGER,
            "JobRemoved",
            lambda _id, _job, unit, _result: heard.append(unit),
            on_renewed=lambda: renewed.append(True),
        )
        await until(lambda: renewed, "the first word")
        await tells("first.scope")
        await tells("second.scope")
        before = len(renewed)
        private_bus.end()
        private_bus.start()
        await until(lambda: len(renewed) > before, "the new connection")
        await tells("third.scope")

    with_bus(private_bus.address, deed)


def test_who_only_asks_finds_the_new_bus_with_the_next_question(private_bus: PrivateBus) -> None:
    async def deed(bus: Bus) -> None:
        assert (await bus.call(DBUS, "ListNames")).trouble is None
        private_bus.end()
        assert (await bus.call(DBUS, "ListNames")).trouble is not None
        private_bus.start()
        assert (await bus.call(DBUS, "ListNames")).trouble is None

    with_bus(private_bus.address, deed)
