"""Who calls is what the kernel says, and who may do what follows from it. The callers are processes
that have truly become somebody else, and connect through a true socket."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.gpus.ring import History, Rings
from gpuq.daemon.callers import names, peer
from gpuq.daemon.callers.names import Lookup
from gpuq.daemon.callers.peer import NOBODY, Callers, Credentials, Heard, Peer
from gpuq.daemon.requests.handlers import LOOKS, Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import NothingMatched, NotPermitted, UsageError
from tests.daemon.test_server import Still

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED: only root can call as somebody else"
)
ALICE, LAB, ADMINS = 2001, 2102, 2101

# Becomes what it is told, connects, says so, and stays until its stdin is closed.
CALLER = """
import os, socket, sys
path, uid, gid, *groups = sys.argv[1:]
os.setgroups([int(one) for one in groups])
os.setgid(int(gid))
os.setuid(int(uid))
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
    line.connect(path)
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that everybody may connect to."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.bind(str(folder / "s"))
        (folder / "s").chmod(0o666)
        line.listen()
        line.settimeout(20)
        yield line
    shutil.rmtree(folder)


@contextmanager
def caller(
    listener: socket.socket,
    uid: int,
    *groups: int,
    gid: int | None = None,
    before: Sequence[str] = (),
) -> Iterator[tuple[socket.socket, "subprocess.Popen[str]"]]:
    """Our end of the connection of a process with that identity, and the process."""
    words = [listener.getsockname(), str(uid), str(uid if gid is None else gid), *map(str, groups)]
    command = [*before, sys.executable, "-c", CALLER, *words]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        line, _ = listener.accept()
        yield stack.enter_context(line), process


def machine(**flags: Any) -> config.Config:
    return config.load({"state_dir": "/nowhere", **flags}, {}, mode="system")


