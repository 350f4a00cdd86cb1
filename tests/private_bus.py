"""A D-Bus of a test's own, and somebody on it who answers as systemd's manager does."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.constants import MessageType, NameFlag, PropertyAccess
from dbus_fast.errors import DBusError
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from tests.conftest import until

CONFIG = """\
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"


class PrivateBus:
    """A dbus-daemon that starts nobody's services; it may be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bus"
        self.address = f"unix:path={self.path}"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIG.format(path=self.path))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._takes_connections, "the bus")

    def _takes_connections(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            return line.connect_ex(str(self.path)) == 0

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.path.unlink(missing_ok=True)


@pytest.fixture
def private_bus(tmp_path: Path) -> Iterator[PrivateBus]:
    bus = PrivateBus(tmp_path)
    try:
        bus.start()
    except FileNotFoundError:
        pytest.skip("NOT TESTED: there is no dbus-daemon here")
    yield bus
    bus.end()


Properties = Annotated[list[Any], DBusSignature("a(sv)")]
Auxiliary = Annotated[list[Any], DBusSignature("a(sa(sv))")]


class Systemd(ServiceInterface):
    """Its manager as far as scopes go. `asked` are the properties of each unit that was to be started,
    by name. `make_group` makes the control group of a unit; how the start ends is `result`."""

    def __init__(self, make_group: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(f"{SYSTEMD}.Manager")
        self.asked: dict[str, dict[str, Any]] = {}
        self.result = "done"
        self.refusal: str | None = None
        self.is_silent = False  # it never tells how a start has ended
        self._make_group = make_group
        self._bus: MessageBus
        self._gone: asyncio.Future[None]

    async def appear(self, address: str) -> None:
        self._bus = await MessageBus(bus_address=address).connect()
        self._gone = asyncio.ensure_future(self._bus.wait_for_disconnect())
        self._bus.export(MANAGER_PATH, self)
        await self._bus.request_name(SYSTEMD, NameFlag.REPLACE_EXISTING)

    async def vanish(self) -> None:
        self._bus.disconnect()
        await asyncio.gather(self._gone, return_exceptions=True)

    @dbus_property(access=PropertyAccess.READ)
    def ControlGroup(self) -> DBusStr:
        return ""

    @dbus_method()
    def StartTransientUnit(
        self, name: DBusStr, mode: DBusStr, properties: Properties, aux: Auxiliary
    ) -> DBusObjectPath:
        if self.refusal is not None:
            raise DBusError(f"{SYSTEMD}.{self.refusal}", f"Unit {name} was already loaded.")
        assert mode == "fail"
        self.asked[name] = {key: value.value for key, value in properties}
        self._make_group(name, self.asked[name])
        self._bus.export(_unit_path(name), _Scope(f"/gpuq.slice/{name}"))
        if not self.is_silent:
            asyncio.get_running_loop().call_soon(self.tell, name)
        return _job_path(name)

    @dbus_method()
    def GetUnit(self, name: DBusStr) -> DBusObjectPath:
        return _unit_path(name)

    def tell(self, name: str, result: str | None = None) -> None:
        send_job_removed(self._bus, name, result or self.result)


@asynccontextmanager
async def systemd_on(
    bus: PrivateBus,
    make_group: Callable[[str, dict[str, Any]], None] = lambda name, properties: None,
) -> AsyncIterator[Systemd]:
    there = Systemd(make_group)
    await there.appear(bus.address)
    try:
        yield there
    finally:
        await there.vanish()


class _Scope(ServiceInterface):
    def __init__(self, group: str) -> None:
        super().__init__(f"{SYSTEMD}.Scope")
        self._group = group

    @dbus_property(access=PropertyAccess.READ)
    def ControlGroup(self) -> DBusStr:
        return self._group


def send_job_removed(
    bus: MessageBus, name: str, result: str, destination: str | None = None
) -> None:
    """The news that the start of a unit has ended. Anybody may send such a message."""
    told = Message(
        destination=destination,
        message_type=MessageType.SIGNAL,
        path=MANAGER_PATH,
        interface=f"{SYSTEMD}.Manager",
        member="JobRemoved",
        signature="uoss",
        body=[1, _job_path(name), name, result],
    )
    bus.send(told)


def _unit_path(name: str) -> str:
    return f"{MANAGER_PATH}/unit/{_escaped(name)}"


def _job_path(name: str) -> str:
    return f"{MANAGER_PATH}/job/{_escaped(name)}"


def _escaped(name: str) -> str:
    return "".join(sign if sign.isalnum() else f"_{ord(sign):02x}" for sign in name)


class FakeTree:
    """Plain files that look like a cgroup 2 with its controllers; nobody moves in it."""

    def __init__(self, folder: Path, controllers: str = "cpuset cpu io memory pids") -> None:
        self.folder = folder / "cgroup"
        self.folder.mkdir()
        (self.folder / "cgroup.controllers").write_text(f"{controllers}\n")
        self.events = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"

    def directory_of(self, membership: str) -> str:
        return f"{self.folder}{membership[3:].rstrip('/')}"

    def make_group(self, name: str, properties: dict[str, Any]) -> None:
        group = self.folder / "gpuq.slice" / name
        group.mkdir(parents=True)
        page = os.sysconf("SC_PAGESIZE")
        if "MemoryMax" in properties:
            (group / "memory.max").write_text(f"{properties['MemoryMax'] // page * page}\n")
        if "CPUQuotaPerSecUSec" in properties:
            quota_us = properties["CPUQuotaPerSecUSec"] // 10
            (group / "cpu.max").write_text(f"{quota_us} 100000\n")
        (group / "memory.events").write_text(self.events)
        (group / "memory.peak").write_text("8589934592\n")
        (group / "memory.oom.group").write_text("0\n")


class RealTree:
    """Real control groups, without controllers: what systemd does with a process is done for real."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory_of(self, membership: str) -> str:
        return f"{self.root}{membership[3:].rstrip('/')}"

    def make_group(self, name: str, properties: dict[str, Any]) -> None:
        os.makedirs(f"{self.root}/gpuq.slice/{name}")
        for pid in properties["PIDs"]:
            Path(f"{self.root}/gpuq.slice/{name}/cgroup.procs").write_text(str(pid))
