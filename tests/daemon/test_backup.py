"""gpuqd backup: a whole copy as of one moment, or none at all."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from gpuq.daemon.store import backup
from gpuq.daemon.store.audit import Damaged
from gpuq.daemon.store.backup import Copied, back_up
from gpuq.daemon.upkeep.backup import _Progress
from gpuq.errors import GpuqError, NothingMatched, UsageError
from tests.conftest import BIN, Daemon, until
from tests.daemon.history import make_history, open_store, submit


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "gpuq.db"
    path.parent.mkdir()
    make_history(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "copy.db"


@pytest.fixture(autouse=True)
def folder(file: Path) -> Path:
    file.parent.mkdir()
    return file.parent


def copy(database: Path, file: Path, *, force: bool = False) -> Copied:
    return back_up(str(database), str(file), force=force, progress=lambda done, total: None)


def jobs_in(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        return int(db.execute("select count(*) from jobs").fetchone()[0])


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_it_says_what_it_copied(database: Path, file: Path) -> None:
    copied = copy(database, file)
    assert copied == Copied(jobs=8, size_bytes=file.stat().st_size)
    assert jobs_in(file) == 8
    assert names(file.parent) == ["copy.db"]


def test_the_copy_is_its_owners_alone(database: Path, file: Path) -> None:
    before = os.umask(0)
    try:
        copy(database, file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_copy_passes_check(database: Path, file: Path) -> None:
    copy(database, file)
    ran = subprocess.run(
        [BIN / "gpuqd", "check", file], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout[:11]) == (0, "all is well"), ran.stdout


def test_what_stands_in_the_log_alone_is_in_the_copy(database: Path, file: Path) -> None:
    with closing(open_store(database)) as store:
        submit(store, 5)
        assert os.path.getsize(f"{database}-wal")
        assert copy(database, file).jobs == 13
        with store.transaction():
            submit(store)  # and what is not yet committed is not
            assert copy(database, file, force=True).jobs == 13
    assert jobs_in(file) == 13


def test_it_is_as_of_one_moment(
    database: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is committed while it copies, page after page."""
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 3)
    with closing(open_store(database)) as store:
        submit(store, 40, argv=(b"x" * 20_000,))
        before = store.database.value("select count(*) from jobs")
        steps = []

        def submit_more(done: int, total: int) -> None:
            steps.append(done)
            if len(steps) < 60:
                submit(store, 2)

        copied = back_up(str(database), str(file), force=False, progress=submit_more)
        assert store.database.value("select count(*) from jobs") > before + 100
    assert len(steps) > 60
    assert copied.jobs == jobs_in(file) == before


