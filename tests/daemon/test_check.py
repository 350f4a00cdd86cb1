"""gpuqd check: all is well where it is, and each promise that is broken gets its sentence."""

import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from gpuq import config
from gpuq.client import Client
from gpuq.daemon.check import command as check
from gpuq.daemon.check import evidence
from gpuq.daemon.check.command import Findings
from gpuq.daemon.check.promises import Breach
from gpuq.daemon.check.scene import Marked, Scene
from gpuq.daemon.linux import processes
from gpuq.daemon.state_dir import StateLock
from gpuq.daemon.store.audit import open_audit
from gpuq.daemon.store.connection import StoreDamaged, StoreRefused
from gpuq.errors import DaemonUnreachable, GpuqError
from tests.conftest import BIN, Daemon, until
from tests.daemon.history import (
    AGAIN,
    DELAYED,
    ENDED,
    FORGOTTEN,
    GPUS,
    LOST,
    NOW,
    RUNNER,
    RUNNING,
    make_history,
    open_store,
    submit,
)

BOOT = processes.boot_id()
GROUP = "/sys/fs/cgroup/gpuq-test"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "gpuq.db"
    make_history(path)
    return path


@pytest.fixture
def database(history: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(history, tmp_path / "gpuq.db"))


def by_hand(path: Path, *statements: str) -> None:
    """As nobody but a fault would: past every key, check and trigger of the schema that refuses it."""
    with closing(apsw.Connection(str(path))) as db:
        list(db.execute("pragma ignore_check_constraints = on"))
        triggers = [
            row[0]
            for row in db.execute("select name from sqlite_schema where type = 'trigger'")
            if not row[0].startswith("count_")
        ]
        for trigger in triggers:
            db.execute(f"drop trigger {trigger}")
        for statement in statements:
            db.execute(statement)


def sentences(path: Path, scene: Scene | None = None) -> list[str]:
    with open_audit(str(path)) as audit:
        found = check.judge(audit, scene, whole=True)
    return [breach.sentence for breach in found.breaches]


# ─── what the rows say ───────────────────────────────────────────────────────────────────────────


def test_all_is_well_where_it_is(database: Path) -> None:
    with open_audit(str(database)) as audit:
        found = check.judge(audit, None, whole=True)
    assert found.breaches == []
    assert (found.jobs, found.attempts) == (8, 7)
    assert found.events > 20


