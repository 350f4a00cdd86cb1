"""A disk that takes nothing more: what runs goes on and its end is known, what is new is refused in
one clear sentence, and all is well again once there is room."""

import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.linux import processes
from tests.acceptance.faults import disks
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon, assert_all_well
from tests.conftest import until

MIB = 2**20
PATIENCE_S = 15.0


class Trouble:
    """Something that keeps the database from being written, from `begin` to `end`."""

    words = "the disk is full"

    def place(self, folder: Path) -> Path:
        """The state directory, on whatever disk it takes."""
        return folder / "state"

    def program(self, folder: Path) -> list[str | Path] | None:
        """gpuqd itself, or one that has been tampered with."""
        return None

    def begin(self, daemon: FaultyDaemon) -> None:
        raise NotImplementedError

    def end(self, daemon: FaultyDaemon) -> None:
        raise NotImplementedError

    def clean_up(self) -> None:
        pass


class Full(Trouble):
    """A job has written all of a small disk full."""

    def place(self, folder: Path) -> Path:
        self._disk = disks.tmpfs(folder / "disk", "12M")
        return self._disk.__enter__()

    def begin(self, daemon: FaultyDaemon) -> None:
        fill = 'dd if=/dev/zero of="$GPUQ_OUTPUT_DIR/fill" bs=4k 2>/dev/null'
        with daemon.client() as client:
            self._filler = client.submit(**daemon.job(f"{fill}; {_until_told(daemon)}; exit 0"))
        until(lambda: shutil.disk_usage(daemon.state).free == 0, "a full disk")

    def end(self, daemon: FaultyDaemon) -> None:
        (daemon.state / f"jobs/{self._filler}/1/output/fill").unlink()

    def clean_up(self) -> None:
        self._disk.__exit__(None, None, None)


class Limited(Trouble):
    """The daemon may not make a file any longer: the kernel refuses in the midst of a write."""

    words = "the disk refuses to write"

    def begin(self, daemon: FaultyDaemon) -> None:
        longest = max(file.stat().st_size for file in daemon.state.glob("gpuq.db*"))
        self._limit(daemon, longest)

    def end(self, daemon: FaultyDaemon) -> None:
        self._limit(daemon, resource.RLIM_INFINITY)

    def _limit(self, daemon: FaultyDaemon, size: int) -> None:
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Tampered(Trouble):
    """A daemon of which a part does not do its work while a file is there."""

    tampering: str

    def program(self, folder: Path) -> list[str | Path]:
        self._switch = folder / "trouble"
        return [sys.executable, "-P", "-c", self.tampering, self._switch]

    def begin(self, daemon: FaultyDaemon) -> None:
        self._switch.touch()

    def end(self, daemon: FaultyDaemon) -> None:
        self._switch.unlink()


class NoPages(Tampered):
    """The database may take no more pages."""

    tampering = """
import os, sys
switch = sys.argv.pop(1)
from gpuq.daemon.main import main
from gpuq.daemon.store.connection import Database
transaction = Database.transaction
def limited(self):
    if not self._is_open:
        most = 1 if os.path.exists(switch) else 2**30  # never less than it has
        list(self._db.execute(f"pragma max_page_count = {most}"))
    return transaction(self)
Database.transaction = limited
main()
"""


class NoSync(Tampered):
    """fsync fails, as it does where a disk goes away."""

    words = "the disk refuses to write"
    tampering = """
import os, sys
import apsw
switch = sys.argv.pop(1)
class Disk(apsw.VFS):
    def __init__(self):
        super().__init__("failing", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File("unix", name, flags)
class File(apsw.VFSFile):
    def xSync(self, flags):
        if os.path.exists(switch):
            error = apsw.IOError("no such device")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC
            raise error
        return super().xSync(flags)
disk = Disk()
from gpuq.daemon.main import main
main()
"""


@pytest.fixture(params=[Full, Limited, NoPages, NoSync], ids=lambda kind: kind.__name__)
def trouble(request: pytest.FixtureRequest) -> Iterator[Trouble]:
    trouble = request.param()
    yield trouble
    trouble.clean_up()


@pytest.fixture
def daemon(trouble: Trouble, make: MakeDaemon, tmp_path: Path) -> FaultyDaemon:
    daemon = make("--cpu-slots", "8", state=trouble.place(tmp_path), start=False)
    daemon.program = trouble.program(tmp_path) or daemon.program
    return daemon.start()


