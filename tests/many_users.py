"""A machine of many users: a mount namespace with a passwd and a group file of its own, in which the
daemon of the whole machine serves people, and their commands and jobs run as them.

    with many_users() as box:
        box.start()
        alice = box.client("alice")
        job = alice.submit(["id", "-a"], gpus=0)
        assert alice.wait([job])[0]["exit_code"] == 0
        assert box.gpuq("bob", "logs", str(job)).returncode == 5

Nothing outside the namespace changes, but for the box's own folder, which goes with it. What is
outside is of no user namespace other than ours, so that a uid in there is that uid everywhere.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuq import errors
from gpuq.daemon.linux import cgroup, processes
from tests.conftest import BIN, PATIENCE_S, until

PROJECT = Path(__file__).parent.parent
PATH = "/usr/local/bin:/usr/bin:/bin"
SIMULATED = "sim:2x24G"

ALICE, BOB, CAROL, DAVE = 2001, 2002, 2003, 2004
UIDS = {"root": 0, "alice": ALICE, "bob": BOB, "carol": CAROL, "dave": DAVE}
ADMINS, STUDENTS, PROJECT_GROUP = 2101, 2102, 2103
GROUPS = {
    "gpuq-admin": (ADMINS, ["carol"]),
    "students": (STUDENTS, ["dave"]),
    "project": (PROJECT_GROUP, ["alice", "bob"]),
}

# Reads one request per line and makes it with a Client of its own: whoever runs this is the caller.
AGENT = """
import json, sys
from gpuq.client import Client
from gpuq.errors import GpuqError

with Client() as client:
    for line in sys.stdin:
        name, words, options = json.loads(line)
        try:
            answer = {"value": getattr(client, name)(*words, **options)}
        except GpuqError as error:
            answer = {"error": [type(error).__name__, str(error)]}
        print(json.dumps(answer), flush=True)