def test_a_daemon_that_starts_meanwhile_spoils_nothing(
    database: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none runs the file is read as one that nobody writes; then somebody does."""
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 5)
    tries = []

    def start_and_stop(done: int, total: int) -> None:
        if not tries:
            tries.append(done)
            with closing(open_store(database)) as store:
                submit(store, 3)

    assert back_up(str(database), str(file), force=False, progress=start_and_stop).jobs == 11
    assert jobs_in(file) == 11


# ─── what lies there already ─────────────────────────────────────────────────────────────────────


def test_a_file_that_is_there_is_not_replaced_unasked(database: Path, file: Path) -> None:
    file.write_text("my thesis")
    with pytest.raises(UsageError, match=r"is there already.*--force"):
        copy(database, file)
    assert file.read_text() == "my thesis"
    assert copy(database, file, force=True).jobs == jobs_in(file)
    assert names(file.parent) == ["copy.db"]


def test_a_file_that_comes_meanwhile_is_not_replaced(database: Path, file: Path) -> None:
    def put_something_there(done: int, total: int) -> None:
        file.write_text("my thesis")

    with pytest.raises(UsageError, match="is there already"):
        back_up(str(database), str(file), force=False, progress=put_something_there)
    assert (file.read_text(), names(file.parent)) == ("my thesis", ["copy.db"])


def link(database: Path, file: Path) -> None:
    os.link(database, file)


IN_THE_WAY: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "the database itself": (link, "is the database itself"),
    "a link to it": (lambda database, file: file.symlink_to(database), "is the database itself"),
    "a directory": (lambda database, file: file.mkdir(), "is a directory"),
    "a pipe": (lambda database, file: os.mkfifo(file), "is no regular file"),
    "a database in use": (
        lambda database, file: Path(f"{file}-wal").write_bytes(b"frames"),
        "a database in use",
    ),
    "no directory": (lambda database, file: file.parent.rmdir(), "there is no directory"),
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_in_the_way_stays(database: Path, file: Path, kind: str) -> None:
    make, why = IN_THE_WAY[kind]
    make(database, file)
    before = database.read_bytes()
    with pytest.raises(UsageError, match=why):
        copy(database, file, force=True)
    assert database.read_bytes() == before
    assert not Path(f"{file}.partial").exists()


def test_what_a_killed_backup_left_is_taken_away(database: Path, file: Path) -> None:
    Path(f"{file}.partial").write_text("half a copy")
    copy(database, file)
    assert (jobs_in(file), names(file.parent)) == (8, ["copy.db"])


def test_two_backups_to_one_file_do_not_mix(database: Path, file: Path) -> None:
    told: list[str] = []

    def begin_another(done: int, total: int) -> None:
        if not told:
            with pytest.raises(GpuqError, match="another backup is writing") as refused:
                copy(database, file)
            told.append(str(refused.value))

    back_up(str(database), str(file), force=False, progress=begin_another)
    assert (len(told), jobs_in(file)) == (1, 8)


# ─── trouble ─────────────────────────────────────────────────────────────────────────────────────


def test_without_a_database_there_is_no_backup(tmp_path: Path, file: Path) -> None:
    with pytest.raises(NothingMatched, match="there is no database"):
        back_up(str(tmp_path / "gpuq.db"), str(file), force=False, progress=lambda d, t: None)
    assert names(file.parent) == []


def test_a_damaged_database_is_not_backed_up(database: Path, file: Path) -> None:
    """A copy of damage, under the name of a backup, would replace good ones in time."""
    with database.open("r+b") as damaged:
        for page in range(5, 20):
            damaged.seek(page * 4096)
            damaged.write(b"\x5a" * 4096)
    with pytest.raises(Damaged, match="damaged"):
        copy(database, file)
    assert names(file.parent) == []


def test_what_only_a_look_at_the_copy_finds_is_found(database: Path, file: Path) -> None:
    """An index that does not agree with its table can be copied without any trouble."""
    with closing(apsw.Connection(str(database))) as db:
        db.execute("pragma writable_schema = on")
        db.execute(
            "update sqlite_schema set sql = 'create index jobs_group on jobs (spec)' "
            "where name = 'jobs_group'"
        )
    with pytest.raises(Damaged, match="jobs_group"):
        copy(database, file)
    assert names(file.parent) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "gpuq-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a small file system may not be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_nothing_is_left(database: Path, small_disk: Path) -> None:
    ran = subprocess.run(
        [BIN / "gpuqd", "--state-dir", database.parent, "backup", small_disk / "copy.db"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert f"the disk of {small_disk} is full. Nothing was left behind" in ran.stderr
    assert names(small_disk) == []


SLOWLY = """
import sys, time
from gpuq.daemon.store import backup
backup.PAGES_PER_STEP = 1
def wait(done, total):
    print(done, flush=True)
    time.sleep(60)
backup.back_up(sys.argv[1], sys.argv[2], force=False, progress=wait)
"""


def test_a_killed_backup_is_none(database: Path, file: Path) -> None:
    command = [sys.executable, "-c", SLOWLY, str(database), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert names(file.parent) == ["copy.db.partial"]
    copy(database, file)
    assert names(file.parent) == ["copy.db"]


# ─── the command ─────────────────────────────────────────────────────────────────────────────────


def test_a_busy_daemon_is_backed_up_and_brought_back(daemon: Daemon, file: Path) -> None:
    stop = threading.Event()
    answered: list[int] = []

    def keep_busy() -> None:
        with daemon.client() as client:
            while not stop.is_set():
                answered.append(client.submit(["true"], gpus=0))

    worker = threading.Thread(target=keep_busy)
    worker.start()
    try:
        until(lambda: len(answered) > 20, "a queue")
        before = len(answered)
        ran = daemon.gpuq("daemon", "backup", str(file))
    finally:
        stop.set()
        worker.join()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"backed up {daemon.state}/gpuq.db to {file}: " in ran.stdout
    assert "Logs and outputs of jobs are not in it" in ran.stdout
    assert jobs_in(file) >= before, "what was answered by then is in it"
    assert daemon.gpuq("daemon", "check", str(file)).returncode == 0

    with daemon.client() as client:  # as --help tells it
        until(lambda: not client.jobs(), "the end of all jobs")
    daemon.stop()
    shutil.copy(file, daemon.state / "gpuq.db")
    daemon.start()
    with daemon.client() as client:
        until(lambda: not client.jobs(), "the end of those that had not ended then")
        assert len(client.jobs(all=True)) == jobs_in(file)


def test_a_name_is_relative_to_where_it_was_typed(daemon: Daemon, folder: Path) -> None:
    ran = daemon.gpuq("daemon", "backup", "here.db", cwd=folder)
    assert (ran.returncode, names(folder)) == (0, ["here.db"]), ran.stderr
    refused = daemon.gpuq("daemon", "backup", "here.db", cwd=folder)
    assert refused.returncode == 2
    assert "gpuqd: here.db is there already" in refused.stderr


def test_progress_is_told_where_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = _Progress(lambda: now)
    progress(1, 100)
    progress.end()
    assert capsys.readouterr().err == "", "what is over at once needs no progress"
    now = 1.0
    progress(25 * 2**20, 100 * 2**20)
    progress(26 * 2**20, 100 * 2**20)
    progress.end()
    assert capsys.readouterr().err == "\r25 % of 100M\x1b[K\r\x1b[K"


def test_it_does_not_hold_up_the_daemon(daemon: Daemon, file: Path) -> None:
    """A submit during a backup takes no longer than at other times."""
    with daemon.client() as client:
        for _ in range(20):
            client.submit_many([{"argv": ["true", "x" * 100_000], "gpus": 0}] * 2)
        copying = subprocess.Popen(
            [BIN / "gpuq", "daemon", "backup", file], env=daemon.environment, stdout=subprocess.PIPE
        )
        slowest = 0.0
        while copying.poll() is None:
            began = time.monotonic()
            client.submit(["true"], gpus=0)
            slowest = max(slowest, time.monotonic() - began)
        copying.communicate()
        until(lambda: not client.jobs(), "the end of all jobs")
    assert copying.returncode == 0
    assert slowest < 2.0
