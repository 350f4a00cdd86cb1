"""What jobs report arrives exactly and once, and no file that a job puts there does harm."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.decisions import Plan
from gpuq.core.results.reported import Told
from gpuq.daemon import reports
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.clock import Clock
from gpuq.daemon.report_files import MOST_UNREAD, Look, Place
from gpuq.daemon.reports import AT_ONCE, LAST, Reports
from gpuq.daemon.requests.views import attempt_view, job_view
from gpuq.daemon.store import Store
from gpuq.daemon.store.reported import Reporter
from tests import stored
from tests.alive import Alive, alive, with_alive
from tests.stored import NOW, full

PROJECT = Path(__file__).parents[2]
MOST = 2**20


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "EVERY_S", 0.02)
    monkeypatch.setattr(reports, "BEHIND_S", 0.01)


def python(code: str) -> dict[str, Any]:
    """A job that has gpuq.job."""
    argv = (os.fsencode(sys.executable), b"-c", f"from gpuq import job, job as _\n{code}".encode())
    return {"argv": argv, "changes": {b"PYTHONPATH": os.fsencode(PROJECT)}}


def shown(daemon: Alive, job: int) -> dict[str, Any]:
    return job_view(daemon.row(job), Plan(), str(daemon.state_dir), sight=Sight.ALL)


def attempts(daemon: Alive, job: int) -> list[dict[str, Any]]:
    row = daemon.row(job)
    found = daemon.attempts(job)
    return [attempt_view(one, row, str(daemon.state_dir), sight=Sight.ALL) for one in found]


def report_of(daemon: Alive, job: int, attempt: int = 1) -> Path:
    return daemon.state_dir / "jobs" / str(job) / str(attempt) / "report"


def waits_for(path: Path) -> str:
    return f"while [ ! -e {path} ]; do sleep 0.01; done"


# ─── while it runs, and as it ends ───────────────────────────────────────────────────────────────


def test_what_a_running_job_reports_is_seen(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        go = tmp_path / "go"
        say = 'echo \'{"v": {"progress": 0.25, "loss": 1.5}}\' >> $GPUQ_REPORT'
        job = daemon.submit(f"{say}; {waits_for(go)}; {say.replace('0.25', '0.75')}")
        await daemon.until(lambda: shown(daemon, job)["report_lines"] == 1, "a report")
        view = shown(daemon, job)
        assert (view["state"], view["progress"], view["progress_from"]) == (
            "running",
            0.25,
            "report",
        )
        assert (view["metrics"], view["report_trouble"]) == ({"loss": 1.5}, None)
        go.touch()
        await daemon.ended(job)
        assert (shown(daemon, job)["progress"], shown(daemon, job)["report_lines"]) == (0.75, 2)
        (attempt,) = attempts(daemon, job)
        assert attempt["metrics"] == {"loss": 1.5}

    with_alive(tmp_path, deed)


def test_whoever_sees_the_end_sees_the_last_report(tmp_path: Path) -> None:
    """Both are one commit: nobody finds a job that has ended and a value from before."""

    async def deed(daemon: Alive) -> None:
        seen = []

        def look() -> None:
            rows = daemon.store.database.rows(
                "select j.id, r.metrics from jobs j left join reports r on r.job = j.id "
                "where j.state = 'ended'"
            )
            seen.extend(row["metrics"] for row in rows)

        daemon.store.database.on_commit = look
        code = "for i in range(50): job.report(step=i)"
        jobs = [daemon.submit("", **python(code)) for _ in range(3)]
        for job in jobs:
            await daemon.ended(job)
        assert set(seen) == {'{"step": 49}'}

    with_alive(tmp_path, deed)


def test_each_attempt_has_its_own_values_and_the_job_the_latest(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        say = 'echo "{\\"v\\": {\\"try$GPUQ_ATTEMPT\\": 1}}" >> $GPUQ_REPORT'
        job = daemon.submit(f"{say}; [ $GPUQ_ATTEMPT = 2 ]", retries=1, backoff="0s")
        await daemon.ended(job)
        assert [one["metrics"] for one in attempts(daemon, job)] == [{"try1": 1}, {"try2": 1}]
        assert shown(daemon, job)["metrics"] == {"try2": 1}

    with_alive(tmp_path, deed)


def test_what_is_left_of_an_attempt_cannot_report_for_the_next(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        first = "$(dirname $(dirname $GPUQ_REPORT))/1/report"
        script = f"""
            [ $GPUQ_ATTEMPT = 2 ] && echo '{{"v": {{"late": 1}}}}' >> {first}
            [ $GPUQ_ATTEMPT = 2 ]
        """
        job = daemon.submit(script, retries=1, backoff="0s")
        await daemon.ended(job)
        assert [one["metrics"] for one in attempts(daemon, job)] == [{}, {}]

    with_alive(tmp_path, deed)


def test_what_was_reported_while_no_daemon_was_there_is_not_lost(tmp_path: Path) -> None:
    """More than is read at once, and the job has ended meanwhile."""
    go = tmp_path / "go"
    many = 2 * LAST // 90

    async def main() -> None:
        async with alive(tmp_path, leave=True) as daemon:
            code = f"""