def heard(callers: Callers, line: socket.socket) -> Heard:
    return asyncio.run(callers.know(callers.ask_kernel(line)))


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The groups of the machine, and nobody has looked into them."""
    known = {"gpuq-admin": ADMINS, "lab": LAB}
    monkeypatch.setattr(names, "groups", Lookup(known.get))
    return known


# ─── what the kernel says ────────────────────────────────────────────────────────────────────────


@needs_root
def test_the_kernel_tells_user_group_and_all_groups(listener: socket.socket) -> None:
    with caller(listener, ALICE, LAB, 2103, gid=2002) as (line, process):
        told = Callers(machine()).ask_kernel(line)
    assert told == Credentials(
        uid=ALICE,
        gid=2002,
        pid=process.pid,
        groups=frozenset({2002, LAB, 2103}),
        is_outside=False,
    )


@needs_root
@pytest.mark.parametrize("many", [63, 64, 65, 300, 5000])
def test_nobody_has_too_many_groups(listener: socket.socket, many: int) -> None:
    """socket.getsockopt gives 256 at most."""
    wanted = range(10_000, 10_000 + many)
    with caller(listener, ALICE, *wanted) as (line, _):
        assert Callers().ask_kernel(line).groups == {ALICE, *wanted}


@needs_root
def test_who_has_no_name_is_called_by_number(listener: socket.socket) -> None:
    with caller(listener, 3_999_999) as (line, _):
        assert heard(Callers(machine()), line).peer.user == "3999999"


# ─── who is admin ────────────────────────────────────────────────────────────────────────────────


@needs_root
def test_root_and_the_admin_group_are_admins_and_nobody_else(
    listener: socket.socket, groups: dict[str, int]
) -> None:
    def is_admin(*who: int, gid: int | None = None, **settings: Any) -> bool:
        with caller(listener, *who, gid=gid) as (line, _):
            return heard(Callers(machine(**settings)), line).peer.is_admin

    assert is_admin(0)
    assert is_admin(ALICE, ADMINS)
    assert is_admin(ALICE, gid=ADMINS)
    assert not is_admin(ALICE, LAB)
    assert is_admin(ALICE, LAB, admin_group="lab")
    assert not is_admin(ALICE, ADMINS, admin_group="lab")
    assert not is_admin(ALICE, ADMINS, admin_group="no-such-group")


@needs_root
def test_ones_own_daemon_obeys_oneself_and_root(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, groups: dict[str, int]
) -> None:
    for owner in (0, ALICE):
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda owner=owner: owner)
            callers = Callers()
        for uid in (0, ALICE, ALICE + 1):
            with caller(listener, uid, ADMINS) as (line, _):
                found = heard(callers, line)
            is_theirs = uid in (0, owner)
            assert found.peer.is_admin == is_theirs
            assert (found.refusal is None) == is_theirs, (owner, uid)


def test_who_may_do_what() -> None:
    ann = Peer(uid=7, gid=7, pid=1, user="ann")
    assert (ann.may_change(7), ann.may_change(8)) == (True, False)
    assert (ann.may_see_secrets_of(7), ann.may_see_secrets_of(8)) == (True, False)
    with pytest.raises(NotPermitted, match=r"^only an admin may fly: .*Nothing was done\.$"):
        ann.require_admin("fly")

    admin = Peer(uid=9, gid=9, pid=1, user="carol", is_admin=True)
    assert (admin.may_change(7), admin.may_see_secrets_of(7)) == (True, False)
    admin.require_admin("fly")

    root = Peer(uid=0, gid=0, pid=1, user="root", is_admin=True)
    assert (root.may_change(7), root.may_see_secrets_of(7)) == (True, True)

    nobody = Peer(uid=NOBODY, gid=NOBODY, pid=1, user="root of a container")
    assert not any(nobody.may_change(uid) for uid in (0, 7, NOBODY))
    assert not any(nobody.may_see_secrets_of(uid) for uid in (0, 7, NOBODY))
    for forbidden in (nobody.require_change, lambda: nobody.require_admin("fly")):
        with pytest.raises(NotPermitted, match="Run the container with --user"):
            forbidden()


# ─── containers ──────────────────────────────────────────────────────────────────────────────────

# Goes on with the rest of its words in namespaces of its own; in that of users all have their numbers.
ENTER = """
import ctypes, os, sys
flags = int(sys.argv[1])
me, (hear, tell) = os.getpid(), os.pipe()
if not (mapper := os.fork()):
    os.read(hear, 1)
    for kind in ("uid", "gid") if flags & 0x10000000 else ():
        with open(f"/proc/{me}/{kind}_map", "w") as file:
            file.write("0 0 100000")
    os._exit(0)
unshare = ctypes.CDLL(None, use_errno=True).unshare
if unshare(flags):
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(tell, b"x")
assert os.waitpid(mapper, 0)[1] == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000  # clone(2)
CONTAINERS = {"mount": CLONE_NEWNS, "user": CLONE_NEWUSER, "both": CLONE_NEWNS | CLONE_NEWUSER}


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> list[str]:
    """Words before a command that runs it as root of another namespace."""
    before = [sys.executable, "-c", ENTER, str(CONTAINERS[request.param])]
    tried = subprocess.run([*before, "/bin/true"], capture_output=True, check=False)
    if tried.returncode:
        why = tried.stderr.decode().strip().splitlines()[-1]
        pytest.skip(f"NOT TESTED: no namespace ({request.param}) can be made here: {why}")
    return before


@needs_root
def test_root_of_a_container_has_no_rights_of_root(
    listener: socket.socket, container: list[str], groups: dict[str, int]
) -> None:
    with caller(listener, 0, ADMINS, LAB, before=container) as (line, process):
        found = heard(Callers(machine()), line)
        assert found.refusal is None
        assert found.peer == Peer(
            uid=NOBODY, gid=NOBODY, pid=process.pid, user="root of a container"
        )
        refusal = heard(Callers(machine(allow_groups="lab")), line).refusal
        assert refusal is not None
        assert refusal.startswith("this daemon serves the members of lab, and root of a container")


@needs_root
def test_who_is_no_root_in_a_container_is_who_he_is_and_no_admin(
    listener: socket.socket, container: list[str], groups: dict[str, int]
) -> None:
    """Root of a container can make himself a member of any group."""
    with caller(listener, ALICE, ADMINS, LAB, before=container) as (line, _):
        found = heard(Callers(machine(allow_groups="lab")), line)
    assert found.refusal is None
    assert (found.peer.uid, found.peer.is_admin) == (ALICE, False)
    assert found.peer.groups == {ALICE, ADMINS, LAB}