BROKEN_BY_HAND: dict[str, tuple[str, str]] = {
    "a job is lost": (
        "delete from jobs where id = 1",
        "job 1 was accepted and is not there any more",
    ),
    "the last job is lost, and its id would be given again": (
        f"delete from attempts where job = {LOST}; delete from jobs where id = {LOST}; "
        "update sqlite_sequence set seq = 8 where name = 'jobs'",
        "job 9 exists, and ids are given out from 9 on: again",
    ),
    "an id that is known from its row alone": (
        "update sqlite_sequence set seq = 8 where name = 'jobs'; delete from events where job = 1",
        "job 9 exists, and ids are given out from 9 on: again",
    ),
    "a job that was forgotten and nobody noted it": (
        "delete from pruned",
        f"job {FORGOTTEN} was accepted and is not there any more",
    ),
    "a job that was forgotten is there": (
        "update pruned set first = 6",
        "job 6 was forgotten, and is there",
    ),
    "several jobs are lost": (
        "delete from attempts where job in (2, 3); delete from jobs where id in (2, 3)",
        "jobs 2 to 3 were accepted and are not there any more",
    ),
    "an attempt is missing": (
        f"delete from attempts where job = {AGAIN} and attempt = 1",
        f"attempt 1 of job {AGAIN} is missing",
    ),
    "an attempt more than is counted": (
        f"update jobs set attempt = 1 where id = {AGAIN}",
        f"job {AGAIN} counts 1, and there is attempt 2 of it",
    ),
    "an active job whose attempt has ended": (
        f"update attempts set ended_at = 5 where job = {RUNNING}",
        f"job {RUNNING} is running, and its attempt 1 has ended",
    ),
    "an ended job whose attempt has not": (
        f"update attempts set ended_at = null where job = {ENDED}",
        f"job {ENDED} has ended, and its attempt 1 has not ended",
    ),
    "a queued job whose attempt has not": (
        f"update attempts set ended_at = null where job = {DELAYED}",
        f"job {DELAYED} is queued, and its attempt 1 has not ended",
    ),
    "tried too often": (
        f"update specs set retries = 0 where id = (select spec from jobs where id = {AGAIN})",
        f"job {AGAIN} may be tried 1 times, and was 2 times",
    ),
    "run twice, and nothing says why": (
        "insert into events (at, kind, job, attempt, actor, cause) "
        "values (1, 'starting', 2, 1, 'x', 'x')",
        "attempt 1 of job 2 has 2 starts and 0 returns among its events",
    ),
    "tried again, and nothing says why": (
        f"update events set kind = 'other' where kind = 'backoff' and job = {AGAIN}",
        f"job {AGAIN} was tried again after attempt 1 of job {AGAIN}, and no event says why",
    ),
    "ended twice": (
        f"insert into events (at, kind, job, actor, cause) values (1, 'ended', {ENDED}, 'x', 'x')",
        f"job {ENDED} ended 2 times, by its events",
    ),
    "an end that nobody told": (
        f"update events set kind = 'other' where kind = 'ended' and job = {ENDED}",
        f"job {ENDED} has ended, and no event says so",
    ),
    "ended, and back": (
        f"insert into events (at, kind, job, actor, cause) values (1, 'ended', {RUNNING}, 'x', 'x')",
        f"job {RUNNING} is running, and an event says that it ended",
    ),
    "a lease of an attempt that has ended": (
        f"update leases set job = {ENDED} where job = {RUNNING}",
        f"GPU GPU-0 is leased to job {ENDED}, attempt 1, which has ended",
    ),
    "a lease of no attempt": (
        f"update leases set attempt = 7 where job = {RUNNING}",
        f"GPU GPU-0 is leased to job {RUNNING}, attempt 7, which does not exist",
    ),
    "a lease of an attempt that is over": (
        f"update leases set attempt = 1 where job = {AGAIN}; "
        f"update attempts set ended_at = null where job = {AGAIN}",
        f"GPU GPU-1 is leased to job {AGAIN}, attempt 1, and the job is at attempt 2",
    ),
    "a GPU that cools down under a job": (
        f"update leases set state = 'cooling', cooling_mono = 1 where job = {RUNNING}",
        f"GPU GPU-0 is leased to job {RUNNING}, attempt 1, as cooling, and that has not ended",
    ),
    "a GPU that was given twice": (
        f"update leases set exclusive = 1 where job = {AGAIN}",
        f"GPU GPU-1 was given twice: job {AGAIN}, job 8, not all of them to share it",
    ),
    "a GPU without a lease": (
        f"delete from leases where job = {RUNNING}",
        f"job {RUNNING} has GPU GPU-0 and holds no lease of it",
    ),
    "an event is missing": ("delete from events where seq = 3", "event 3 is missing"),
    "the last events are missing": (
        "delete from events where seq > (select max(seq) - 2 from events)",
        "events {last-1} to {last} are missing",
    ),
    "an event is there that was removed": (
        """insert into facts values ('events_pruned_to', '{"seq": 4, "at": 2e9}')""",
        "event 1 is there, and was removed with all up to 4",
    ),
    "a row points to nothing": (
        "delete from environments",
        "rows of specs point to environments that are not there",
    ),
}


@pytest.mark.parametrize("case", BROKEN_BY_HAND)
def test_what_is_broken_gets_its_sentence(database: Path, case: str) -> None:
    statements, wanted = BROKEN_BY_HAND[case]
    with closing(sqlite3.connect(database)) as db:
        last = db.execute("select max(seq) from events").fetchone()[0]
    wanted = wanted.replace("{last-1}", str(last - 1)).replace("{last}", str(last))
    by_hand(database, statements)
    assert wanted in sentences(database)


