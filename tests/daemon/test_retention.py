"""What grows old goes by itself, what people want forgotten goes, and nothing else does."""

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.asked.elements import Elements
from gpuq.core.decisions import Plan
from gpuq.core.model import Outcome
from gpuq.daemon import order
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.check import command as check
from gpuq.daemon.clock import Clock
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import StoreDamaged
from gpuq.daemon.store.job_rows import Submitter
from gpuq.daemon.upkeep import job_files, retention
from gpuq.daemon.upkeep.retention import Housekeeper
from gpuq.daemon.watchers import Watchers
from gpuq.errors import NotPermitted, UsageError
from tests import desk
from tests.conftest import PATIENCE_S, Daemon, until
from tests.daemon.history import ALICE, BOB, NOW, end, open_store, run, start, submit, try_again

DAY = 86400.0
MIB = 2**20


class FixedClock(Clock):
    """Stands still until it is set."""

    def __init__(self, wall: float) -> None:
        self.now = wall

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - NOW + 1000.0


class House:
    """A state directory with a database, and somebody who keeps it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.database = folder / "gpuq.db"
        self.store = open_store(self.database)
        self.clock = FixedClock(NOW + 10)
        flags = {"state_dir": str(folder), "gpus": "none", **settings}
        self.config = config.load(flags, {})
        self.keeper = self.new_keeper()

    def new_keeper(self) -> Housekeeper:
        return Housekeeper(self.store, self.config, self.clock)

    def tidy(self, *, after_days: float = 0.0, everything: bool = True) -> None:
        self.clock.now += after_days * DAY
        work = self.keeper.tidy(everything=everything)
        asyncio.run(asyncio.wait_for(work, PATIENCE_S))

    def ended(self, *, at: float = NOW + 9, log: int = 4096, output: str = "", **how: Any) -> int:
        """A job that ran, with what it left."""
        job = submit(self.store).start
        run(self.store, job, at=at, **how)
        self.leave_files(job, log=log, output=output)
        return job

    def leave_files(self, job: int, attempt: int = 1, *, log: int = 4096, output: str = "") -> None:
        folder = self.folder / "jobs" / str(job) / str(attempt)
        (folder / "output").mkdir(parents=True)
        (folder / "log").write_bytes(b"x" * log)
        (folder / "log.index").write_text("0 0\n")
        (folder / "report").write_text("{}\n")
        if output:
            (folder / "output" / output).write_text("precious")
        record = self.folder / "attempts" / f"{job}.{attempt}"
        record.mkdir(parents=True)
        (record / "record").write_text("{}")
        (record / "began-abc").touch()

    def left(self, job: int) -> list[str]:
        """What lies there of a job: files, and directories that are empty."""
        found = []
        for top in (self.folder / "jobs" / str(job), *self.folder.glob(f"attempts/{job}.*")):
            for folder, folders, files in os.walk(top):  # which minds nothing that goes meanwhile
                links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
                within = [f"{folder}/{name}" for name in [*files, *links]]
                found += within or ([] if folders else [folder])
        return sorted(os.path.relpath(path, self.folder) for path in found)

    def row(self, job: int) -> dict[str, Any]:
        row = self.store.database.row("select * from jobs where id = ?", (job,))
        assert row is not None
        return row

    def count(self, table: str) -> int:
        return int(self.store.database.value(f"select count(*) from {table}"))

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(e["detail"]) for e in self.events() if e["kind"] == kind and e["detail"]]

    def events(self) -> list[dict[str, Any]]:
        return self.store.database.rows("select * from events order by seq")

    def prune(self, *jobs: int, outputs: bool = False) -> None:
        self.store.wished.prune(
            [range(job, job + 1) for job in jobs],
            outputs=outputs,
            actor="alice",
            now=self.clock.now,
        )

    def assert_well(self) -> None:
        found = check.look_once(str(self.database), None, whole=True)
        assert [breach.sentence for breach in found.breaches] == []


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[MakeHouse]:
    made: list[House] = []

    def make(**settings: str) -> House:
        folder = tmp_path / f"house{len(made)}"
        folder.mkdir()
        made.append(House(folder, **settings))
        return made[-1]

    yield make
    for house in made:
        house.assert_well()
        house.store.close()


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    return make_house()


EVERYTHING = [
    "attempts/{0}.1/began-abc",
    "attempts/{0}.1/record",
    "jobs/{0}/1/log",
    "jobs/{0}/1/log.index",
    "jobs/{0}/1/output",
    "jobs/{0}/1/report",
]


def everything(job: int) -> list[str]:
    return [name.format(job) for name in EVERYTHING]


# ─── logs grow old ───────────────────────────────────────────────────────────────────────────────


def test_logs_are_kept_for_as_long_as_is_set_and_no_longer(house: House) -> None:
    job = house.ended(at=NOW)
    house.tidy(after_days=29.9)
    assert house.left(job) == everything(job)
    house.tidy(after_days=0.2)
    assert house.left(job) == []
    assert house.row(job)["files_removed_at"] == house.clock.now
    assert house.row(job)["outcome"] == "succeeded", "the row stays, as history"
    assert len(house.store.found.attempts(job)) == 1
    (told,) = house.told("files_removed")
    assert (told["jobs"], told["bytes"] > 4096) == (str(job), True)


def test_the_time_counts_from_the_end(house: House) -> None:
    long_ago, today = house.ended(at=NOW), house.ended(at=NOW + 20 * DAY)
    house.tidy(after_days=31)
    assert (house.left(long_ago), house.left(today)) == ([], everything(today))


def test_what_a_job_has_put_out_stays(house: House) -> None:
    job = house.ended(output="model.pt")
    house.tidy(after_days=31)
    assert house.left(job) == [f"jobs/{job}/1/output/model.pt"]
    house.tidy(after_days=3000)
    assert house.left(job) == [f"jobs/{job}/1/output/model.pt"]


def test_what_gpuq_did_not_put_there_stays(house: House) -> None:
    job = house.ended()
    mine = house.folder / "jobs" / str(job) / "1" / "notes.txt"
    mine.write_text("mine")
    house.tidy(after_days=31)
    assert house.left(job) == [f"jobs/{job}/1/notes.txt"]


def test_a_shorter_time_is_kept_to_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper looks at what is old once an hour, and at once when the settings have changed."""
    old, new = house.ended(at=NOW - 3 * DAY), house.ended()

    async def main() -> None:
        rests, rest = asyncio.Event(), house.keeper._sleep

        async def told(longest_s: float) -> None:
            rests.set()
            await rest(longest_s)

        monkeypatch.setattr(house.keeper, "_sleep", told)
        living = asyncio.ensure_future(house.keeper.run())
        await desk.until(rests.is_set, "the first round")
        assert house.left(old) == everything(old)
        house.config.take_over(house.config.having("keep_for", 2 * DAY, "test"))
        house.keeper.settings_changed()
        await desk.until(lambda: not house.left(old), "its files to go")
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)

    asyncio.run(main())
    assert house.left(new) == everything(new)