@needs_root
def test_root_in_another_namespace_is_root_to_a_daemon_of_its_own(
    listener: socket.socket, container: list[str]
) -> None:
    with caller(listener, 0, before=container) as (line, _):
        found = heard(Callers(), line)
    assert (found.peer.uid, found.peer.is_admin, found.refusal) == (0, True, None)


@needs_root
@pytest.mark.parametrize("is_old", [False, True])
def test_who_has_gone_is_not_taken_for_root(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    """Another process may have the pid by the time that /proc/PID is looked at."""
    if is_old:  # a kernel that gives no descriptor of the caller
        monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)
    with caller(listener, 0) as (line, process):
        assert heard(Callers(machine()), line).peer.uid == 0
        process.communicate("")
        assert heard(Callers(machine()), line).peer.uid == NOBODY


@needs_root
def test_the_pid_of_who_has_gone_proves_nothing_whoever_has_it_now(listener: socket.socket) -> None:
    with caller(listener, 0) as (line, process):
        assert peer._is_of_our_namespaces(line, os.getpid(), 0)
        process.communicate("")
        assert not peer._is_of_our_namespaces(line, os.getpid(), 0)


@needs_root
def test_a_pid_that_is_anothers_by_now_proves_nothing(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older kernel, and the number of a root of a container went to a user of this machine."""
    monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)
    with caller(listener, 0) as (line, _), caller(listener, ALICE) as (_, other):
        assert peer._is_of_our_namespaces(line, os.getpid(), 0)
        assert not peer._is_of_our_namespaces(line, other.pid, 0)
        assert not peer._is_of_our_namespaces(line, 0, 0)


@needs_root
def test_a_users_set_uid_program_that_has_the_pid_by_now_is_no_root(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older kernel: a root of a container who has an account as well starts su until it fits."""
    monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)
    with tempfile.TemporaryDirectory() as folder, caller(listener, 0) as (line, _):
        os.chmod(folder, 0o711)
        program = shutil.copy("/bin/sleep", folder)
        os.chmod(program, 0o4755)
        with subprocess.Popen([program, "600"], user=ALICE) as su:
            looks_like_root = os.stat(f"/proc/{su.pid}").st_uid == 0
            is_believed = peer._is_of_our_namespaces(line, su.pid, 0)
            su.kill()
        assert (looks_like_root, is_believed) == (True, False)


# ─── who is served ───────────────────────────────────────────────────────────────────────────────


@needs_root
def test_only_the_groups_that_are_allowed_are_served(
    listener: socket.socket, groups: dict[str, int]
) -> None:
    settings = machine(allow_groups="lab,guests")
    callers = Callers(settings)

    def refusal(*who: int) -> str | None:
        with caller(listener, *who) as (line, _):
            return heard(callers, line).refusal

    assert refusal(ALICE, LAB) is None
    assert refusal(ALICE, ADMINS) is None
    assert refusal(0) is None
    refused = refusal(ALICE, 2103)
    assert refused is not None
    assert re.search(
        r"lab, guests \(this machine does not know guests\), and 2001 is none", refused
    )
    assert refused.endswith("Nothing was done.")
    settings.take_over(machine())
    assert refusal(ALICE, 2103) is None, "as soon as the setting has changed"


# ─── a database that hangs ───────────────────────────────────────────────────────────────────────


