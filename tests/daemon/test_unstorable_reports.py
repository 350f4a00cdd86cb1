"""What no database can hold costs the job that says it its report, and not the daemon nor its end."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuq.core.results.reported import Told
from gpuq.daemon import reports
from gpuq.daemon.clock import Clock
from gpuq.daemon.reports import LAST, Reports
from gpuq.daemon.store import Store
from gpuq.daemon.store.reported import CannotBeStored
from tests import stored
from tests.desk import until
from tests.stored import NOW, JobState

LINE = '{"v": {"loss": 0.5}}\n'


class Desk:
    """Two attempts that run, and what is read of their reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(":memory:")
        self.jobs = [stored.job_in(self.store, JobState.RUNNING) for _ in range(2)]
        self.reading = Reports(self.store, Clock(), str(folder), lambda uid: os.getuid())
        for job in self.jobs:
            self.report(job).parent.mkdir(parents=True)
            self.report(job).write_text(LINE)

    def report(self, job: int) -> Path:
        return self.folder / "jobs" / str(job) / "1" / "report"

    def told(self, job: int) -> Told:
        return self.store.reported.told(job, 1)

    def look_until(self, *steps: Callable[[], object]) -> None:
        """Until each of these has come true, one after another."""

        async def main() -> None:
            reading = asyncio.ensure_future(self.reading.run())
            for step in steps:
                await until(step, "what they report")
            assert not reading.done(), reading.exception()
            reading.cancel()

        self.reading.begun()
        asyncio.run(main())

    def refuse(self, job: int) -> None:
        """The database takes nothing of that job."""
        refusal = "begin select raise(abort, 'no such value'); end"
        trigger = f"before insert on reports when new.job = {job} {refusal}"
        stored.write(self.store, f"create trigger refusing {trigger}")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(reports, "EVERY_S", 0.02)
    one = Desk(tmp_path)
    yield one
    one.store.close()


def test_what_cannot_be_stored_is_refused_by_name_and_changes_nothing(desk: Desk) -> None:
    job, known = desk.jobs[0], Told(lines=1)
    assert desk.store.reported.write(job, 1, known, after=Told())
    for told in (Told(skipped_bytes=2**70), Told(progress=7.0, progress_from="log")):
        with pytest.raises(CannotBeStored):
            desk.store.reported.write(job, 1, told, after=known)
    with pytest.raises(CannotBeStored):
        desk.store.reported.write(job, 1, Told(file="\ud800"), after=known)
    assert desk.told(job) == known


def test_one_report_that_cannot_be_stored_costs_no_other(desk: Desk) -> None:
    bad, good = desk.jobs
    desk.refuse(bad)
    desk.look_until(
        lambda: desk.told(good).metrics == {"loss": 0.5},
        lambda: desk.report(good).write_text(LINE.replace("0.5", "0.25") * 2),
        lambda: desk.told(good).metrics == {"loss": 0.25},
    )
    assert desk.told(bad) == Told()


def test_a_report_that_cannot_be_stored_keeps_no_end(desk: Desk) -> None:
    bad = desk.jobs[0]
    desk.refuse(bad)
    with desk.store.transaction():
        desk.reading.take_last(bad, 1)
        stored.end(desk.store, bad)
    assert stored.states(desk.store)[bad] == "ended"


def test_an_end_that_waits_for_such_a_report_comes(desk: Desk) -> None:
    bad = desk.jobs[0]
    desk.refuse(bad)
    desk.report(bad).write_text(LINE * (2 * LAST // len(LINE)))

    async def main() -> None:
        is_over = asyncio.Event()
        reading = asyncio.ensure_future(desk.reading.run())
        assert desk.reading.holds_back(bad, 1, is_over.set)
        await asyncio.wait_for(is_over.wait(), 20)
        desk.reading.take_last(bad, 1)
        reading.cancel()

    asyncio.run(main())


def test_what_was_emptied_while_its_end_was_looked_for_is_read_from_its_beginning(
    desk: Desk,
) -> None:
    """As it was left then: skipped to its end, where nothing was any more to know it by."""
    job = desk.jobs[0]
    after = Told(read_bytes=2**40, skipped_bytes=2**40)
    one = desk.store.reported.reporter(job, 1)
    assert one is not None
    found = desk.reading._place(one).look(after, LAST, now=NOW)
    assert (found.told.lines, found.told.metrics) == (1, {"loss": 0.5})