def test_a_job_that_has_not_ended_keeps_everything(house: House) -> None:
    active = submit(house.store).start
    start(house.store, active)
    house.leave_files(active)
    waiting = submit(house.store, retries=1).start
    start(house.store, waiting)
    try_again(house.store, waiting)
    house.leave_files(waiting)
    house.tidy(after_days=400)
    assert (house.left(active), house.left(waiting)) == (everything(active), everything(waiting))
    assert house.row(active)["files_bytes"] is None


def test_every_attempt_goes(house: House) -> None:
    job = submit(house.store, retries=1).start
    start(house.store, job)
    try_again(house.store, job)
    house.store.happened.undelay(job, now=NOW)
    start(house.store, job, attempt=2)
    end(house.store, job, attempt=2)
    house.leave_files(job, 1)
    house.leave_files(job, 2)
    house.tidy(after_days=31)
    assert house.left(job) == []


def test_a_job_that_never_ran_has_nothing_to_lose(house: House) -> None:
    job = submit(house.store).start
    house.store.happened.cancel(job, actor="alice", now=NOW)
    house.tidy(after_days=31)
    assert (house.row(job)["files_bytes"], house.row(job)["files_removed_at"]) == (0, None)


def test_more_jobs_than_one_round_takes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "JOBS_AT_ONCE", 3)
    jobs = [house.ended() for _ in range(10)]
    house.tidy(after_days=31)
    assert [house.left(job) for job in jobs] == [[]] * 10
    assert [told["jobs"] for told in house.told("files_removed")] == ["1-3", "4-6", "7-9", "10"]


# ─── logs become too much ────────────────────────────────────────────────────────────────────────


def test_beyond_the_size_the_oldest_go_first(make_house: MakeHouse) -> None:
    house = make_house(keep_size="3M")
    late = house.ended(at=NOW + 3, log=MIB)
    early = house.ended(at=NOW + 1, log=MIB)
    last = house.ended(at=NOW + 4, log=MIB)
    house.tidy(everything=False)
    assert house.left(early) == []
    assert (house.left(late), house.left(last)) == (everything(late), everything(last))
    another = house.ended(at=NOW + 5, log=MIB)
    house.tidy(everything=False)
    assert house.left(late) == []
    assert house.left(another) == everything(another)


