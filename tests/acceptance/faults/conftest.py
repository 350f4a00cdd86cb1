"""gpuqd in trouble: a daemon that dies at a step and is started again, and what must hold after.

Each test of this folder ends with `assert_all_well`, and its row stands in the table that is printed
at the end of the run: the fault, how often it was tried, what came of it.
"""

import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from gpuq.daemon.check import command as check
from gpuq.daemon.linux import processes
from tests.conftest import BIN, PATIENCE_S, Daemon, until

MARK = "FAULTS_OF"  # an innocent variable by which all of a daemon's own processes are found

# ── a daemon that is started again ──


class FaultyDaemon(Daemon):
    """gpuqd with a folder of faults. While it is `kept`, it is started again whenever it dies, as
    systemd would do."""

    def __init__(
        self,
        folder: Path,
        gpus: str = "sim:2x24G",
        flags: tuple[str, ...] = (),
        state: Path | None = None,
    ) -> None:
        super().__init__(folder, gpus)
        if state is not None:
            self.state = state
            self.environment["GPUQ_STATE_DIR"] = str(state)
        self.folder = folder
        self.faults = folder / "faults"
        self.faults.mkdir(exist_ok=True)
        self.ran = folder / "ran"
        self.flags = flags
        self.program: list[str | Path] = [BIN / "gpuqd"]
        self.own: dict[str, str] = {}  # variables of the daemon alone
        self.deaths = 0
        self._is_kept = threading.Event()

    def spawn(self) -> None:
        """Starts it and does not wait for it. The one before is dead by now."""
        if self.process is not None:
            self.process.wait(PATIENCE_S)
        command = [*self.program, "--state-dir", self.state, "--gpus", self.gpus, *self.flags]
        own = {"GPUQ_FAULTS": str(self.faults), MARK: str(self.folder)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment | own | self.own,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def start(self, *flags: str) -> "FaultyDaemon":
        assert not flags, "they are given once and for all"
        self.spawn()
        until(self._answers, f"the daemon (log: {self.log.read_text()})")
        return self

    def kill(self) -> None:
        assert self.process is not None
        process = self.process  # it may be replaced while we wait
        process.kill()
        process.wait()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Started again whenever it dies, from here to the end of the block; then it answers."""
        self._is_kept.set()
        keeper = threading.Thread(target=self._keep)
        keeper.start()
        try:
            yield
        finally:
            self._is_kept.clear()
            keeper.join()
        until(self._is_there, f"the daemon (log: {self.log.read_text()})")

    def _keep(self) -> None:
        while self._is_kept.is_set():
            assert self.process is not None
            if self.process.poll() is not None:
                self.deaths += 1
                self.spawn()
            time.sleep(0.002)

    def _is_there(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:  # killed once more while nobody kept it
            self.spawn()
        return self._answers()

    @contextmanager
    def dying_at(self, step: str) -> Iterator[None]:
        """Whoever passes the step first in this block dies there, and the daemon comes back."""
        file = self.faults / step
        file.touch()
        try:
            with self.kept():
                yield
                until(lambda: not file.exists(), f"a passage of {step}")
        finally:
            file.unlink(missing_ok=True)

    def client(self) -> Client:
        """Connected, so that it waits for a daemon that dies under it."""
        client = super().client()
        if self.process is not None and self.process.poll() is None:
            client.call("ping")
        return client

    # ── what jobs leave ──

    def job(self, then: str = "", **options: Any) -> dict[str, Any]:
        """A job that notes its number and its attempt, and then does what the shell is told."""
        note = f"echo $GPUQ_JOB_ID.$GPUQ_ATTEMPT >> {self.ran}"
        return {"argv": ["/bin/sh", "-c", f"{note}; {then}"], "gpus": 0, **options}

    def runs(self, *jobs: int) -> list[str]:
        """Each time that one of these jobs ran, as JOB.ATTEMPT, in order."""
        lines = self.ran.read_text().split() if self.ran.exists() else []
        return [line for line in lines if int(line.split(".")[0]) in jobs]

    def last_id(self) -> int:
        with self.database() as db:
            return int(db.execute("select coalesce(max(id), 0) from jobs").fetchone()[0])

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """To look into, while the daemon uses it."""
        with closing(sqlite3.connect(f"file:{self.state}/gpuq.db?mode=ro", uri=True)) as db:
            yield db

    def at_work(self, job: int) -> None:
        """Waits until the job has noted that it runs, and the daemon knows that."""
        until(lambda: self.runs(job), f"the first deed of job {job}")
        with self.client() as client:
            until(lambda: client.job(job)["state"] == "running", f"job {job} to run")

    # ── its processes ──

    def family(self) -> list[int]:
        """The pids of the daemon, launchers, runners and probes that were started from here."""
        mark = f"{MARK}={self.folder}".encode()
        return [pid for pid in processes.all_pids() if mark in _environ(pid)]

    def kinds(self) -> Counter[str]:
        """How many there are of each kind."""
        return Counter(self.kind(pid) for pid in self.family())

    def kind(self, pid: int) -> str:
        words = _words(pid)
        if b"gpuq.daemon.gpus.probe" in words:
            return "probe"
        if b"gpuq.daemon.attempt.launcher" in words:
            above = (processes.ancestors(pid) or [0])[0]
            return "runner" if above != self.pid else "launcher"
        return "daemon" if processes.identity(pid) else "gone"

    def one(self, kind: str) -> int:
        """The pid of the one process of that kind."""
        pids: list[int] = until(lambda: [p for p in self.family() if self.kind(p) == kind], kind)
        assert len(pids) == 1, f"{len(pids)} of the kind {kind}"
        return pids[0]

    def runner_of(self, job: int) -> int:
        with self.client() as client:
            pid = until(lambda: client.job(job)["pid"], f"job {job} to run")
        return processes.ancestors(pid)[0]

    def end(self) -> None:
        try:
            super().end()
            until(lambda: not self.family(), f"the end of {self.kinds()}")
            assert self.process is None or not self.traces()
            self.process = None
        except BaseException:
            self.end_by_force()  # it is told, and is not to be the next test's trouble
            raise

    def traces(self) -> list[str]:
        """What lies about once it has left: control groups, and temporary directories of jobs. Those
        of a job whose runner died are removed later."""
        with self.database() as db:
            tmp_dirs = db.execute(
                "select '/tmp/gpuq-' || job || '-' || substr(nonce, 1, 8) from attempts "
                "where lost is null"
            ).fetchall()
        paths = [*self.groups(), *(path for (path,) in tmp_dirs)]
        return [path for path in paths if os.path.exists(path)]

    def groups(self) -> list[str]:
        """The directory of its control groups, if it has one."""
        return re.findall(r'"root": "(/.*?)"', self.log.read_text())[-1:]

    def end_by_force(self) -> None:
        for group in self.groups():
            with suppress(OSError):
                Path(group, "cgroup.kill").write_text("1")
        for pid in {*self.family(), *(pid for pid, _ in self.left())}:
            for one, start in {pid: 0, **processes.descendants(pid)}.items():
                own = processes.identity(one)
                processes.send(one, signal.SIGKILL, start=start or (own[1] if own else 0))
        if self.process is not None:
            self.process.wait()


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


MakeDaemon = Callable[..., FaultyDaemon]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Makes daemons; each is well in the end, and nothing is left of it."""
    made: list[FaultyDaemon] = []

    def start(
        *flags: str, gpus: str = "sim:2x24G", state: Path | None = None, start: bool = True
    ) -> FaultyDaemon:
        daemon = FaultyDaemon(tmp_path / f"daemon{len(made)}", gpus, flags, state)
        made.append(daemon)
        return daemon.start() if start else daemon

    yield start
    for daemon in made:
        try:
            if daemon.process is not None and daemon.process.poll() is None:
                assert_all_well(daemon)
        finally:
            daemon.end()


@pytest.fixture
def faulty(make: MakeDaemon) -> FaultyDaemon:
    """A running one, with two simulated GPUs."""
    return make()


# ── what must hold ──


def assert_all_well(daemon: FaultyDaemon) -> None:
    """Every job that was submitted is there and ended once, each attempt is explained by events, no
    GPU is held, the database is whole, and only the daemon's own processes are left."""
    broken = until_same(lambda: broken_promises(daemon), [])
    assert not broken, "\n".join(broken)


def assert_checked(daemon: FaultyDaemon) -> None:
    """As a person has it checked. It looks at what `assert_all_well` looks at, in a second."""
    command = [BIN / "gpuqd", "check", "--state-dir", daemon.state]
    said = subprocess.run(
        command, env=daemon.environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def until_same(look: Callable[[], Any], wanted: Any, timeout_s: float = 5.0) -> Any:
    """What is seen in the end, which is what was wanted if it came in time."""
    deadline = time.monotonic() + timeout_s
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return seen


def broken_promises(daemon: FaultyDaemon) -> list[str]:
    """A sentence for each: those that `gpuqd check` holds, and that all has ended by now."""
    place = str(daemon.state), str(daemon.state / "gpuq.sock")
    seen = check.look_once(f"{daemon.state}/gpuq.db", place, whole=True)
    found = [breach.sentence for breach in seen.breaches]
    with daemon.database() as db:
        if left := db.execute("select id, state from jobs where state <> 'ended'").fetchall():
            found.append(f"jobs have not ended: {left}")
        if held := db.execute("select gpu, job from leases where state = 'active'").fetchall():
            found.append(f"leases are held: {held}")
    if "Traceback" in (log := daemon.log.read_text()):
        found.append(f"a fault of ours: {log[log.index('Traceback') :][:3000]}")
    if (kinds := daemon.kinds()) != Counter(daemon=1, launcher=1, runner=1, probe=1):
        found.append(f"processes of its own: {dict(kinds)}")
    if others := [one for one in daemon.left() if one[0] != daemon.pid]:
        found.append(f"processes of jobs: {others}")
    return found


# ── the table, which tests/at_the_end.py prints ──


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Its properties come along to the process that tells, where the tests go on several."""
    outcome: Any = yield
    outcome.get_result().user_properties.append(("fault", _fault(item)))


def _fault(item: pytest.Item) -> str:
    """What the test is called, and which step or kind of it was tried."""
    name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    callspec = getattr(item, "callspec", None)
    return name if callspec is None else f"{name}: {callspec.id}"


@pytest.fixture
def say(record_property: Callable[[str, Any], None]) -> Callable[..., None]:
    """Puts how often a fault was tried, and figures, into the table."""

    def put(tried: int = 1, **figures: Any) -> None:
        record_property("tried", tried)
        if figures:
            words = (f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
            record_property("figures", ", ".join(words))

    return put
