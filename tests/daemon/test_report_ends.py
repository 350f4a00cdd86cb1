"""No report keeps a job from ending or others from being served, and little of it is kept."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.core.model import Request
from gpuq.core.results.reported import Told, read_on
from gpuq.daemon import reports
from gpuq.daemon.clock import Clock
from gpuq.daemon.report_files import MOST_AT_END
from gpuq.daemon.reports import AT_ONCE, LAST, Reports
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.upkeep.aside import aside
from tests import stored
from tests.desk import until
from tests.reported import numbered
from tests.stored import NOW, full

SAID = [
    b'{"v": {"a": -0.0, "b": 1e308, "c": 12345678901234567890, "d": 0.1, "e": null, "f": true}}',
    b'{"v": {"\\ud800": "\\u0000\\udfff", "progress": 1}, "at": 1}',
    b'{"by": "a", "n": 5, "v": {"progress": 0.3, "nan": NaN}}',
    b'{"by": "a", "n": 3, "v": {"progress": 80, "list": []}}',
    b'{"by": "one of many signs, and more", "n": 9007199254740991, "cut": true, "v": {}}',
]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "EVERY_S", 0.02)


# ─── ends that wait for what is unread ───────────────────────────────────────────────────────────


class Ends:
    """Attempts that run, and a reader of their reports. `over` gets each job whose end is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(":memory:")
        self.reading = Reports(self.store, Clock(), str(folder), lambda uid: os.getuid())
        self.over: list[int] = []

    def job(self, said: str | bytes) -> int:
        job = stored.job_in(self.store, stored.JobState.RUNNING, request=Request(gpus=0))
        self.report(job).parent.mkdir(parents=True)
        self.report(job).write_bytes(said if isinstance(said, bytes) else said.encode())
        return job

    def report(self, job: int) -> Path:
        return self.folder / "jobs" / str(job) / "1" / "report"

    def told(self, job: int) -> Told:
        return self.store.reported.told(job, 1)

    def hear_end(self, job: int) -> bool:
        return self.reading.holds_back(job, 1, lambda: self.over.append(job))

    def commit_end(self, job: int) -> Told:
        with self.store.transaction():
            self.reading.take_last(job, 1)
            stored.end(self.store, job)
        return self.told(job)

    def live(self, condition: Callable[[], object], *, hear: Sequence[int] = ()) -> None:
        """Reads until that is so. All ends of `hear` are heard in one moment, before that."""

        async def main() -> None:
            for job in hear:
                assert self.hear_end(job)
            run = asyncio.ensure_future(self.reading.run())
            try:
                await until(lambda: run.done() or condition(), "the reader to come so far")
            finally:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
                self.reading.close()

        asyncio.run(main())


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(tmp_path)
    yield ends
    ends.store.close()


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the first of each queue, and then everybody else."""
    monkeypatch.setattr(reports, "SLICE_S", 0.0)


def before_each_look(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    async def with_deed(work: Callable[[], Any]) -> Any:
        deed()
        return await aside(work)

    monkeypatch.setattr(reports, "aside", with_deed)


@pytest.mark.usefixtures("small_slices")
def test_an_end_does_not_wait_for_what_is_appended_after_it(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 4 * AT_ONCE // 40
    said = numbered(*range(1, many + 1))
    job = ends.job(said)

    def append() -> None:
        with ends.report(job).open("a") as file:
            file.write(numbered(*range(1, many + 1), by="somebody else"))

    before_each_look(monkeypatch, append)
    ends.live(lambda: ends.over, hear=[job])
    told = ends.commit_end(job)
    assert (told.lines, told.skipped_bytes, told.read_bytes) == (many, 0, len(said))


@pytest.mark.usefixtures("small_slices")
def test_an_end_does_not_wait_for_a_file_that_is_written_anew_again_and_again(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 20 * AT_ONCE // 40
    job = ends.job(numbered(*range(1, many + 1)))
    size, looks = ends.report(job).stat().st_size, []

    def write_anew() -> None:
        looks.append(job)
        ends.report(job).write_text(numbered(*range(1, many + 1), by=f"{len(looks):08}"))

    before_each_look(monkeypatch, write_anew)
    ends.live(lambda: ends.over, hear=[job])
    told = ends.commit_end(job)
    assert told.read_bytes == size
    assert told.skipped_bytes > size // 2
    assert len(looks) < 5


def test_of_the_last_part_only_so_much_is_read_and_the_rest_is_named(ends: Ends) -> None:
    job = ends.job("")
    with ends.report(job).open("wb") as file:
        file.truncate(2 * MOST_AT_END)  # a hole, which takes no room
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + numbered(7).encode())
    size = ends.report(job).stat().st_size
    ends.live(lambda: ends.over, hear=[job])
    told = ends.commit_end(job)
    assert (told.metrics, told.skipped_bytes) == ({"step": 7}, size - MOST_AT_END)


@pytest.mark.parametrize(("waits", "is_killed"), [("WAITS_S", False), ("WAITS_KILLED_S", True)])
def test_an_end_waits_for_its_last_part_only_so_long(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, waits: str, is_killed: bool
) -> None:
    for name in ("WAITS_S", "WAITS_KILLED_S", "WAITS_AFTER_ABSENCE_S"):
        monkeypatch.setattr(reports, name, 0.01 if name == waits else 1e6)
    job = ends.job(numbered(*range(1, 2001)))
    size = ends.report(job).stat().st_size
    if is_killed:
        stored.write(ends.store, "update attempts set ending = 'asked'")

    async def never(work: Callable[[], Any]) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(reports, "aside", never)
    ends.live(lambda: ends.over, hear=[job])
    assert ends.over == [job]
    told = ends.commit_end(job)
    assert told.metrics == {"step": 2000}, "its end is looked at all the same"
    assert told.skipped_bytes == size - LAST, "no more than that within the commit"


@pytest.mark.usefixtures("small_slices")
def test_an_ordinary_end_is_behind_no_flood_and_one_reader_serves_all(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    floods = [ends.job(b"x\n" * 3 * AT_ONCE) for _ in range(4)]
    small = [ends.job(numbered(*range(1, 301), by=str(one))) for one in range(3)]
    at_work: list[int] = []
    most: list[int] = []

    async def counted(work: Callable[[], Any]) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        found = await aside(work)
        at_work.pop()
        return found

    monkeypatch.setattr(reports, "aside", counted)
    ends.live(lambda: len(ends.over) == 7, hear=[*floods, *small])
    assert set(ends.over[:3]) == set(small)
    assert max(most) == 1
    assert len(most) > 4 * 6, "a flood is read piece by piece"
    assert [ends.commit_end(job).lines for job in small] == [300] * 3
    assert [ends.commit_end(job).refused for job in floods] == [3 * AT_ONCE] * 4


@pytest.mark.usefixtures("small_slices")
def test_what_is_read_as_an_end_is_heard_counts_once(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 3 * AT_ONCE // 40
    job = ends.job(numbered(*range(1, many + 1)))
    heard: list[bool] = []
    before_each_look(monkeypatch, lambda: heard or heard.append(ends.hear_end(job)))
    ends.live(lambda: ends.over)
    told = ends.commit_end(job)
    assert (heard, ends.over) == ([True], [job])
    assert (told.lines, told.missed, told.metrics) == (many, 0, {"step": many})


@pytest.mark.parametrize("how", ["a", "w"])
def test_a_look_of_before_an_end_does_not_stand_for_its_last_part(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It comes back with what was there before more was written, and then the end was heard."""
    job = ends.job(numbered(*range(1, 1001), by="first"))
    heard: list[bool] = []

    async def and_then_it_ends(work: Callable[[], Any]) -> Any:
        found = await aside(work)
        if not heard:
            with ends.report(job).open(how) as file:
                file.write(numbered(*range(1, 2001), by="second"))
            heard.append(ends.hear_end(job))
        return found

    monkeypatch.setattr(reports, "aside", and_then_it_ends)
    ends.live(lambda: ends.over)
    told = ends.commit_end(job)
    assert (told.skipped_bytes, told.metrics) == (0, {"step": 2000})
    assert told.lines == (3000 if how == "a" else 2000)