def test_within_the_size_nothing_goes(make_house: MakeHouse) -> None:
    house = make_house(keep_size="3M")
    jobs = [house.ended(log=MIB // 2) for _ in range(5)]
    house.tidy()
    assert [house.left(job) for job in jobs] == [everything(job) for job in jobs]


def test_a_job_that_comes_back_again_and_again_counts_once(make_house: MakeHouse) -> None:
    house = make_house(keep_size="3M")
    other, job = (house.ended(log=MIB) for _ in range(2))
    for round_ in range(4):
        house.tidy(everything=False)
        house.store.changed.requeue(job, job, actor="alice", now=NOW + round_)
        house.store.returned.requeue(job, now=NOW, boottime=5.0, boot_id="boot")
        house.store.happened.cancel(job, actor="alice", now=NOW + 9)
    house.tidy(everything=False)
    assert house.left(other) == everything(other)


def test_the_last_to_end_keeps_its_log_however_large(make_house: MakeHouse) -> None:
    """Who asks what happened just now is to find it."""
    house = make_house(keep_size="1M")
    house.ended(at=NOW, log=4096)
    large = house.ended(at=NOW + 1, log=5 * MIB)
    house.tidy(everything=False)
    assert house.left(large) == everything(large)
    next_one = house.ended(at=NOW + 2, log=4096)
    house.tidy(everything=False)
    assert (house.left(large), house.left(next_one)) == ([], everything(next_one))


def test_outputs_do_not_count(make_house: MakeHouse) -> None:
    """Else one large model would cost all logs, and they would not make room."""
    house = make_house(keep_size="1M")
    jobs = [house.ended(output="model.pt") for _ in range(3)]
    for job in jobs:
        model = house.folder / "jobs" / str(job) / "1" / "output" / "model.pt"
        model.write_bytes(b"x" * 3 * MIB)
    house.tidy()
    assert all(f"jobs/{job}/1/log" in house.left(job) for job in jobs)


def test_the_next_daemon_counts_what_is_there(make_house: MakeHouse) -> None:
    house = make_house(keep_size="3M")
    first, second = house.ended(at=NOW, log=MIB), house.ended(at=NOW + 1, log=MIB)
    house.tidy()
    house.keeper = house.new_keeper()
    third = house.ended(at=NOW + 2, log=MIB)
    house.tidy(everything=False)
    assert house.left(first) == []
    assert (house.left(second), house.left(third)) == (everything(second), everything(third))


# ─── nothing of others ───────────────────────────────────────────────────────────────────────────


def precious(tmp_path: Path) -> Path:
    folder = tmp_path / "precious"
    (folder / "1" / "output").mkdir(parents=True)
    for name in ("log", "1/log", "1/report", "1/output/model.pt", "began-abc"):
        (folder / name).write_text("precious")
    return folder


def as_left(folder: Path) -> list[tuple[str, str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted((str(path.relative_to(folder)), path.read_text()) for path in files)


@pytest.mark.parametrize(
    "swapped", ["jobs/{0}", "jobs/{0}/1", "jobs/{0}/1/output", "jobs/{0}/1/log", "attempts/{0}.1"]
)
@pytest.mark.parametrize("outputs", [False, True], ids=["old", "pruned with outputs"])
def test_no_link_is_followed(house: House, tmp_path: Path, swapped: str, outputs: bool) -> None:
    job, others = house.ended(), precious(tmp_path)
    house.tidy()
    before = as_left(others)
    place = house.folder / swapped.format(job)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(others if place.name != "log" else others / "log")
    if outputs:
        house.prune(job, outputs=True)
    house.tidy(after_days=31)
    assert as_left(others) == before


def test_a_pipe_in_the_place_of_a_folder_is_not_waited_for(house: House) -> None:
    job = house.ended()
    house.tidy()
    output = house.folder / "jobs" / str(job) / "1" / "output"
    output.rmdir()
    os.mkfifo(output)
    house.prune(job, outputs=True)
    house.tidy()
    assert house.left(job) == []


def test_a_folder_in_the_place_of_a_log_stays(house: House) -> None:
    job = house.ended()
    house.tidy()
    log = house.folder / "jobs" / str(job) / "1" / "log"
    log.unlink()
    log.mkdir()
    (log / "mine").write_text("mine")
    house.tidy(after_days=31)
    assert house.left(job) == [f"jobs/{job}/1/log/mine"]
    assert house.row(job)["files_removed_at"] is None, "that is not so"


def test_other_folders_below_the_state_directory_stay(house: House, tmp_path: Path) -> None:
    """Of other users, where root keeps house, or of jobs that this database does not know."""
    job = house.ended()
    shutil.copytree(precious(tmp_path), house.folder / "jobs" / "99")
    shutil.copytree(precious(tmp_path / "again"), house.folder / "jobs" / "keep")
    before = as_left(house.folder / "jobs" / "99"), as_left(house.folder / "jobs" / "keep")
    house.tidy(after_days=31)
    assert house.left(job) == []
    assert (
        as_left(house.folder / "jobs" / "99"),
        as_left(house.folder / "jobs" / "keep"),
    ) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: it needs root to chown")
def test_root_removes_what_is_its_submitters(house: House) -> None:
    job = house.ended()
    folder = house.folder / "jobs" / str(job)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, BOB.uid, BOB.gid)
        path.chmod(0o700)
    house.tidy(after_days=31)
    assert house.left(job) == []


def test_what_cannot_be_removed_does_not_keep_the_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = house.ended(at=NOW), house.ended(at=NOW + 1)
    remove = job_files.remove

    def refuse(state_dir: str, job: int, attempts: int, **how: Any) -> job_files.Removed:
        if job == stuck:
            return job_files.Removed(trouble="jobs/1/1/log: permission denied")
        return remove(state_dir, job, attempts, **how)

    monkeypatch.setattr(job_files, "remove", refuse)
    house.tidy(after_days=31)
    assert house.left(other) == []
    assert house.row(stuck)["files_removed_at"] is None


# ─── cut short ───────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    pass


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_what_was_removed_and_not_noted_is_noted_the_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.ended()
    with monkeypatch.context() as patched:
        patched.setattr(house.store.pruned, "files_removed", killed)
        with pytest.raises(Killed):
            house.tidy(after_days=31)
    assert (house.left(job), house.row(job)["files_removed_at"]) == ([], None)
    house.keeper = house.new_keeper()
    house.tidy()
    assert house.row(job)["files_removed_at"] == house.clock.now


def test_what_was_half_removed_is_removed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.ended()
    unlinked = []
    unlink = os.unlink

    def unlink_two(name: str, **how: Any) -> None:
        if len(unlinked) == 2:
            raise Killed
        unlinked.append(name)
        unlink(name, **how)

    house.tidy()
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink_two)
        with pytest.raises(Killed):
            house.tidy(after_days=31)
    assert len(house.left(job)) == len(everything(job)) - 2
    house.keeper = house.new_keeper()
    house.tidy()
    assert (house.left(job), house.row(job)["files_removed_at"]) == ([], house.clock.now)


def test_what_is_to_be_forgotten_is_so_after_a_kill(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [house.ended() for _ in range(3)]
    house.prune(*jobs)
    with monkeypatch.context() as patched:
        patched.setattr(house.store.pruned, "forget", killed)
        with pytest.raises(Killed):
            house.tidy()
    house.assert_well()
    assert (house.count("jobs"), house.left(jobs[0])) == (3, [])
    house.keeper = house.new_keeper()
    house.tidy()
    assert house.count("jobs") == 0


@pytest.mark.parametrize("deed", ["measure", "remove"])
@pytest.mark.parametrize("is_wished", [False, True], ids=["old", "to be forgotten"])
def test_the_loop_turns_while_the_disk_hangs(
    house: House, monkeypatch: pytest.MonkeyPatch, deed: str, is_wished: bool
) -> None:
    job = house.ended()
    work = getattr(job_files, deed)
    hung: list[str] = []

    def hang(*words: Any, **how: Any) -> Any:
        hung.append(deed)
        time.sleep(0.5)
        return work(*words, **how)

    async def turn() -> float:
        longest, before = 0.0, time.monotonic()
        tidying = asyncio.ensure_future(house.keeper.tidy(everything=True))
        while not tidying.done():
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
            before = time.monotonic()
        return longest

    house.clock.now += 31 * DAY
    if is_wished:
        if deed == "measure":
            house.ended()  # of which nobody wishes anything
        house.prune(job)
    monkeypatch.setattr(job_files, deed, hang)
    assert asyncio.run(turn()) < 0.4
    assert hung


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: it needs root to chown")


@needs_root
def test_what_was_moved_in_from_somebody_else_is_left_alone(house: House) -> None:
    job = house.ended()
    foreign = house.folder / "jobs" / str(job) / "2"
    foreign.mkdir()
    (foreign / "log").write_text("of another user")
    os.chown(foreign, BOB.uid, BOB.uid)
    house.prune(job, outputs=True)
    house.tidy()
    assert (foreign / "log").read_text() == "of another user"
    assert not (foreign.parent / "1").exists()


@needs_root
def test_an_output_is_removed_with_its_owners_rights_alone(house: House) -> None:
    job = house.ended(output="model.pt")
    mine = house.folder / "jobs" / str(job)
    for path in (mine, *mine.rglob("*")):
        os.chown(path, ALICE.uid, ALICE.uid)
    locked = mine / "1" / "output" / "locked"
    locked.mkdir()
    (locked / "of root").write_text("kept")
    house.prune(job, outputs=True)
    house.tidy()
    assert (locked / "of root").read_text() == "kept"
    assert not (mine / "1" / "output" / "model.pt").exists()


def test_a_link_that_was_swapped_in_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "file").write_bytes(b"x" * 8192)
    (tmp_path / "output").symlink_to("elsewhere")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert job_files._tree_size("elsewhere/deep", folder) >= 8192
        assert job_files._tree_size("output/deep", folder) == 0
    finally:
        os.close(folder)


# ─── a lost job's temporary directory ────────────────────────────────────────────────────────────


@pytest.fixture
def tmp_dirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(order, "TMP_DIR", str(folder))
    return folder


def tmp_dir_of(house: House, job: int, folder: Path, *, uid: int = ALICE.uid) -> Path:
    nonce = house.store.database.value("select nonce from attempts where job = ?", (job,))
    place = folder / f"gpuq-{job}-{nonce[:8]}"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "cache").write_bytes(b"x" * 10_000)
    for one in (place, place / "deep", place / "deep" / "cache"):
        os.chown(one, uid, uid)
    folder.chmod(0o1777)  # as /tmp is: a process of that user removes it
    return place


@needs_root
def test_the_temporary_directory_of_a_lost_job_goes(house: House, tmp_dirs: Path) -> None:
    lost = house.ended(outcome=Outcome.LOST)
    place = tmp_dir_of(house, lost, tmp_dirs)
    house.tidy(everything=False)
    assert not place.exists()
    assert house.left(lost) == everything(lost), "its log stays"


@needs_root
def test_where_it_had_its_own_it_is_looked_for(house: House, tmp_dirs: Path) -> None:
    own = Path(f"/tmp/gpuq-t{os.getpid()}")  # short, as it has to be
    own.mkdir()
    try:
        job = submit(house.store, content=f"TMPDIR={own}\0".encode()).start
        run(house.store, job, outcome=Outcome.LOST)
        place = tmp_dir_of(house, job, own)
        house.tidy(everything=False)
        assert not place.exists()
    finally:
        shutil.rmtree(own)


@needs_root
def test_what_is_not_its_own_stays(house: House, tmp_dirs: Path, tmp_path: Path) -> None:
    others = precious(tmp_path)
    lost, ended, linked = house.ended(outcome=Outcome.LOST), house.ended(), None
    of_bob = tmp_dir_of(house, lost, tmp_dirs, uid=BOB.uid)
    of_one_that_cleans_up_itself = tmp_dir_of(house, ended, tmp_dirs)
    linked = house.ended(outcome=Outcome.LOST)
    link = tmp_dir_of(house, linked, tmp_dirs)
    shutil.rmtree(link)
    link.symlink_to(others)
    before = as_left(others)
    house.tidy(everything=False)
    assert of_bob.exists()
    assert of_one_that_cleans_up_itself.exists()
    assert as_left(others) == before


# ─── rows that grow old ──────────────────────────────────────────────────────────────────────────


def test_old_events_go_from_the_front(house: House) -> None:
    old, new = house.ended(at=NOW), submit(house.store, now=NOW + 20 * DAY).start
    run(house.store, new, at=NOW + 20 * DAY)
    house.tidy(after_days=31)
    told = house.events()
    pruned = house.store.machine.fact("events_pruned_to")
    assert {event["job"] for event in told} == {new, None}
    assert [event["seq"] for event in told] == list(range(pruned["seq"] + 1, told[-1]["seq"] + 1))
    assert pruned["at"] < house.clock.now - 30 * DAY
    house.assert_well()
    assert house.row(old)["state"] == "ended"


def test_a_clock_that_was_wrong_leaves_no_gap(house: House) -> None:
    """An event from the future keeps those behind it."""
    submit(house.store, now=NOW)
    submit(house.store, now=NOW + 1000 * DAY)
    submit(house.store, now=NOW)
    house.tidy(after_days=31)
    assert [event["seq"] for event in house.events()] == [2, 3]
    house.tidy(after_days=1100)
    assert house.events() == []


def test_events_go_in_portions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 4)
    for _ in range(10):
        submit(house.store)
    house.tidy(after_days=31)
    assert house.events() == []
    assert house.store.machine.fact("events_pruned_to") == {"seq": 10, "at": NOW}