import os, time
job.report(step=0)
while not os.path.exists({str(go)!r}): time.sleep(0.01)
for i in range({many}): job.report(step=i)
"""
            job = daemon.submit("", **python(code))
            await daemon.until(lambda: shown(daemon, job)["report_lines"] == 1, "a report")
            pid = daemon.attempts(job)[0]["runner_pid"]
        go.touch()
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            await asyncio.sleep(0.01)
        assert report_of(daemon, job).stat().st_size > 2 * LAST
        async with alive(tmp_path) as daemon:
            await daemon.ended(job)
            view = shown(daemon, job)
            assert (view["report_lines"], view["metrics"]) == (many + 1, {"step": many - 1})
            assert view["report_trouble"] is None

    asyncio.run(main())


def test_what_is_read_beside_the_last_reports_does_not_cost_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an end waits for what is unread, a look of before comes back and has read on."""
    (tmp_path / "jobs" / "1" / "1").mkdir(parents=True)
    many = (LAST + AT_ONCE + 20_000) // 44
    (tmp_path / "jobs" / "1" / "1" / "report").write_text(numbered(*range(1, many + 1)))
    store = Store(":memory:")
    job = stored.job_in(store, stored.JobState.RUNNING)
    reading = Reports(store, Clock(), str(tmp_path), lambda uid: os.getuid())
    one = store.reported.reporter(job, 1)
    assert one is not None
    place, has_come = reading._place(one), []

    async def with_another(work: Callable[[], Look]) -> Look:
        found = work()
        if found.unread_bytes <= LAST and not has_come:
            before = store.reported.told(job, 1)
            has_come.append(place.look(before, 5000, now=NOW).told)
            assert store.reported.write(job, 1, has_come[0], after=before)
        return found

    monkeypatch.setattr(reports, "aside", with_another)

    async def main() -> None:
        is_over = asyncio.Event()
        assert reading.holds_back(job, 1, is_over.set)
        await asyncio.wait_for(is_over.wait(), 20)
        reading.take_last(job, 1)

    asyncio.run(main())
    told = store.reported.told(job, 1)
    assert has_come
    assert (told.lines, told.missed, told.metrics) == (many, 0, {"step": many})
    store.close()