def test_nothing_is_lost_where_the_disk_takes_nothing(
    daemon: FaultyDaemon, trouble: Trouble
) -> None:
    with daemon.client() as client:
        job, pid, go = _hold(daemon, "exit 7")
        trouble.begin(daemon)
        accepted, refusal = _submit_until_refused(daemon)
        assert trouble.words in refusal
        assert "nothing was changed" in refusal
        assert client.job(job)["state"] == "running", "questions are answered"
        go.touch()
        until(lambda: processes.identity(pid) is None, "its end")
        until(lambda: _is_heard(daemon, job), "its end, or that this could not be written down")
        trouble.end(daemon)
        if not isinstance(trouble, Limited):  # which is found to be over by itself
            accepted.append(client.submit(**daemon.job()))
        ended = client.wait([job], timeout_s=PATIENCE_S)[0]
        assert ended["exit_code"] == 7
        others = range(job + 1, daemon.last_id() + 1)
        ended = client.wait(others, timeout_s=PATIENCE_S) if others else []
    assert [one["exit_code"] for one in ended] == [0] * len(ended)
    assert len(daemon.runs(*accepted)) == len(accepted)


@pytest.mark.parametrize("trouble", [Full, Limited], indirect=True)
def test_nor_where_the_daemon_is_killed_meanwhile(daemon: FaultyDaemon, trouble: Trouble) -> None:
    job, pid, go = _hold(daemon, "exit 7")
    trouble.begin(daemon)
    accepted, _ = _submit_until_refused(daemon)
    daemon.kill()
    go.touch()
    until(lambda: processes.identity(pid) is None, "its end")
    with daemon.kept():
        time.sleep(1)  # it cannot write, and may say so and leave; it is started again and again
        if isinstance(trouble, Full):
            trouble.end(daemon)
    with daemon.client() as client:
        assert client.wait([job], timeout_s=PATIENCE_S)[0]["exit_code"] == 7
        accepted.append(client.submit(**daemon.job()))
        ended = client.wait(accepted, timeout_s=PATIENCE_S)
    assert [one["exit_code"] for one in ended] == [0] * len(accepted)


def _hold(daemon: FaultyDaemon, then: str, **options: Any) -> tuple[int, int, Path]:
    """(job, pid, the file that lets it go on)."""
    with daemon.client() as client:
        job = client.submit(**daemon.job(f"{_until_told(daemon)}; {then}", **options))
        daemon.at_work(job)
        return job, client.job(job)["pid"], daemon.folder / "go"


def _is_heard(daemon: FaultyDaemon, job: int) -> bool:
    with daemon.client() as client:
        is_ended = client.job(job)["state"] == "ended"
    return is_ended or "the database cannot be written" in daemon.log.read_text()


def _until_told(daemon: FaultyDaemon) -> str:
    return f"while [ ! -e {daemon.folder}/go ]; do sleep 0.02; done"


def _submit_until_refused(daemon: FaultyDaemon) -> tuple[list[int], str]:
    """The jobs that were taken, for there may be some room left, and the words of the refusal."""
    accepted: list[int] = []
    while len(accepted) < 100:
        asked = daemon.gpuq("submit", "-g", "0", "--", *daemon.job()["argv"])
        if asked.returncode:
            assert asked.returncode == 1
            assert asked.stdout == ""
            assert len(asked.stderr.strip().splitlines()) == 1, asked.stderr
            return accepted, asked.stderr
        accepted.append(int(asked.stdout))
    raise AssertionError("a hundred submits were taken on a full disk")


def test_a_daemon_that_finds_no_room_says_so_in_one_line(make: MakeDaemon, tmp_path: Path) -> None:
    with disks.tmpfs(tmp_path / "disk", "1M") as state:
        daemon = make(state=state, start=False)
        _fill(state / "fill", but_for_bytes=0)
        daemon.spawn()
        assert daemon.process is not None
        assert daemon.process.wait(10) == 1
        told = daemon.log.read_text().splitlines()
        assert len(told) == 1, told
        assert "the disk is full" in told[0]
        assert str(state) in told[0]
        (state / "fill").unlink()
        daemon.start()
        assert_all_well(daemon)
        daemon.end()