def test_tokens_are_kept_for_a_day(house: House) -> None:
    submit(house.store, token="old")
    house.tidy(after_days=0.9)
    assert house.store.asked.answered(ALICE.uid, "old") is not None
    submit(house.store, token="new", now=house.clock.now)
    house.tidy(after_days=0.2)
    assert house.store.asked.answered(ALICE.uid, "old") is None
    assert house.store.asked.answered(ALICE.uid, "new") is not None


def test_an_environment_goes_with_its_last_job(house: House) -> None:
    both = submit(house.store, 2, content=b"A=1\0")
    for job in both:
        run(house.store, job)
    house.prune(both[0])
    house.tidy()
    assert house.count("environments") == 1
    house.prune(both[1])
    house.tidy()
    assert (house.count("environments"), house.count("specs")) == (0, 0)


# ─── forgotten ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_to_be_forgotten_goes_with_all_that_it_left(house: House) -> None:
    gone, kept = house.ended(), house.ended()
    house.prune(gone)
    house.tidy(everything=False)
    assert house.left(gone) == []
    assert house.left(kept) == everything(kept)
    assert [row["id"] for row in house.store.found.jobs()] == [kept]
    assert house.store.found.attempts(gone) == []
    (told,) = house.told("pruned")
    assert (told["jobs"], told["count"]) == (str(gone), 1)
    assert told["bytes"] >= 4096