def test_an_index_that_does_not_agree_is_damage(database: Path) -> None:
    by_hand(
        database,
        "pragma writable_schema = on; "
        "update sqlite_schema set sql = 'create index jobs_group on jobs (spec)' "
        "where name = 'jobs_group'",
    )
    found = check.look_once(str(database), None, whole=True)
    assert {breach.rule for breach in found.breaches} == {"damaged"}
    assert "jobs_group" in found.breaches[0].sentence
    assert not found.is_whole


def test_a_damaged_page_is_told_and_nothing_else(database: Path) -> None:
    with database.open("r+b") as file:
        for page in range(5, 20):
            file.seek(page * 4096)
            file.write(b"\x5a" * 4096)
    found = check.look_once(str(database), None, whole=True)
    assert {breach.rule for breach in found.breaches} == {"damaged"}


def test_of_events_that_were_removed_nothing_is_concluded(database: Path) -> None:
    """The starts of old attempts are told by nobody any more, and their rows are there."""
    with closing(open_store(database)) as store:
        assert store.pruned.prune_events(NOW + 10, 1000) > 8
    assert sentences(database) == []
    by_hand(database, "delete from jobs where id = 1")
    assert sentences(database) == ["job 1 was accepted and is not there any more"]


# ─── what the machine says to it ─────────────────────────────────────────────────────────────────


def a_scene(**changes: Any) -> Scene:
    """A daemon that looks after its three jobs."""
    daemon = Scene(
        state_dir="/state",
        boot_id=BOOT,
        boottime=1000.0,
        lock_pid=77,
        answers=True,
        answering_pid=77,
        alive={RUNNER[0]: RUNNER[1]},
    )
    return replace(daemon, **changes)


def marked(job: int, attempt: int = 1, **changes: Any) -> Marked:
    process = Marked(
        pid=501,
        start=RUNNER[1] + 1,
        uid=1000,
        name="python",
        job=job,
        attempt=attempt,
        nonce=f"{job:08x}{attempt:08x}",
        is_of_this_daemon=True,
    )
    return replace(process, **changes)


def test_a_daemon_that_looks_after_its_jobs_is_well(database: Path) -> None:
    seen = a_scene(
        marked=[
            marked(RUNNING),
            marked(AGAIN, 2),
            marked(ENDED, nonce="ab", is_of_this_daemon=False),
        ],
        groups={f"{GROUP}/{RUNNING}-1": [501], f"{GROUP}/{ENDED}-1": [], f"{GROUP}/900-5": [900]},
        alive={RUNNER[0]: RUNNER[1], 501: 100, 900: 5},
        job_folders=[ENDED, RUNNING, FORGOTTEN],
        record_folders=[(ENDED, 1)],
    )
    assert sentences(database, seen) == []


def test_a_stopped_daemon_leaves_the_truth_to_the_next(database: Path) -> None:
    stopped = a_scene(lock_pid=None, answers=False, answering_pid=None, alive={})
    assert sentences(database, stopped) == []