"""


class Caller:
    """A Client that lives in a process of one of the users; its methods are those of Client that
    take and return plain values."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def __getattr__(self, name: str) -> Any:
        def call(*words: Any, **options: Any) -> Any:
            return self._ask(name, words, options)

        return call

    def _ask(self, name: str, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, words, options]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the caller has left with {self.process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            kind, text = answer["error"]
            raise getattr(errors, kind)(text)
        return answer["value"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(PATIENCE_S)


class ManyUsers:
    """`folder` holds all of it: state/, etc/, home/ and run/ (where the namespace has /run/user)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = folder / "gpuq.sock"
        self.config = folder / "gpuq.toml"
        self.log = folder / "gpuqd.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._etc = folder / "etc"
        self._callers: dict[str, Caller] = {}
        self._make_folders()
        self._holder = self._enter_namespace()

    # ── the machine ──

    def home(self, user: str) -> Path:
        return self.folder / "home" / user

    def write_users(self, *, without: str | None = None) -> None:
        """Into the same file always, since it is mounted."""
        lines = [f"root:x:0:0:root:{self.home('root')}:/bin/bash", "daemon:x:1:1::/:/bin/sh"]
        lines += [
            f"{name}:x:{uid}:{uid}:{name}:{self.home(name)}:/bin/sh"
            for name, uid in UIDS.items()
            if uid and name != without
        ]
        lines.append("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin")
        (self._etc / "passwd").write_text("\n".join(lines) + "\n")

    def remove_user(self, name: str) -> None:
        self.write_users(without=name)

    def runtime_dir(self, uid: int) -> Path:
        """As a login would make it: /run/user/UID inside."""
        path = self.folder / "run" / "user" / str(uid)
        path.mkdir(mode=0o700)
        os.chown(path, uid, uid)
        return path

    def _make_folders(self) -> None:
        self.folder.chmod(0o711)
        self._etc.mkdir()
        self.write_users()
        groups = {"root": (0, []), "daemon": (1, []), "nogroup": (65534, []), **GROUPS}
        groups |= {name: (uid, []) for name, uid in UIDS.items() if uid}
        lines = [f"{name}:x:{gid}:{','.join(members)}" for name, (gid, members) in groups.items()]
        (self._etc / "group").write_text("\n".join(lines) + "\n")
        (self._etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        for file in self._etc.iterdir():
            file.chmod(0o644)
        for folder in (self.folder / "home", self.folder / "run", self.folder / "run" / "user"):
            folder.mkdir()
            folder.chmod(0o755)
        for name, uid in UIDS.items():
            self.home(name).mkdir(mode=0o700)
            os.chown(self.home(name), uid, uid)
        self.config.touch()

    def _enter_namespace(self) -> "subprocess.Popen[str]":
        """A process that keeps the namespace, and leaves when the test does, however that goes."""
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", self._mounts()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n", "the namespace could not be made"
        return holder

    def _mounts(self) -> str:
        etc = [f"mount --bind {self._etc / name} /etc/{name}" for name in os.listdir(self._etc)]
        run = [f"mount --bind {self.folder / 'run'} /run"]
        return "\n".join([*_opened(self.folder), *etc, *run, "echo ready", "exec cat > /dev/null"])

    # ── the daemon ──

    def start(
        self, *flags: str, gpus: str = SIMULATED, env: Mapping[str, str] | None = None
    ) -> None:
        """gpuqd --system as root; returns once it answers."""
        words = [sys.executable, "-P", "-m", "gpuq.daemon.main", "--system", "--gpus", gpus]
        words += ["--state-dir", str(self.state), "--socket", str(self.socket)]
        words += ["--config", str(self.config), *flags]
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                self._as_user("root", words, env or {}, "/", umask=0o077),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, "an answer of the daemon")
        self._has_served = True

    def kill(self) -> None:
        """As the kernel would under memory pressure: no chance to say goodbye."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop(self) -> int:
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(PATIENCE_S)

    def _answers(self) -> bool:
        assert self.daemon is not None
        assert self.daemon.poll() is None, self.log.read_text()
        try:
            return bool(self.client("root").call("ping"))
        except errors.DaemonUnreachable:
            return False

    # ── the people ──

    def client(self, user: str) -> Caller:
        """One for each user, kept as long as the box."""
        if user not in self._callers:
            words = [sys.executable, "-c", AGENT]
            pipe = subprocess.PIPE
            process = self.popen(user, *words, stdin=pipe, stdout=pipe, text=True)
            self._callers[user] = Caller(process)
        return self._callers[user]

    def run(
        self, user: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """One command of that user, with the environment of a fresh login, from the home. `cwd` and
        `umask` as the user would have set them."""
        command = self._as_user(user, list(words), env or {}, **_placed(options))
        options = {"text": True, "capture_output": True, "timeout": 60} | options
        return subprocess.run(command, check=False, **options)

    def popen(
        self, user: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[Any]":
        command = self._as_user(user, list(words), env or {}, **_placed(options))
        return subprocess.Popen(command, **options)

    def gpuq(self, user: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """One command line of that user, as typed."""
        return self.run(user, str(BIN / "gpuq"), *words, **options)

    def enter(self) -> list[str]:
        """Words before a command that runs as root inside."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    def _as_user(
        self,
        user: str,
        words: list[str],
        env: Mapping[str, str],
        cwd: str | None = None,
        umask: int = 0o022,
    ) -> list[str]:
        """The steps of a login: the namespace, the identity, an environment, a directory, a umask."""
        uid, home = UIDS[user], str(self.home(user))
        login = {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "PATH": PATH}
        environment = login | {"GPUQ_SOCKET": str(self.socket), **env}
        identity = [f"--reuid={uid}", f"--regid={uid}", "--init-groups"]
        bare = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        place = ["/bin/sh", "-c", f'umask {umask:o}; cd "$0" && exec "$@"', cwd or home]
        return [*self.enter(), "setpriv", *identity, "--", *bare, *place, *words]

    # ── the end ──

    def close(self) -> None:
        """Ends the jobs, the daemon, whoever else is inside, and the namespace with the last of
        them; what outlives that is a broken promise."""
        try:
            self._end_jobs_and_daemon()
        finally:
            for caller in self._callers.values():
                caller.close()
            for pid, start in self.inside().items():
                if pid != self._holder.pid:
                    processes.send(pid, signal.SIGKILL, start=start)
            until(lambda: not self.inside().keys() - {self._holder.pid}, "the end of who is inside")
            self._holder.communicate(timeout=PATIENCE_S)
            if root := cgroup.find_root(str(self.state)):
                cgroup.remove_root(root)  # of a daemon that could not
            shutil.rmtree(self.folder)

    def inside(self) -> dict[int, int]:
        """pid and start time of each process in the namespace."""
        namespace = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
        living = filter(None, map(processes.identity, processes.all_pids()))
        return {pid: start for pid, start in living if _namespace_of(pid) == namespace}

    def _end_jobs_and_daemon(self) -> None:
        if self.daemon is None or not self._has_served:
            return
        if self.daemon.poll() is not None:
            self.start()
        root = self.client("root")
        if jobs := [job["id"] for job in root.jobs()]:
            root.kill(jobs, grace_s=0)
            root.wait(jobs, timeout_s=PATIENCE_S)
        assert self.stop() == 0, self.log.read_text()


def _placed(options: dict[str, Any]) -> dict[str, Any]:
    """What is for the user's own shell, taken out of the options for subprocess."""
    return {name: options.pop(name) for name in ("cwd", "umask") if name in options}


def _namespace_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def _opened(folder: Path) -> list[str]:
    """Mounts that let every user reach the interpreter, its packages and this project, where one of
    them lies below a directory that only its owner may pass (a root's home): an empty one stands in
    its place, with nothing in it but these."""
    needed = {Path(path) for path in (sys.base_prefix, sys.prefix, PROJECT, folder)}
    hidden = {path: closed for path in needed if (closed := _closed_ancestor(path))}
    aside = {path: folder / f"aside-{n}" for n, path in enumerate(sorted(hidden))}
    lines = []
    for path, place in aside.items():
        place.mkdir()
        lines.append(f"mount --rbind {_quoted(path)} {_quoted(place)}")
    for closed in sorted(set(hidden.values())):
        lines.append(f"mount -t tmpfs -o mode=0755 tmpfs {_quoted(closed)}")
    for path, place in aside.items():
        lines.append(f"mkdir -p -m 0755 {_quoted(path)}")
        lines.append(f"mount --move {_quoted(place)} {_quoted(path)}")
    return lines


def _closed_ancestor(path: Path) -> Path | None:
    closed = [one for one in path.parents if not one.stat().st_mode & 0o001]
    return closed[-1] if closed else None


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


@contextmanager
def many_users() -> Iterator[ManyUsers]:
    """A box whose daemon is yet to be started. Where that cannot be had the test says what it does
    not see, and is skipped."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "setpriv"))):
        pytest.skip(
            "needs root, unshare, nsenter and setpriv: NOT seen here is that jobs of a root "
            "daemon run as the user who submitted them, and that users are kept apart"
        )
    with tempfile.TemporaryDirectory(prefix="gpuq-users-", ignore_cleanup_errors=True) as name:
        box = ManyUsers(Path(name))
        try:
            yield box
        finally:
            box.close()