def test_what_it_has_put_out_stays_unless_that_is_wished(house: House) -> None:
    kept, gone = house.ended(output="model.pt"), house.ended(output="model.pt")
    house.prune(kept)
    house.prune(gone, outputs=True)
    house.tidy(everything=False)
    assert house.left(kept) == [f"jobs/{kept}/1/output/model.pt"]
    assert house.left(gone) == []
    assert house.count("jobs") == 0


def test_an_output_that_is_a_thousand_folders_deep_goes(house: House) -> None:
    job = house.ended()
    deep = os.open(house.folder / "jobs" / str(job) / "1" / "output", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=deep)
        deeper = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = deeper
    os.close(deep)
    house.prune(job, outputs=True)
    house.tidy(everything=False)
    assert house.left(job) == []


def test_ids_are_not_given_again(house: House) -> None:
    jobs = [house.ended() for _ in range(5)]
    house.prune(*jobs)
    house.tidy()
    assert submit(house.store).start == jobs[-1] + 1
    assert house.store.database.rows("select * from pruned") == [{"first": 1, "last": 5}]


def test_neighbours_that_are_forgotten_are_one_row(house: House) -> None:
    jobs = [house.ended() for _ in range(9)]
    for job in (jobs[0], jobs[2], jobs[8], jobs[1], jobs[7], jobs[4], jobs[3]):
        house.prune(job)
        house.tidy(everything=False)
        house.assert_well()
    rows = house.store.database.rows("select * from pruned order by first")
    assert [(row["first"], row["last"]) for row in rows] == [(1, 5), (8, 9)]