SEEN: dict[str, tuple[Scene, str]] = {
    "a runner is gone": (
        a_scene(alive={}),
        f"job {RUNNING} is held to run, and its runner (pid {RUNNER[0]}) is gone, "
        "which nobody has noticed",
    ),
    "another process has its pid": (
        a_scene(alive={RUNNER[0]: RUNNER[1] + 1}),
        f"job {RUNNING} is held to run, and its runner (pid {RUNNER[0]}) is gone, "
        "which nobody has noticed",
    ),
    "the machine was restarted": (
        a_scene(boot_id="another"),
        f"job {RUNNING} is held to run, and it was started before the machine was, "
        "which nobody has noticed",
    ),
    "a wait is overdue": (
        a_scene(boottime=1100.0),
        f"job {DELAYED} was to be tried again 90 s ago, and nobody has noticed",
    ),
    "a wait is too long": (
        a_scene(boottime=-40_000_000.0),
        f"job {DELAYED} waits 463 days for its next attempt: no backoff is so long",
    ),
    "a wait is of an earlier boot": (
        a_scene(boot_id="another"),
        f"job {DELAYED} waits for a moment of an earlier boot, and nobody has noticed",
    ),
    "a process of an ended job": (
        a_scene(marked=[marked(ENDED)]),
        f"process 501 (python) of attempt 1 of job {ENDED} is alive, and that has ended",
    ),
    "a process of an ended attempt": (
        a_scene(marked=[marked(AGAIN, 1)]),
        f"process 501 (python) of attempt 1 of job {AGAIN} is alive, and that has ended",
    ),
    "a process that no attempt knows": (
        a_scene(marked=[marked(40)]),
        "process 501 (python) carries the mark of attempt 1 of job 40, of which nothing is known here",
    ),
    "a process in the group of an ended job": (
        a_scene(
            groups={f"{GROUP}/{ENDED}-1": [502]},
            names={502: "cat"},
            alive={RUNNER[0]: RUNNER[1], 502: 3},
        ),
        f"process 502 (cat) lives in the control group of attempt 1 of job {ENDED}, which has ended",
    ),
    "a process in a group that nobody has": (
        a_scene(groups={f"{GROUP}/900-5": [901]}, alive={RUNNER[0]: RUNNER[1], 901: 3}),
        "process 901 lives in the control group that no attempt has",
    ),
    "a runner that waits for a daemon that is gone": (
        a_scene(
            lock_pid=None,
            answers=False,
            groups={f"{GROUP}/900-5": [900]},
            alive={RUNNER[0]: RUNNER[1], 900: 5},
        ),
        "process 900 lives in the control group that no attempt has",
    ),
    "a daemon without a lock": (
        a_scene(lock_pid=None, answering_pid=78),
        "a daemon (pid 78) answers for /state, and does not hold its lock",
    ),
    "a daemon that is silent": (
        a_scene(answers=False, answering_pid=None),
        "a daemon (pid 77) holds the lock of /state, and does not answer",
    ),
    "two daemons": (
        a_scene(answering_pid=78),
        "pid 77 holds the lock of /state, and pid 78 answers for it",
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_what_is_seen_amiss_gets_its_sentence(database: Path, case: str) -> None:
    seen, wanted = SEEN[case]
    assert wanted in sentences(database, seen)


def test_a_runner_that_outlives_its_job_is_told(database: Path) -> None:
    by_hand(database, f"update attempts set runner_pid = 600 where job = {ENDED}")
    alive = {RUNNER[0]: RUNNER[1], 600: RUNNER[1]}
    told = [f"process 600 is the runner of attempt 1 of job {ENDED}, which has ended"]
    assert sentences(database, a_scene(alive=alive, parents={600})) == told
    assert sentences(database, a_scene(alive=alive)) == [], (
        "it waits at its gate for another attempt"
    )
    nobody = {"lock_pid": None, "answers": False, "answering_pid": None}
    assert sentences(database, a_scene(alive=alive, **nobody)) == told, "for nobody"


@pytest.mark.parametrize("changes", [{"uid": 1001}, {"start": RUNNER[1] - 1}])
def test_a_mark_alone_proves_nothing(database: Path, changes: dict[str, int]) -> None:
    assert sentences(database, a_scene(marked=[marked(ENDED, **changes)])) == []


def test_leftovers_that_are_being_ended_are_no_breach(database: Path) -> None:
    by_hand(database, "update attempts set main_ended_mono = 5 where ended_at is null")
    assert sentences(database, a_scene(alive={})) == []


def test_a_folder_without_a_job_is_worth_a_note(database: Path) -> None:
    seen = a_scene(job_folders=[ENDED, 40, 41, FORGOTTEN], record_folders=[(40, 1), (ENDED, 1)])
    with open_audit(str(database)) as audit:
        found = check.judge(audit, seen, whole=True)
    assert found.breaches == []
    assert found.notes == [
        "there is no job to what lies in jobs/40-41",
        "there is no attempt to what lies in attempts/40.1",
    ]


def test_what_cannot_be_forgotten_is_worth_a_note(database: Path) -> None:
    with closing(open_store(database)) as store:
        store.wished.prune([range(ENDED, ENDED + 1)], outputs=False, actor="alice", now=NOW)
        store.pruned.not_forgotten(ENDED, "jobs/2/1/output: busy", now=NOW)
    with open_audit(str(database)) as audit:
        found = check.judge(audit, a_scene(), whole=True)
    assert found.breaches == []
    assert found.notes == [f"job {ENDED} is to be forgotten, and cannot be: jobs/2/1/output: busy"]


# ─── looked at again ─────────────────────────────────────────────────────────────────────────────


def looks(*found: list[tuple[str, int]], daemon: int | None = 7) -> Callable[[bool], Findings]:
    left = [
        Findings(
            breaches=[Breach(rule=rule, sentence=f"{rule} {job}", job=job) for rule, job in one],
            daemon_pid=daemon,
        )
        for one in found
    ]
    return lambda whole: left.pop(0)


def sure(*found: list[tuple[str, int]]) -> list[str]:
    certain = check.look_until_sure(looks(*found), lambda pause_s: None, again_s=(0.1, 0.2))
    return [breach.sentence for breach in certain.breaches]


def test_one_look_is_enough_where_all_is_well() -> None:
    assert sure([]) == []


def test_what_is_put_right_meanwhile_is_no_breach() -> None:
    assert sure([("late", 1)], []) == []
    assert sure([("late", 1)], [("late", 1)], []) == []


def test_what_is_broken_in_every_look_is_told() -> None:
    assert sure(*[[("late", 1)]] * 3) == ["late 1"]


def test_without_a_daemon_two_looks_are_enough() -> None:
    look = looks([("late", 1)], [("late", 1)], daemon=None)
    assert len(check.look_until_sure(look, lambda pause_s: None).breaches) == 1


def test_two_jobs_that_are_late_in_turn_are_not_one_that_stays_so() -> None:
    assert sure([("late", 1)], [("late", 2)]) == []
    assert sure([("late", 1), ("gone", 3)], [("late", 2), ("gone", 3)], [("gone", 3)]) == ["gone 3"]


# ─── nothing is changed ──────────────────────────────────────────────────────────────────────────


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.iterdir()
        if stat.S_ISREG(file.stat().st_mode)
    }


def gpuqd_check(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [BIN / "gpuqd", "check", *words]
    return subprocess.run(
        command, text=True, capture_output=True, check=False, timeout=60, **options
    )


def copied_while_open(folder: Path, target: Path, *names: str) -> None:
    target.mkdir()
    for name in names:
        shutil.copy(folder / name, target)


@pytest.mark.parametrize(
    "names",
    [
        ("gpuq.db", "gpuq.db-wal", "gpuq.db-shm"),
        ("gpuq.db", "gpuq.db-wal"),
    ],
    ids=["after a kill", "a copy without the index"],
)
def test_what_stands_in_the_log_alone_is_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As a daemon leaves it that was killed."""
    (tmp_path / "live").mkdir()
    with closing(open_store(tmp_path / "live" / "gpuq.db")) as store:
        submit(store, 3)
        copied_while_open(tmp_path / "live", tmp_path / "left", *names)
    before = contents(tmp_path / "left")
    ran = gpuqd_check("--state-dir", tmp_path / "left")
    assert (ran.stdout, ran.returncode) == ("all is well: 3 jobs, 0 attempts, 1 event\n", 0)
    assert contents(tmp_path / "left") == before


def test_a_stopped_daemon_finds_nothing_changed(database: Path) -> None:
    before = contents(database.parent)
    ran = gpuqd_check("--state-dir", database.parent)
    assert ran.stdout.startswith("all is well: 8 jobs, 7 attempts, ")
    assert "no daemon runs here: what became of 3 attempts the next one finds out" in ran.stderr
    assert contents(database.parent) == before


@pytest.fixture
def read_only(database: Path, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "gpuq-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a file system may not be mounted here (needs root)")
    try:
        shutil.copy(database, folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_directory_that_is_read_only_will_do(read_only: Path) -> None:
    ran = gpuqd_check("--state-dir", read_only)
    assert (ran.stdout[:11], ran.returncode) == ("all is well", 0), ran.stderr


# ─── refused ─────────────────────────────────────────────────────────────────────────────────────


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table songs (title)")


def newer(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.database.value("pragma user_version = 99")


REFUSED: dict[str, tuple[Callable[[Path], Any], str, int]] = {
    "nothing": (lambda path: None, "there is no database at", 3),
    "a text": (lambda path: path.write_text("dear diary\n" * 500), "no SQLite database", 1),
    "another program's": (other_database, "a database of another program", 1),
    "a newer one": (newer, "written by a newer gpuq", 1),
    "a directory": (lambda path: path.mkdir(), "cannot be read: Is a directory", 1),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_database_of_ours_is_refused(tmp_path: Path, kind: str) -> None:
    make, why, code = REFUSED[kind]
    make(tmp_path / "gpuq.db")
    before = contents(tmp_path)
    ran = gpuqd_check("--state-dir", tmp_path)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert why in ran.stderr
    assert str(tmp_path) in ran.stderr
    assert contents(tmp_path) == before


def test_a_file_can_be_checked_by_itself(database: Path, tmp_path: Path) -> None:
    copy = shutil.copy(database, tmp_path / "backup.db")
    assert gpuqd_check(copy).returncode == 0
    by_hand(Path(copy), "delete from jobs where id = 1")
    ran = gpuqd_check(copy)
    assert (ran.returncode, ran.stdout) == (1, "job 1 was accepted and is not there any more\n")


def test_what_was_found_can_be_had_as_json(database: Path) -> None:
    by_hand(database, f"delete from leases where job = {RUNNING}")
    ran = gpuqd_check("--state-dir", database.parent, "--json")
    said = json.loads(ran.stdout)
    assert (ran.returncode, said["schema"], said["well"], said["daemon_pid"]) == (1, 1, False, None)
    assert said["breaches"] == [
        {
            "rule": "gpu_without_lease",
            "sentence": f"job {RUNNING} has GPU GPU-0 and holds no lease of it",
            "job": RUNNING,
            "attempt": 1,
            "gpu": GPUS[0],
            "pid": None,
        }
    ]


# ─── beside a daemon ─────────────────────────────────────────────────────────────────────────────


def test_it_looks_at_the_daemon_that_is_meant(daemon: Daemon, tmp_path: Path) -> None:
    """Who gives a socket alone means the daemon that answers there, wherever it keeps its things."""
    elsewhere = daemon.environment | {"GPUQ_STATE_DIR": str(tmp_path / "another")}
    ran = daemon.gpuq(
        "--socket", str(daemon.state / "gpuq.sock"), "daemon", "check", "--json", env=elsewhere
    )
    assert json.loads(ran.stdout)["daemon_pid"] == daemon.pid
    nobody = daemon.gpuq("--socket", str(tmp_path / "none"), "daemon", "check", env=elsewhere)
    assert (nobody.returncode, nobody.stdout) == (4, "")
    assert "--state-dir DIR" in nobody.stderr


def test_a_busy_daemon_is_never_accused(daemon: Daemon) -> None:
    """Jobs come, run, fail, are tried again and are killed while it looks."""
    stop = threading.Event()

    def keep_busy() -> None:
        with daemon.client() as client:
            while not stop.is_set():
                jobs = client.submit_many(
                    [
                        {"argv": ["true"]},
                        {"argv": ["false"], "retries": 1, "backoff": "0.1s"},
                        {"argv": ["sleep", "100"]},
                    ]
                )
                until(lambda last=jobs[-1]: client.job(last)["state"] == "running")
                client.kill([jobs[-1]], grace_s=0)

    worker = threading.Thread(target=keep_busy)
    worker.start()
    try:
        for _ in range(5):
            ran = daemon.gpuq("daemon", "check")
            assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    finally:
        stop.set()
        worker.join()
    with daemon.client() as client:
        if active := [job["id"] for job in client.jobs()]:
            client.wait(active, timeout_s=30)
    assert re.match(
        r"all is well: \d\d+ jobs, \d\d+ attempts", daemon.gpuq("daemon", "check").stdout
    )


def test_killed_and_stopped_it_is_well_too(stopped_daemon: Daemon) -> None:
    stopped_daemon.start()
    with stopped_daemon.client() as client:
        job = client.submit(["sleep", "100"])
        until(lambda: client.job(job)["state"] == "running")
    stopped_daemon.kill()
    ran = stopped_daemon.gpuq("daemon", "check")
    assert ran.stdout == "all is well: 1 job, 1 attempt, 3 events\n"
    stopped_daemon.start()
    assert stopped_daemon.gpuq("daemon", "check").returncode == 0
    stopped_daemon.stop()
    assert stopped_daemon.gpuq("daemon", "check").returncode == 0


def test_a_process_of_a_job_that_ended_is_found(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["true"])
        client.wait([job], timeout_s=10)
    with closing(sqlite3.connect(daemon.state / "gpuq.db")) as db:
        nonce = db.execute("select nonce from attempts").fetchone()[0]
    mark = {"GPUQ_MARK": f"{job}.1:{nonce}"}
    with subprocess.Popen(["sleep", "100"], env=mark) as left:
        try:
            ran = daemon.gpuq("daemon", "check")
        finally:
            left.kill()
    wanted = f"process {left.pid} (sleep) of attempt 1 of job {job} is alive, and that has ended\n"
    assert (ran.returncode, ran.stdout) == (1, wanted)


def test_the_lock_tells_whether_a_daemon_runs(stopped_daemon: Daemon) -> None:
    assert evidence.read_lock(str(stopped_daemon.state)).pid is None
    stopped_daemon.start()
    assert evidence.read_lock(str(stopped_daemon.state)).pid == stopped_daemon.pid
    stopped_daemon.stop()
    assert evidence.read_lock(str(stopped_daemon.state)).pid is None


def test_a_daemon_with_a_socket_elsewhere_is_found_there(
    stopped_daemon: Daemon, tmp_path: Path
) -> None:
    socket = tmp_path / "elsewhere.sock"
    command = [BIN / "gpuqd", "--state-dir", stopped_daemon.state, "--socket", socket]
    with subprocess.Popen([*command, "--gpus", "none"], stderr=subprocess.DEVNULL) as elsewhere:
        try:
            until(socket.exists, "its socket")
            ran = gpuqd_check("--state-dir", stopped_daemon.state)
        finally:
            elsewhere.terminate()
    assert (ran.returncode, ran.stdout[:11]) == (0, "all is well"), ran.stdout


def test_to_look_for_the_lock_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    """Whoever looks has the lock for a moment."""
    settings = config.load({"state_dir": str(tmp_path), "gpus": "none"}, {})
    with (tmp_path / "lock").open("w") as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.03, lambda: fcntl.flock(looker, fcntl.LOCK_UN))
        letting_go.start()
        with StateLock(settings):
            assert evidence.read_lock(str(tmp_path)) == (os.getpid(), f"{tmp_path}/gpuq.sock")
        letting_go.join()


# ─── a page that is damaged under a daemon ───────────────────────────────────────────────────────


def damage(database: Path) -> None:
    """Everything but the first pages, which are read at every start."""
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0
        roots = {row[0] for row in db.execute("select rootpage from sqlite_schema")}
    pages = database.stat().st_size // 4096
    with database.open("r+b") as file:
        for page in range(pages // 3, pages):
            if page + 1 not in roots:
                file.seek(page * 4096)
                file.write(b"\x5a" * 4096)


def ask_until_it_leaves(client: Client) -> list[str]:
    """What a daemon answered, and what it said as it left."""
    said: list[str] = []

    def has_left() -> bool:
        try:
            client.jobs(all=True)
        except GpuqError as error:
            said.append(str(error))
            return isinstance(error, DaemonUnreachable)
        return False

    until(has_left, "its leaving")
    return said


@pytest.mark.parametrize("reading", ["rows", "value", "write"])
def test_who_meets_a_damaged_page_meets_it_once(tmp_path: Path, reading: str) -> None:
    """Whatever was being done: nothing is read or written afterwards, and nothing is tidied up."""
    path = tmp_path / "gpuq.db"
    store = open_store(path)
    submit(store, 200, argv=(b"x" * 3000,))
    store.database.value("pragma shrink_memory")
    damage(path)
    store.machine.note("something", "that stands in the log alone")
    told: list[StoreDamaged] = []
    store.database.on_damage = told.append
    before = path.read_bytes()

    def meet() -> None:
        if reading == "write":
            with store.transaction():
                store.database.write("update specs set name = 'other'")
        elif reading == "value":
            store.database.value("select count(length(argv)) from specs")
        else:
            store.found.jobs()

    with pytest.raises(StoreDamaged, match=re.escape(f"{path}: the database is damaged")):
        meet()
    for again in (meet, lambda: submit(store), lambda: store.current.state(1)):
        with pytest.raises(StoreDamaged):
            again()
    store.close()
    assert (len(told), path.read_bytes() == before) == (1, True)
    with pytest.raises(StoreRefused, match="damaged"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_damaged_database_ends_the_daemon_and_no_other_starts(
    stopped_daemon: Daemon, tmp_path: Path
) -> None:
    daemon, database = stopped_daemon, stopped_daemon.state / "gpuq.db"
    daemon.start()
    assert daemon.process is not None
    with daemon.client() as client:
        running = client.submit(["sleep", "100"])
        for _ in range(40):
            client.submit_many([{"argv": ["true", "x" * 100_000], "gpus": 0}] * 2)
        until(lambda: client.job(running)["state"] == "running")
        client.call("drain", reason="nothing is to be written meanwhile")
        until(lambda: not [j for j in client.jobs(states=["running"]) if j["id"] != running])
        pid = client.job(running)["pid"]
        backup = tmp_path / "backup.db"
        assert daemon.gpuq("daemon", "backup", str(backup)).returncode == 0
        damage(database)
        before = database.read_bytes()
        said = ask_until_it_leaves(client)
    assert "its database is damaged" in said[-1]
    assert all(f"{database}: the database is damaged" in answer for answer in said[:-1])
    assert daemon.process.wait(10) == 78
    assert processes.identity(pid) is not None, "jobs go on"
    told = daemon.log.read_text()
    assert '"the database is damaged; jobs go on"' in told
    assert f"gpuqd: {database}: the database is damaged" in told
    assert database.read_bytes() == before, "it is left as it is"

    again = subprocess.run(
        [BIN / "gpuqd", "--state-dir", daemon.state, "--gpus", "none"],
        env=daemon.environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert again.returncode == 78
    assert "the database is damaged" in again.stderr
    assert database.read_bytes() == before
    assert daemon.gpuq("daemon", "check").returncode == 1

    for left in ("gpuq.db", "gpuq.db-wal", "gpuq.db-shm"):
        (daemon.state / left).unlink(missing_ok=True)
    shutil.copy(backup, database)
    daemon.start()  # with the backup in its place all is well again
    with daemon.client() as client:
        assert client.job(running)["pid"] == pid
    os.kill(pid, signal.SIGKILL)
