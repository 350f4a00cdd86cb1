"""Where clients find the daemon: a socket that systemd holds, or one of its own; and what happens when
its file is taken away."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gpuq import protocol
from gpuq.client import Client
from gpuq.daemon import server as server_module
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.listening import Listener
from gpuq.daemon.server import Server
from gpuq.daemon.systemd.activation import given_socket
from gpuq.errors import DaemonUnreachable, GpuqError, UsageError
from tests.conftest import BIN, Daemon, until
from tests.systemd_side import handing_over, listening


class Activated(Daemon):
    """gpuqd as a service of a socket unit, which is the test's."""

    def __init__(self, folder: Path, sock: socket.socket) -> None:
        super().__init__(folder)
        self.sock = sock

    def start(self, *flags: str) -> "Activated":
        self.spawn(*flags)
        until(self._answers, f"the daemon (log: {self.log.read_text()})")
        return self

    def spawn(self, *flags: str) -> None:
        words, how = handing_over(self.sock.fileno())
        command = [*words, BIN / "gpuqd", "--state-dir", self.state, "--gpus", self.gpus, *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **how,
            )


@pytest.fixture
def held(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd holds for the daemon of `activated`."""
    (tmp_path / "state").mkdir()
    with listening(tmp_path / "state" / "gpuq.sock") as sock:
        yield sock


@pytest.fixture
def activated(tmp_path: Path, held: socket.socket) -> Iterator[Activated]:
    daemon = Activated(tmp_path, held)
    yield daemon
    daemon.end()


# ─── a socket that systemd holds ─────────────────────────────────────────────────────────────────


def test_who_comes_while_no_daemon_runs_is_answered_by_the_next(activated: Activated) -> None:
    answers: list[int] = []

    def ask() -> None:
        with activated.client() as client:
            answers.append(client.call("ping")["pid"])

    asking = Thread(target=ask)
    asking.start()
    activated.start()
    asking.join()
    assert answers == [activated.pid]
    assert stat.S_ISSOCK(os.stat(activated.state / "gpuq.sock").st_mode)
    before = os.stat(activated.state / "gpuq.sock")
    assert activated.stop() == 0
    assert os.stat(activated.state / "gpuq.sock").st_ino == before.st_ino, "it is systemd's"

    again = Thread(target=ask)
    again.start()
    activated.spawn()
    again.join()
    assert answers[1:] == [activated.pid]


def test_who_is_connected_waits_through_a_restart(activated: Activated) -> None:
    activated.start()
    answers: list[dict[str, Any]] = []
    with activated.client() as client:
        job = client.submit(
            ["sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 7"],
            gpus=0,
            cwd=str(activated.state.parent),
        )
        until(lambda: client.job(job)["state"] == "running")
        waiting = Thread(target=lambda: answers.extend(client.wait([job], timeout_s=60)))
        waiting.start()
        assert activated.stop() == 0, "by SIGTERM, as `systemctl restart` does"
        activated.spawn()
        (activated.state.parent / "go").touch()
        waiting.join()
    assert [one["exit_code"] for one in answers] == [7]


def test_who_wants_it_stopped_for_good_stops_it_for_good(activated: Activated) -> None:
    activated.start()
    with activated.client() as waiting, activated.client() as client:
        job = waiting.submit(["sleep", "60"], gpus=0)
        told: list[BaseException] = []

        def wait() -> None:
            try:
                waiting.wait([job])
            except DaemonUnreachable as error:
                told.append(error)

        thread = Thread(target=wait)
        thread.start()
        client.call("stop")
        thread.join()
    assert "the daemon was stopped" in str(told[0])
    assert activated.process is not None
    assert activated.process.wait(30) == 0


@pytest.mark.parametrize(
    "last_word",
    [protocol.encode({"bye": "it got SIGTERM", "back": True}), b""],
    ids=["told to wait", "its daemon killed"],
)
def test_who_was_not_greeted_is_answered_by_the_next(tmp_path: Path, last_word: bytes) -> None:
    """As one who connects in the moment in which the daemon is restarted."""
    with listening(tmp_path / "sock") as sock:

        def serve_twice() -> None:
            first, _ = sock.accept()
            first.sendall(last_word)
            first.close()
            second, _ = sock.accept()
            with second, second.makefile("rb") as lines:
                lines.readline()
                second.sendall(protocol.encode(protocol.hello("1")))
                number = protocol.decode(lines.readline())["id"]
                second.sendall(protocol.encode({"id": number, "ok": {"pid": 1}}))

        serving = Thread(target=serve_twice)
        serving.start()
        with Client(str(tmp_path / "sock")) as client:
            assert client.call("ping") == {"pid": 1}
        serving.join()


def test_who_is_never_greeted_gives_up(tmp_path: Path) -> None:
    with listening(tmp_path / "sock") as sock:
        sock.settimeout(20)
        tries: list[int] = []

        def hang_up() -> None:
            while len(tries) < 4:
                sock.accept()[0].close()
                tries.append(1)

        hanging_up = Thread(target=hang_up)
        hanging_up.start()
        with pytest.raises(DaemonUnreachable), Client(str(tmp_path / "sock")) as client:
            client.call("ping")
        hanging_up.join()
        assert len(tries) == 4


def test_no_job_inherits_the_socket_that_systemd_holds(activated: Activated) -> None:
    activated.start()
    about = Path(f"/proc/{activated.pid}/fdinfo/3").read_text()
    flags = next(line.split()[1] for line in about.splitlines() if line.startswith("flags:"))
    assert int(flags, 8) & os.O_CLOEXEC, "whatever is started from here, it is not handed down"
    with activated.client() as client:
        job = client.submit(["sh", "-c", "ls -l /proc/self/fd; env"], gpus=0)
        assert client.wait([job], timeout_s=30)[0]["outcome"] == "succeeded"
        log = b"".join(client.follow(job)).decode()
    assert "socket:" not in log
    assert "LISTEN_" not in log


# What a service was given, and what is said where that cannot be served.
WRONG = {
    "two sockets": "gave 2 sockets",
    "datagrams": "no Unix stream socket",
    "the network": "no Unix stream socket",
    "nobody listens": "does not listen",
    "another path": "and gpuqd is to serve",
    "a file": "cannot be used as a socket",
    "nothing": "systemd named descriptor 3",
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_not_the_socket_that_is_wanted_is_refused(
    tmp_path: Path, kind: str, stopped_daemon: Daemon
) -> None:
    (tmp_path / "state").mkdir()
    path, other = str(tmp_path / "state" / "gpuq.sock"), str(tmp_path / "other.sock")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as network,
        open(tmp_path / "file", "w") as file,
    ):
        unix.bind(other if kind == "another path" else path)
        if kind != "nobody listens":
            unix.listen()
        given = {"datagrams": datagrams, "the network": network, "a file": file}.get(kind, unix)
        fds = [given.fileno()] * (2 if kind == "two sockets" else 1)
        words, how = handing_over(*fds)
        if kind == "nothing":
            words[2] = words[2].replace("os.execv", "os.close(3); os.execv")
        ran = subprocess.run(
            [*words, BIN / "gpuqd", "--state-dir", tmp_path / "state", "--gpus", "none"],
            env=stopped_daemon.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **how,
        )
    assert (ran.returncode, ran.stdout) == (78, ""), "no other start mends it"
    (said,) = ran.stderr.splitlines()
    assert WRONG[kind] in said
    assert "ListenStream=" in said
    os.unlink(other if kind == "another path" else path)


def test_what_another_process_was_given_is_not_ours() -> None:
    assert given_socket({}, "/nowhere") is None
    assert given_socket({"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}, "/no") is None
    assert given_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}, "/no") is None
    with pytest.raises(UsageError, match="ListenStream="):
        given_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1000"}, "/nowhere")


# ─── the file is taken away ──────────────────────────────────────────────────────────────────────


def empty(folder: Path) -> None:
    shutil.rmtree(folder)


def test_a_daemon_whose_socket_was_removed_is_found_again(
    stopped_daemon: Daemon, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "gpuq" / "gpuq.sock"
    stopped_daemon.environment["GPUQ_SOCKET"] = str(path)
    daemon = Reached(stopped_daemon, path)
    daemon.start()
    with daemon.client() as before:
        job = before.submit(["sleep", "60"], gpus=1)
        empty(tmp_path / "run")
        with pytest.raises(DaemonUnreachable), daemon.client() as client:
            client.call("ping")
        until(path.exists, "a new socket")
        assert [one["id"] for one in before.jobs()] == [job], "who was connected still is"
        with daemon.client() as client:
            assert client.call("ping")["pid"] == before.call("ping")["pid"]
            client.kill([job], grace_s=0)
            client.wait([job], timeout_s=30)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "the socket's file was removed" in stopped_daemon.log.read_text()
    assert stopped_daemon.stop() == 0
    assert not path.exists()
    stopped_daemon.process = None


class Reached:
    """A daemon whose socket is somewhere else than in its state directory."""

    def __init__(self, daemon: Daemon, path: Path) -> None:
        self.daemon = daemon
        self.path = path
        daemon.client = self.client  # type: ignore[method-assign]

    def start(self) -> None:
        self.daemon.start("--socket", str(self.path))

    def client(self) -> Client:
        return Client(str(self.path))


async def answer(request: protocol.Message, peer: Peer) -> protocol.Message:
    return {"said": request.get("say")}


async def ask(path: Path) -> str:
    def call() -> str:
        with Client(str(path)) as client:
            return str(client.call("echo", say="well")["said"])

    return await asyncio.to_thread(call)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOOK_EVERY_S", 0.02)


async def until_async(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def serving(deed: Any, *where: Any, **how: Any) -> None:
    """Has the deed done while a server stays reachable there."""

    async def main() -> None:
        server = Server(str(where[0]), answer, {}, **how)
        await server.listen()
        staying = asyncio.ensure_future(server.stay_reachable())
        try:
            await deed(server)
        finally:
            assert not staying.done(), staying
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)
            await server.close("the test is over")
            await until_async(lambda: not server.connections)

    asyncio.run(main())


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("is_open", [True, False], ids=["for all", "for one"])
def test_the_new_socket_is_as_open_as_the_old_one(tmp_path: Path, is_open: bool) -> None:
    path = tmp_path / "run" / "gpuq" / "gpuq.sock"

    async def deed(server: Server) -> None:
        for _ in range(3):
            empty(tmp_path / "run")
            await until_async(path.exists)
            assert await ask(path) == "well"
        modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent, path.parents[1])]
        assert modes == ([0o666, 0o755, 0o755] if is_open else [0o600, 0o700, 0o700])
        assert len(server._acceptors) == 1, "none is kept that nobody can reach"

    before = os.umask(0o077)
    try:
        serving(deed, path, is_open=is_open)
    finally:
        os.umask(before)
    assert not path.exists()


@pytest.mark.usefixtures("often")
def test_what_systemd_holds_is_served_beside_a_new_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "gpuq.sock"
    path.parent.mkdir()
    with listening(path) as held, socket.socket(socket.AF_UNIX) as early:
        given = held.dup()

        async def deed(server: Server) -> None:
            assert await ask(path) == "well"
            os.rename(path, tmp_path / "moved")
            await until_async(path.exists)
            assert await ask(path) == "well"
            assert await ask(tmp_path / "moved") == "well", "somebody may wait in it"
            assert len(server._acceptors) == 2

        serving(deed, path, given=given)
        assert not path.exists(), "it was ours"
        early.connect(str(tmp_path / "moved"))  # it listens on


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("left", ["nothing", "a socket of nobody"])
def test_a_daemon_that_is_given_a_socket_whose_file_is_gone_is_reachable(
    tmp_path: Path, left: str
) -> None:
    path = tmp_path / "gpuq.sock"
    with listening(path) as held:
        path.unlink()
        if left != "nothing":
            with listening(path):
                pass

        async def deed(server: Server) -> None:
            assert await ask(path) == "well"

        serving(deed, path, given=held.dup())


@pytest.mark.usefixtures("often")
def test_another_daemon_at_its_place_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpuq.sock"

    async def deed(server: Server) -> None:
        path.unlink()
        with listening(path) as other:
            made = path.stat().st_mtime_ns
            told = ""
            while "another daemon answers there" not in told:
                await asyncio.sleep(0.02)
                told += capsys.readouterr().out
            other.setblocking(False)
            for _ in range(3):  # looks, and the last of them say nothing new
                (await asyncio.get_running_loop().sock_accept(other))[0].close()
            assert capsys.readouterr().out.count("another daemon") == 0
            assert path.stat().st_mtime_ns == made
        await until_async(lambda: path.exists() and path.stat().st_mtime_ns != made)
        assert await ask(path) == "well"

    serving(deed, path)


def test_only_its_own_file_is_removed_when_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "gpuq.sock"
    listener = Listener(str(path))
    (sock,) = listener.open()
    path.unlink()
    path.write_text("somebody else's")
    listener.leave()
    assert path.read_text() == "somebody else's"
    sock.close()


def test_another_file_with_the_number_of_the_old_one_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "gpuq.sock"
    listener = Listener(str(path))
    (sock,) = listener.open()
    path.chmod(0o660)
    assert not listener.is_cut_off(), "somebody has only opened it to a group"
    os.utime(path, (1.0, 1.0))  # as if it had been made at another time
    assert listener.is_cut_off()
    sock.close()


def test_a_socket_for_all_is_not_put_where_others_could_replace_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(GpuqError, match="others than root can write there"):
        Listener(str(folder / "gpuq.sock"), is_open=True).open()
    assert list(folder.iterdir()) == []