def test_a_run_of_jobs_that_is_split_while_it_is_forgotten_is_forgotten_in_parts(
    house: House,
) -> None:
    jobs = submit(house.store, elements=Elements(indices=(range(10),)))
    house.store.happened.cancel(jobs[0], last=jobs[-1], actor="alice", now=NOW)
    for asked in (jobs, jobs[3:5]):
        found = house.store.pruned.wished(10)
        house.store.wished.prune([asked], outputs=False, actor="alice", now=NOW)
    house.store.pruned.forget(found, {}, now=NOW)
    assert house.store.database.rows("select first, last from pruned") == [{"first": 1, "last": 3}]
    house.assert_well()
    house.tidy(everything=False)
    assert house.store.database.rows("select first, last from pruned") == [{"first": 1, "last": 10}]


def test_a_job_that_has_not_ended_is_not_forgotten(house: House) -> None:
    queued, active = submit(house.store, 2)
    start(house.store, active)
    both = [range(queued, active + 1)]
    assert house.store.wished.prune(both, outputs=False, actor="alice", now=NOW) == 0
    house.tidy()
    assert house.count("jobs") == 2


def test_while_its_gpu_cools_down_it_is_there(house: House) -> None:
    job = submit(house.store).start
    run(house.store, job, "GPU-0", cooling=(5.0, "boot"))
    house.prune(job)
    house.tidy()
    assert house.count("jobs") == 1
    house.store.machine.release("GPU-0", 0, now=NOW)
    house.tidy()
    assert house.count("jobs") == 0


def test_what_cannot_be_forgotten_says_why_and_can_be_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.ended(output="model.pt")
    with monkeypatch.context() as patched:
        patched.setattr(job_files, "_run_rm", lambda *where: "Device or resource busy")
        house.prune(job, outputs=True)
        house.tidy()
        house.tidy()
    trouble = f"jobs/{job}/1/output: Device or resource busy"
    assert house.store.pruned.troubles(ALICE.uid) == [{"id": job, "trouble": trouble}]
    assert (house.store.pruned.pending(ALICE.uid), house.count("jobs")) == (0, 1)
    assert len([e for e in house.events() if e["kind"] == "prune_failed"]) == 1
    house.clock.now += 1
    house.prune(job, outputs=True)
    assert house.store.pruned.pending(ALICE.uid) == 1
    house.tidy()
    assert (house.left(job), house.count("jobs")) == ([], 0)


def test_who_asks_is_who_is_counted(house: House) -> None:
    job = house.ended()
    house.prune(job)
    pending = house.store.pruned.pending
    assert (pending(ALICE.uid), pending(BOB.uid), pending(None)) == (1, 0, 1)


def test_an_older_database_does_not_give_ids_again(house: House) -> None:
    """A backup was put back: of what came after it only the folders are there."""
    first = house.ended()
    for later in (2, 5):
        (house.folder / "jobs" / str(later) / "1").mkdir(parents=True)
    house.keeper.skip_known_ids()
    assert submit(house.store).start == 6
    assert [told["jobs"] for told in house.told("ids_skipped")] == ["2-5"]
    house.keeper.skip_known_ids()
    assert submit(house.store).start == 7
    assert house.left(first) == everything(first)


def test_with_no_job_at_all_ids_are_skipped_too(house: House) -> None:
    (house.folder / "jobs" / "3").mkdir(parents=True)
    house.keeper.skip_known_ids()
    assert submit(house.store).start == 4


# ─── which are meant ─────────────────────────────────────────────────────────────────────────────


def chosen(house: House, **words: Any) -> list[int]:
    rows = house.store.pruned.choose(**{"uid": None, "limit": 100} | words)
    return [row["id"] for row in rows]


def test_what_can_be_chosen(house: House) -> None:
    first, failed = house.ended(at=NOW), house.ended(at=NOW + 5, outcome=Outcome.FAILED)
    of_bob = submit(house.store, by=BOB).start
    run(house.store, of_bob, at=NOW + 7)
    submit(house.store)
    last = house.ended(at=NOW + 8)
    assert chosen(house) == [first, failed, of_bob, last]
    assert chosen(house, uid=ALICE.uid) == [first, failed, last]
    assert chosen(house, outcomes=["failed", "lost"]) == [failed]
    assert chosen(house, ended_before=NOW + 5) == [first]
    assert chosen(house, keep=1) == [first, failed, of_bob]
    assert chosen(house, keep=2, uid=ALICE.uid) == [first]
    assert chosen(house, keep=9) == []
    assert chosen(house, spans=[range(1, 3), range(5, 10**30)]) == [first, failed, last]
    assert chosen(house, after=failed, limit=1) == [of_bob]