def test_no_job_that_waits_is_started_on_a_full_disk_to_fail_there(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """There is room for a commit in what the database has taken already, and none for a job."""
    with disks.tmpfs(tmp_path / "disk", "12M") as state:
        daemon = make("--cpu-slots", "4", state=state)
        with daemon.client() as client:
            client.wait(client.submit_many([daemon.job()] * 100), timeout_s=PATIENCE_S)
            _, _, go = _hold(daemon, "exit 7", gpus=2)
            waiting = client.submit_many([daemon.job("exit 3", gpus=2)] * 5)
            fill = state / "fill"
            _fill(fill, but_for_bytes=16 * 1024)
            go.touch()
            until(lambda: "is full; jobs wait" in daemon.log.read_text(), "a word about it")
            first = waiting[0]
            until(lambda: "is full" in client.job(first)["reason"], "a word to who waits")
            assert daemon.runs(*waiting) == []
            fill.unlink()
            ended = client.wait(waiting, timeout_s=PATIENCE_S)
        assert [(job["exit_code"], job["attempt"]) for job in ended] == [(3, 1)] * 5
        assert_all_well(daemon)
        daemon.end()


def test_a_daemon_whose_own_log_finds_no_room_lives_on(make: MakeDaemon, tmp_path: Path) -> None:
    with disks.tmpfs(tmp_path / "disk", "12M") as state:
        daemon = make(state=state, start=False)
        daemon.log = state / "gpuqd.log"
        daemon.start()
        log_before = daemon.log.read_text()
        with daemon.client() as client:
            _fill(state / "fill", but_for_bytes=0)
            for _ in range(20):
                os.kill(daemon.pid, signal.SIGHUP)  # of which it tells in its log
                client.call("ping")
            assert daemon.process is not None
            assert daemon.process.poll() is None
            (state / "fill").unlink()
            os.kill(daemon.pid, signal.SIGHUP)
            until(lambda: daemon.log.read_text() != log_before, "a line in its log")
            after = client.submit(["sh", "-c", "exit 3"], gpus=0)
            assert client.wait([after], timeout_s=PATIENCE_S)[0]["exit_code"] == 3
        assert_all_well(daemon)
        daemon.end()


def _fill(file: Path, *, but_for_bytes: int) -> None:
    with file.open("wb", buffering=0) as all_of_it:
        try:
            while all_of_it.write(bytes(4096)):
                pass
        except OSError:
            all_of_it.truncate(all_of_it.tell() - but_for_bytes)


def test_a_broken_disk_is_told_of_and_nothing_is_run_twice_on_it(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """How a job ended could not be written anywhere; that it ran, could."""
    place = tmp_path / "disk"
    daemon = make("--cpu-slots", "8", state=place, start=False)
    with disks.ext4(place, "16M"):
        daemon.start()
        job, pid, go = _hold(daemon, "exit 7")
        disks.break_ext4(place)
        accepted, refusal = _submit_until_refused(daemon)
        assert "the disk refuses to write" in refusal
        assert str(place) in refusal
        with daemon.client() as client:
            assert client.job(job)["state"] == "running"
        go.touch()
        until(lambda: processes.identity(pid) is None, "its end")
        daemon.kill()
        until(lambda: not daemon.family(), "the end of its runner")
    with disks.ext4(place, "16M"):
        daemon.start()
        with daemon.client() as client:
            assert client.wait([job], timeout_s=PATIENCE_S)[0]["outcome"] == "lost"
            accepted.append(client.submit(**daemon.job()))
            ended = client.wait(accepted, timeout_s=PATIENCE_S)
        assert [one["exit_code"] for one in ended] == [0] * len(accepted)
        assert daemon.last_id() == accepted[-1], "what was refused is not there"
        assert daemon.runs(job, *accepted) == [f"{one}.1" for one in (job, *accepted)]
        assert_all_well(daemon)
        daemon.end()


def test_a_job_that_fills_the_disk_with_its_log_makes_room_again(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """Its log is cut shorter than it may be long, until there is room for the queue."""
    with disks.tmpfs(tmp_path / "disk", "24M") as state:
        daemon = make(state=state)
        with daemon.client() as client:
            job = client.submit(["sh", "-c", "yes | head -c 60M; exit 5"], gpus=0)
            assert client.wait([job], timeout_s=PATIENCE_S)[0]["exit_code"] in (5, 1)
            after = client.submit(["sh", "-c", "exit 3"], gpus=0)
            assert client.wait([after], timeout_s=PATIENCE_S)[0]["exit_code"] == 3
        assert_all_well(daemon)
        daemon.end()