def test_a_full_disk_delays_reports_and_loses_none(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        more, go = tmp_path / "more", tmp_path / "go"
        code = f"""
import os, time
job.report(step=1)
while not os.path.exists({str(more)!r}): time.sleep(0.01)
job.report({{f"text{{i}}": "x" * 190 for i in range(15)}})  # more than finds room on its page
while not os.path.exists({str(go)!r}): time.sleep(0.01)
"""
        job = daemon.submit("", **python(code))
        await daemon.until(lambda: shown(daemon, job)["report_lines"] == 1, "a report")
        with full(daemon.store):
            more.touch()
            await daemon.until(lambda: report_of(daemon, job).stat().st_size > 2500, "its report")
            served = daemon.loop._reports._served
            await daemon.until(lambda: daemon.loop._reports._served > served + 2, "two looks")
            assert shown(daemon, job)["report_lines"] == 1
        await daemon.until(lambda: shown(daemon, job)["report_lines"] == 2, "the second")
        go.touch()
        await daemon.ended(job)

    with_alive(tmp_path, deed)


def test_no_event_tells_of_reports_and_an_idle_daemon_does_not_look(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job, quiet = daemon.submit("", **python("job.report(step=1)")), daemon.submit("true")
        await daemon.ended(job)
        await daemon.ended(quiet)
        assert shown(daemon, job)["report_lines"] == 1
        assert stored.kinds(daemon.store, job) == stored.kinds(daemon.store, quiet)
        waiting = daemon.loop._reports._has_begun
        await daemon.until(lambda: waiting._waiters, "the reader to rest")  # type: ignore[attr-defined]

    with_alive(tmp_path, deed)


def test_a_report_that_was_read_beside_an_end_changes_nothing(tmp_path: Path) -> None:
    """A look in a thread comes back after the attempt has ended."""
    store = Store(":memory:")
    job = stored.job_in(store, stored.JobState.RUNNING)
    before = store.reported.told(job, 1)
    one = Told(lines=1, read_bytes=10, metrics={"a": 1})
    two = Told(lines=2, read_bytes=20, metrics={"a": 2})
    assert store.reported.write(job, 1, two, after=before)
    assert not store.reported.write(job, 1, one, after=before), "somebody else has read on"
    stored.end(store, job)
    assert not store.reported.write(job, 1, Told(), after=two), "it has ended"
    assert store.reported.told(job, 1) == two
    assert store.reported.reporter(job, 1) is None
    store.close()


def test_of_an_attempt_that_never_ran_nothing_is_kept(tmp_path: Path) -> None:
    store = Store(":memory:")
    job = stored.job_in(store, stored.JobState.STARTING)
    assert store.reported.write(job, 1, Told(lines=1), after=Told())
    store.happened.return_to_queue(job, 1, cause="no room", now=NOW)
    assert stored.count(store, "reports") == 0
    store.close()


# ─── what a job puts in the file's place ─────────────────────────────────────────────────────────


class Files:
    """One attempt's files, and what has been told by now."""

    def __init__(self, folder: Path, owner: int | None = None) -> None:
        self.folder = folder / "jobs" / "5" / "1"
        self.folder.mkdir(parents=True)
        (folder / "attempt").mkdir()
        self.report = self.folder / "report"
        self.place = Place(
            jobs_dir=str(folder / "jobs"),
            attempt_dir=str(folder / "attempt"),
            reporter=Reporter(job=5, attempt=1, uid=1000, began_at=0.0),
            owner=os.getuid() if owner is None else owner,
        )
        self.told = Told()

    def look(self, most_bytes: int = MOST, *, is_last: bool = False) -> Told:
        found = self.place.look(self.told, most_bytes, now=NOW, is_last=is_last)
        self.told = found.told
        return self.told

    def all(self) -> Told:
        """Look by look."""
        while (before := self.told) != self.look():
            assert before.read_bytes != self.told.read_bytes or before.file is None
        return self.told


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def numbered(*numbers: int, by: str = "a") -> str:
    return "".join(f'{{"by": "{by}", "n": {n}, "v": {{"step": {n}}}}}\n' for n in numbers)


def test_a_file_that_is_appended_to_is_read_on(files: Files) -> None:
    assert files.look() == Told(), "it is not there yet"
    files.report.write_text(numbered(1, 2))
    assert files.look().lines == 2
    measure = files.place.measure()
    assert files.place.measure() == measure, "nothing new"
    with files.report.open("a") as file:
        file.write(numbered(3))
    assert files.place.measure() != measure
    assert (files.look().lines, files.told.metrics) == (3, {"step": 3})


def test_a_copy_of_all_lines_changes_nothing(files: Files) -> None:
    files.report.write_text(numbered(1, 2, 3))
    files.look()
    with files.report.open("a") as file:
        file.write(numbered(1, 2, 3))
    assert (files.look().lines, files.told.metrics) == (3, {"step": 3})


@pytest.mark.parametrize("how", ["truncated", "replaced", "rewritten longer", "same inode number"])
def test_a_file_that_is_written_anew_is_read_anew_and_nothing_counts_twice(
    files: Files, how: str
) -> None:
    files.report.write_text(numbered(1, 2, 3))
    files.look()
    if how == "replaced":
        other = files.folder / "other"
        other.write_text(numbered(2, 3, 4))
        other.rename(files.report)
    elif how == "truncated":
        files.report.write_text(numbered(4))
    elif how == "rewritten longer":
        files.report.write_text(numbered(4, 3, 2, 1))
    else:
        files.report.unlink()
        files.report.write_text(numbered(4, 5) + " " * 500)
    files.look()
    assert files.told.lines == (5 if how == "same inode number" else 4)
    assert files.told.missed == 0


def test_a_flood_is_skipped_but_for_its_end_and_named(files: Files) -> None:
    with files.report.open("wb") as file:
        file.truncate(3 * MOST_UNREAD)  # takes no room: it is a hole
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + numbered(7).encode())
    files.all()
    assert files.told.metrics == {"step": 7}
    words = files.told.skipped_bytes
    assert 2 * MOST_UNREAD <= words < 2 * MOST_UNREAD + 100
    assert files.told.trouble is None or "longer than 4 KiB" in files.told.trouble


def test_the_last_look_is_bounded_and_sees_the_end(files: Files) -> None:
    files.report.write_text(numbered(*range(1, 1001)))
    files.look(10_000, is_last=True)
    assert files.told.metrics == {"step": 1000}
    assert files.told.skipped_bytes == files.report.stat().st_size - 10_000


def test_a_pipe_keeps_nobody_waiting(files: Files) -> None:
    os.mkfifo(files.report)
    assert files.look().trouble == "its report cannot be read: it is no file"


@pytest.mark.parametrize("where", ["report", "attempt", "job"])
def test_no_link_is_followed(files: Files, tmp_path: Path, where: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "1").mkdir(parents=True)
    (elsewhere / "report").write_text(numbered(9))
    (elsewhere / "1" / "report").write_text(numbered(9))
    if where == "report":
        files.report.symlink_to(elsewhere / "report")
    elif where == "attempt":
        files.folder.rmdir()
        files.folder.symlink_to(elsewhere)
    else:
        files.folder.rmdir()
        files.folder.parent.rmdir()
        files.folder.parent.symlink_to(elsewhere)
    told = files.look()
    assert (told.lines, told.metrics) == (0, {})
    assert told.trouble is not None
    assert told.trouble.startswith("its report cannot be read: ")


def test_what_belongs_to_another_user_is_not_read(tmp_path: Path) -> None:
    files = Files(tmp_path, owner=os.getuid() + 1)
    files.report.write_text(numbered(1))
    told = files.look()
    assert told.lines == 0
    assert told.trouble == f"its report cannot be read: it belongs to uid {os.getuid()}"


@pytest.mark.skipif(os.getuid() != 0, reason="to mount something takes root")
def test_what_is_mounted_there_is_not_even_asked(tmp_path: Path) -> None:
    files = Files(tmp_path, owner=os.getuid() + 1)
    files.report.write_text(numbered(1))
    os.chown(files.report, os.getuid() + 1, -1)
    with mounted(files.folder):
        assert files.look().trouble == "its report cannot be read: something is mounted over it"


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as other:
        if os.system(f"mount --bind {other} {folder}") != 0:
            pytest.skip("nothing can be mounted here")
        try:
            yield
        finally:
            os.system(f"umount {folder}")