# ─── what it costs ───────────────────────────────────────────────────────────────────────────────


def steps_of(store: Store, work: Callable[[], Any]) -> int:
    """How many steps SQLite's machine takes; the same on each computer."""
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    store.database._db.set_progress_handler(count, 1)
    try:
        work()
    finally:
        store.database._db.set_progress_handler(None)
    return steps


def test_a_round_costs_no_more_for_all_that_is_done(house: House) -> None:
    """However many jobs have ended, are measured and have lost their files."""

    def look() -> None:
        house.store.pruned.wished(64)
        house.store.pruned.unmeasured(64)
        house.store.pruned.oldest_files(64)
        house.store.pruned.forget_tokens(NOW, 1000)
        house.store.pruned.prune_events(NOW - 1, 1000)

    def add(count: int) -> None:
        with house.store.transaction():
            jobs = submit(house.store, count)
            for job in jobs:
                run(house.store, job)
            house.store.pruned.measured(dict.fromkeys(jobs, 10))
            house.store.pruned.files_removed(dict.fromkeys(jobs, 10), cause="old", now=NOW)

    add(500)
    before = steps_of(house.store, look)
    add(1000)
    assert steps_of(house.store, look) <= before + 50


# ─── in a daemon ─────────────────────────────────────────────────────────────────────────────────


def end_all(daemon: Daemon, jobs: Sequence[int]) -> None:
    with daemon.client() as client:
        client.wait(jobs, timeout_s=30)