def test_what_a_full_disk_refused_at_the_end_is_there_the_next_time(ends: Ends) -> None:
    job = ends.job(numbered(*range(1, 1001)))
    ends.live(lambda: ends.over, hear=[job])
    with full(ends.store), pytest.raises(DiskTrouble):
        ends.commit_end(job)
    assert ends.told(job) == Told()
    assert ends.commit_end(job).lines == 1000


# ─── floods of what runs ─────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("small_slices")
def test_a_flood_is_stored_seldom_and_keeps_no_other_from_being_read(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "FLOOD_STORED_EVERY_S", 1e6)
    many = 8 * AT_ONCE // 40
    floods = [ends.job(numbered(*range(1, many + 1))) for _ in range(3)]
    quiet = ends.job(numbered(1))
    seen: list[list[int]] = []
    ends.store.database.on_commit = lambda: seen.append(
        [ends.told(job).lines for job in [quiet, *floods]]
    )
    ends.live(lambda: seen and seen[-1] == [1, many, many, many])
    assert seen[0] == [1, 0, 0, 0]
    assert {lines for look in seen for lines in look[1:]} == {0, many}


@pytest.mark.usefixtures("small_slices")
def test_each_round_begins_with_what_is_no_flood(ends: Ends) -> None:
    floods = [ends.job(numbered(*range(1, 20 * AT_ONCE // 40))) for _ in range(3)]
    quiet = ends.job(numbered(1))
    ends.live(lambda: ends.told(quiet).lines)
    ends.reading._next_round_at = 0.0
    ends.reading._begin_round()
    assert ends.reading._due[0] == (quiet, 1)
    assert sorted(ends.reading._due[1:]) == [(job, 1) for job in floods]


# ─── how much is stored ──────────────────────────────────────────────────────────────────────────

WIDE = "\U0001f600"


def test_what_an_attempt_takes_of_the_database_is_bounded_and_less_once_it_has_ended(
    ends: Ends,
) -> None:
    writers = [f"{WIDE * 77}{one:03}" for one in range(512)]
    gaps = [{"by": by, "n": 2**52 + 1000 * again, "v": {}} for again in range(2) for by in writers]
    texts = [{"v": {f"{WIDE * 76}{one}": "\x01" * 100 + WIDE * 100}} for one in range(100)]
    said = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in [*gaps, *texts])
    job = ends.job(said)
    ends.live(lambda: ends.told(job).read_bytes == len(said.encode()))
    (row,) = ends.store.database.rows("select * from reports")
    assert len(ends.told(job).writers) == 512
    assert len(row["writers"].encode()) < 64 * 2**10
    assert len(row["metrics"].encode()) <= 16 * 2**10
    assert WIDE in row["metrics"]
    ends.commit_end(job)
    (row,) = ends.store.database.rows("select * from reports")
    assert row["writers"] == "{}"


def test_what_is_known_of_writers_is_written_only_where_it_changed(ends: Ends) -> None:
    job = ends.job("")
    one, two = Told(lines=1, writers={"a": (1,)}), Told(lines=2, writers={"a": (1,)})
    assert ends.store.reported.write(job, 1, one, after=Told())
    stored.write(ends.store, """update reports set writers = '{"b": [7]}'""")
    assert ends.store.reported.write(job, 1, two, after=one)
    assert ends.told(job).writers == {"b": (7,)}


@settings(max_examples=30)
@given(st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(SAID)), max_size=20))
def test_what_was_stored_is_what_was_read(said: list[bytes]) -> None:
    """A commit that stores what comes next asks whether it still is."""
    store = Store(":memory:")
    job = stored.job_in(store, stored.JobState.RUNNING)
    told = read_on(Told(), b"\n".join(said), inside=False, is_last=True, now=NOW, earliest=NOW - 9)
    assert store.reported.write(job, 1, told, after=Told())
    assert store.reported.told(job, 1) == told
    store.close()