class Database:
    """Answers once it is let, and counts how often it is asked."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[Any] = []

    def __call__(self, key: Any) -> str | None:
        self.asked.append(key)
        assert self.answers.wait(20)
        return None if key == "nobody" else f"name of {key}"


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(names, "PATIENCE_S", 0.05)
    database = Database()
    yield database
    database.answers.set()


def test_a_database_that_hangs_stops_neither_the_loop_nor_the_caller(database: Database) -> None:
    lookup = Lookup(database)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async def main() -> None:
        counting = asyncio.ensure_future(count_turns())
        assert await asyncio.gather(*(lookup.get("ann") for _ in range(5))) == [None] * 5
        counting.cancel()
        assert turns > 2
        assert lookup.begin("ann").done(), "the next one does not wait for it again"
        database.answers.set()
        while lookup.begin("ann").result() is None:
            await asyncio.sleep(0.001)
        assert await lookup.get("ann") == "name of ann", "it was told late"

    asyncio.run(main())
    assert database.asked == ["ann"]


def test_what_was_answered_is_kept_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.answers.set()
    lookup = Lookup(database)
    monkeypatch.setattr(names, "PATIENCE_S", 20.0)
    for _ in range(3):
        assert lookup.get_blocking("ann") == "name of ann"
        assert lookup.get_blocking("nobody") is None
    assert database.asked == ["ann", "nobody"], "also that there is none"
    monkeypatch.setattr(names, "KEPT_S", 0.0)
    assert lookup.get_blocking("nobody") is None
    assert database.asked == ["ann", "nobody", "nobody"]


def test_no_more_threads_than_so_many_wait_for_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MOST_ASKED_AT_ONCE", 2)
    lookup = Lookup(database)
    under_way = [lookup.begin(key) for key in "abcd"]
    assert [future.done() for future in under_way] == [False, False, True, True]
    database.answers.set()
    assert under_way[0].result(20) == "name of a"


@needs_root
def test_a_caller_is_known_without_a_name_service(
    listener: socket.socket, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is the name, and the groups count as not there."""
    monkeypatch.setattr(names, "users", Lookup(database))
    monkeypatch.setattr(names, "groups", Lookup(database))
    with caller(listener, ALICE, ADMINS) as (line, _):
        callers = Callers(machine())
        told = callers.ask_kernel(line)
        assert callers.known(told) is None
        assert asyncio.run(callers.know(told)).peer.user == "2001"
        again = callers.known(told)
    assert again is not None
    assert (again.peer.user, again.peer.is_admin) == ("2001", False)


# ─── requests ────────────────────────────────────────────────────────────────────────────────────


class Quiet(Still):
    """A daemon in which nothing happens, whatever is asked."""

    health = ()

    def wish_tests(self, uuids: Sequence[str], actor: str) -> None: ...
    def gpu_use(self, job: int, attempt: int) -> None: ...
    def gpu_history(self, window_s: float, buckets: int) -> History:
        return Rings().history(window_s, buckets, 0.0)


CONTAINER_ROOT = Peer(uid=NOBODY, gid=NOBODY, pid=1, user="root of a container")
CAROL = Peer(uid=2003, gid=2003, pid=1, user="carol", is_admin=True)
DAVE = Peer(uid=2004, gid=2004, pid=1, user="dave")


def with_handlers(
    folder: Path, deed: Callable[[Handlers, Store], Awaitable[None]], **flags: Any
) -> None:
    async def main() -> None:
        settings = machine(state_dir=str(folder), gpus="none", **flags)
        with closing(Store(":memory:")) as store:
            await deed(Handlers(store, settings, Quiet(), Watchers()), store)

    asyncio.run(main())


def test_root_of_a_container_may_look_and_do_nothing_else(tmp_path: Path) -> None:
    async def deed(handlers: Handlers, store: Store) -> None:
        for do in handlers._table.keys() - LOOKS:
            with pytest.raises(NotPermitted, match="you are root of a container"):
                await handlers.handle({"do": do}, CONTAINER_ROOT)
        for do in LOOKS:
            with suppress(UsageError, NothingMatched):
                await handlers.handle({"do": do}, CONTAINER_ROOT)

    with_handlers(tmp_path, deed)


@pytest.mark.parametrize("do", ["stop", "drain", "drain_gpus", "resume_gpus", "test_gpus"])
def test_what_goes_for_everybody_is_for_admins(tmp_path: Path, do: str) -> None:
    async def deed(handlers: Handlers, store: Store) -> None:
        with pytest.raises(NotPermitted, match="only an admin may"):
            await handlers.handle({"do": do}, DAVE)
        with suppress(UsageError):  # no GPU is named
            await handlers.handle({"do": do}, CAROL)

    with_handlers(tmp_path, deed)