def test_a_daemon_keeps_its_logs_below_the_size(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start("--keep-size", "4M")
    write = "head -c 2000000 /dev/zero | tr '\\0' x"
    with daemon.client() as client:
        jobs = [client.submit(["sh", "-c", f"{write}; sleep 0.{n}"], gpus=0) for n in range(4)]
        client.wait(jobs, timeout_s=30)

        def removed() -> list[int]:
            return [job["id"] for job in client.jobs(all=True) if job["files_removed_at"]]

        until(lambda: len(removed()) == 2, "the oldest two to go")
        assert removed() == jobs[:2]
        assert not os.path.exists(client.job(jobs[0])["log"])
        assert os.path.getsize(client.job(jobs[3])["log"]) == 2_000_000
    for words in (("logs", str(jobs[0])), ("logs", "-f", str(jobs[0]))):
        ran = daemon.gpuq(*words)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert f"the log of job {jobs[0]} was removed " in ran.stderr
        assert "keep_size" in ran.stderr
    assert "files removed" in daemon.gpuq("show", str(jobs[0])).stdout
    assert daemon.gpuq("daemon", "check").returncode == 0


def test_a_daemon_removes_old_logs_when_it_starts(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        job = client.submit(["sh", "-c", "echo hello; echo model > $GPUQ_OUTPUT_DIR/model"])
        client.wait([job], timeout_s=30)
        output = Path(client.job(job)["output_dir"])
    daemon.stop()
    daemon.start("--keep-for", "0.1s")
    with daemon.client() as client:
        until(lambda: client.job(job)["files_removed_at"], "its log to go")
        assert client.job(job)["reason"] == "exit code 0"
    assert (output / "model").read_text() == "model\n"
    assert [path.name for path in output.parent.iterdir()] == ["output"]
    assert stat.S_ISDIR(output.parent.stat().st_mode)


def test_a_backup_that_is_put_back_gives_no_id_again(
    stopped_daemon: Daemon, tmp_path: Path
) -> None:
    daemon, backup = stopped_daemon.start(), tmp_path / "backup.db"
    with daemon.client() as client:
        end_all(daemon, [client.submit(["true"])])
        assert daemon.gpuq("daemon", "backup", str(backup)).returncode == 0
        later = client.submit(["echo", "later"])
        end_all(daemon, [later])
        log = client.job(later)["log"]
    daemon.stop()
    shutil.copy(backup, daemon.state / "gpuq.db")
    daemon.start()
    with daemon.client() as client:
        assert client.submit(["true"]) == later + 1
    assert Path(log).read_text() == "later\n"
    assert daemon.gpuq("daemon", "check").returncode == 0


# ─── a damaged page is found before it is needed ─────────────────────────────────────────────────


def damage(database: Path) -> None:
    """A page of a table, and none that is at hand already."""
    with closing(sqlite3.connect(database)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
        roots = {row[0] for row in db.execute("select rootpage from sqlite_schema")}
    pages = database.stat().st_size // 4096
    victim = next(page for page in range(pages, 0, -1) if page not in roots)
    with database.open("r+b") as file:
        file.seek((victim - 1) * 4096)
        file.write(b"\x5a" * 4096)


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    submit(house.store, 200, argv=(b"x" * 3000,))
    house.store.database.value("pragma shrink_memory")
    damage(house.database)
    yield house
    house.store.close()


def test_once_a_day_the_whole_file_is_read(damaged: House) -> None:
    told: list[StoreDamaged] = []
    damaged.store.database.on_damage = told.append
    damaged.tidy(after_days=0.9)
    with pytest.raises(StoreDamaged, match="the database is damaged"):
        damaged.tidy(after_days=0.2)
    assert len(told) == 1


def test_a_whole_file_is_read_and_nothing_is_said(house: House) -> None:
    house.ended()
    for _ in range(3):
        house.tidy(after_days=1.1)
    assert house.store.database.damage is None


# ─── who asks ────────────────────────────────────────────────────────────────────────────────────


class World:
    """A daemon in which nothing happens but what is counted here."""

    turns = 0
    plan = Plan()
    gpus = ()
    gpu_trouble = None
    begun = 0
    commit_and_start = nullcontext

    def keep_house(self) -> None:
        self.begun += 1

    def wake(self) -> None: ...
    async def first_reading(self, timeout_s: float) -> None: ...


def ask(house: House, do: str, by: Submitter = ALICE, **request: Any) -> dict[str, Any]:
    handlers = Handlers(house.store, house.config, World(), Watchers())  # type: ignore[arg-type]
    peer = Peer(uid=by.uid, gid=by.gid, pid=1, user=by.user, is_admin=by.uid == 0)
    return asyncio.run(handlers.handle({"do": do, **request}, peer))


ROOT = Submitter(uid=0, gid=0, user="root")


def test_nobody_prunes_the_jobs_of_others(house: House) -> None:
    job = house.ended()
    for do in ("prunable", "prune"):
        with pytest.raises(NotPermitted, match=f"job {job} belongs to alice"):
            ask(house, do, BOB, refs=[str(job)])
    assert ask(house, "prunable", BOB, keep=0)["jobs"] == []
    assert [job["id"] for job in ask(house, "prunable", ROOT, keep=0)["jobs"]] == [job]
    assert ask(house, "prune", ROOT, refs=[str(job)]) == {"asked": 1}
    assert house.row(job)["prune_actor"] == "root"


def test_what_is_asked_twice_is_done_once(house: House) -> None:
    """A client whose answer was lost asks again, and by then the job may be gone."""
    job, other = house.ended(), house.ended()
    ask(house, "prune", refs=[f"{job}-{other}"])
    ask(house, "prune", refs=[f"{job}-{other}"])
    house.tidy()
    assert ask(house, "prune", refs=[f"{job}-{other}"]) == {"asked": 0}
    assert (house.count("jobs"), [told["jobs"] for told in house.told("pruned")]) == (0, ["1-2"])


def test_a_list_says_what_is_on_disk(house: House) -> None:
    plain, put_out = house.ended(log=MIB), house.ended(output="model.pt")
    jobs = ask(house, "prunable", refs=[f"{plain}-{put_out}"])["jobs"]
    assert [(job["id"], job["output_bytes"]) for job in jobs] == [(plain, 0), (put_out, None)]
    assert MIB < jobs[0]["files_bytes"] < MIB + 40_000
    counted = ask(house, "prunable", refs=[str(put_out)], outputs=True)["jobs"][0]
    assert 0 < counted["output_bytes"] < 10_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("states", ["running"]),
        ("states", "failed"),
        ("older_than_s", "7d"),
        ("older_than_s", True),
        ("keep", -1),
        ("keep", 1.5),
        ("after", "x"),
        ("refs", "12"),
    ],
)
def test_what_makes_no_sense_is_refused(house: House, field: str, value: Any) -> None:
    with pytest.raises(UsageError):
        ask(house, "prunable", **{field: value})


def test_an_environment_that_is_forgotten_meanwhile_is_asked_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the job that has it was read."""
    known = iter([False, True])
    monkeypatch.setattr(house.store.asked, "knows_environment", lambda uid, digest: next(known))
    variables = ["A=1"]
    submitted = {
        "jobs": [{"argv": ["true"], "cwd": "/", "gpus": 0}],
        "env_hash": sha256(b"A=1\0").hexdigest(),
    }
    assert ask(house, "submit", **submitted) == {"wanted": "environment"}
    assert ask(house, "submit", environment=variables, **submitted)["first"] == 1


# ─── what a user may do to whoever cleans up ─────────────────────────────────────────────────────


def test_a_user_who_stops_what_removes_their_files_holds_up_others_for_a_while_only(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that removes what is a user's is that user's, who may stop it."""
    stopped = tmp_path / "rm"
    stopped.write_text("#!/bin/sh\nkill -STOP $$\n")
    stopped.chmod(0o755)
    monkeypatch.setattr(job_files, "RM", str(stopped))
    monkeypatch.setattr(job_files, "RM_S", 0.2)
    house = make_house()
    stuck, late, other = (house.ended(output=name) for name in ("model.pt", "model.pt", ""))
    house.prune(stuck, late, other, outputs=True)
    house.tidy()
    troubles = [one["trouble"] for one in house.store.pruned.troubles(ALICE.uid)]
    assert troubles == [f"jobs/{job}/1/output: {job_files.TOOK_LONG}" for job in (stuck, late)]
    assert house.left(other) == []


def test_a_tree_that_grows_while_it_is_counted_is_not_counted_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.ended(output="model.pt")
    monkeypatch.setattr(job_files, "COUNTING_S", 0.0)
    assert job_files.measure(str(house.folder), job, 1, count_outputs=True).output_bytes == 0
