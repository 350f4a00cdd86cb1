"""What jobs report arrives exactly and once."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.decisions import Plan
from gpuq.core.results.reported import Told
from gpuq.daemon import reports
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.reports import AT_ONCE
from gpuq.daemon.requests.views import attempt_view, job_view
from gpuq.daemon.store import Store
from tests import stored
from tests.alive import Alive, alive, with_alive
from tests.stored import NOW, full

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "EVERY_S", 0.02)


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


def test_what_a_running_job_reports_is_seen(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        go = tmp_path / "go"
        say = 'echo \'{"v": {"progress": 0.25, "loss": 1.5}}\' >> $GPUQ_REPORT'
        job = daemon.submit(f"{say}; {waits_for(go)}; {say.replace('0.25', '0.75')}")
        await daemon.running(job)
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
    many = 4 * AT_ONCE // 90

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
        assert report_of(daemon, job).stat().st_size > 2 * AT_ONCE
        async with alive(tmp_path) as daemon:
            await daemon.ended(job)
            view = shown(daemon, job)
            assert (view["report_lines"], view["metrics"]) == (many + 1, {"step": many - 1})
            assert view["report_trouble"] is None

    asyncio.run(main())


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
            looks = daemon.loop._reports
            for _ in range(2):
                due = looks._next_round_at
                await daemon.until(lambda: looks._next_round_at != due, "a look")  # noqa: B023
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
        waiting = daemon.loop._reports._news
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
