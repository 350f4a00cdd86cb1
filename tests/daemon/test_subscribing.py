"""A subscription: a picture, then whatever changes in it, and never more than that."""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import subscribing, teller
from gpuq.daemon.requests.teller import Turns
from gpuq.daemon.store.job_rows import Submitter
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, UsageError
from gpuq.tui.data.picture import Picture
from tests import stored
from tests.builders import gpu
from tests.daemon.asking import ANN, BEN, Answer, Asked, asked
from tests.desk import DEADLINE_S

LONG = "exec sleep 600"
KEPT = {"keep_for": "3650d"}  # the test jobs are years old

ME = Submitter(uid=os.getuid(), gid=os.getgid(), user="me")  # whose reports are read


class Told:
    """One who subscribed, and the picture that he has made of what he was told."""

    def __init__(self, parts: AsyncGenerator[Answer, None]) -> None:
        self.picture = Picture()
        self.parts: list[Answer] = []
        self._stream = parts

    async def next(self) -> Answer:
        said = await asyncio.wait_for(anext(self._stream), DEADLINE_S)
        part: Answer = json.loads(json.dumps(said))  # as it comes over the wire
        self.parts.append(part)
        self.picture.take(part)
        return part

    async def whole(self) -> None:
        while not self.picture.is_whole:
            await self.next()

    async def until(self, *rows: tuple[int, int, str]) -> None:
        """Until these are the rows, each as first id, last id and state."""
        while self.rows() != list(rows):
            await self.next()

    def rows(self) -> list[tuple[int, int, str]]:
        return [(row["id"], row["last_id"], row["state"]) for row in self.picture.rows]


@asynccontextmanager
async def subscribed(at: Asked, peer: Peer = ANN, **request: Any) -> AsyncIterator[Told]:
    stream: Any = await at.ask("subscribe", peer=peer, **request)
    async with aclosing(stream):
        told = Told(stream)
        await told.next()
        yield told


def test_a_picture_is_told_and_then_what_changes(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await at.daemon.show()
        waits = at.wait_for_ever()
        await at.daemon.turn()
        async with subscribed(at) as told:
            await told.whole()
            assert told.rows() == [(waits, waits, "queued")]
            assert told.picture.counts["queued"] == 1
            runs = at.daemon.submit(LONG)
            await told.until((waits, waits, "queued"), (runs, runs, "running"))
            assert [row["id"] for row in told.parts[-1]["jobs"]] == [runs]
            await at.do("kill", waits)
            await told.until((waits, waits, "ended"), (runs, runs, "running"))
            assert "gpus" not in told.parts[-1]

    asked(tmp_path, deed, **KEPT)


def test_while_nothing_changes_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribing, "SIGN_OF_LIFE_S", 0.3)

    async def deed(at: Asked) -> None:
        await at.daemon.show()
        at.wait_for_ever()
        await at.daemon.turn()
        async with subscribed(at) as told:
            await told.whole()
            began = asyncio.get_running_loop().time()
            readings = asyncio.create_task(read_again_and_again(at))
            part = await told.next()
            readings.cancel()
            assert part.keys() == {"number", "mark"}  # a sign of life
            assert asyncio.get_running_loop().time() - began >= 0.29

    async def read_again_and_again(at: Asked) -> None:
        while True:
            at.daemon.watchers.publish_change()
            await asyncio.sleep(0.01)

    asked(tmp_path, deed, **KEPT)


def test_a_run_that_is_divided_is_told_on_both_sides(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        array = at.array(10)
        first, last = array.start, array.stop - 1
        async with subscribed(at) as told:
            await told.whole()
            assert told.rows() == [(first, last, "queued")]
            await at.do("hold", first + 4)
            whole = {"queued"}
            while len(told.rows()) < 3:
                await told.next()
            assert [row[:2] for row in told.rows()] == [
                (first, first + 3),
                (first + 4, first + 4),
                (first + 5, last),
            ]
            assert {row[2] for row in told.rows()} == whole
            indices = [row["array_index"] for row in told.picture.rows]
            assert indices == [0, 4, 5]
            spans = [row["indices"] for row in told.picture.rows]
            assert spans == ["0-3", None, "5-9"]

    asked(tmp_path, deed, **KEPT)


def test_who_waits_behind_another_is_not_told_of_one_by_one(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        at.store.machine.see_gpus([gpu(0, simulated=True)], now=1.0)
        await at.daemon.show(gpu(0, simulated=True))
        one = replace(stored.spec().request, gpus=1)
        jobs = [at.daemon.submit("sleep 600", request=one) for _ in range(40)]
        await at.daemon.turn()
        async with subscribed(at) as told:
            await told.whole()
            rows = {row["id"]: row for row in told.picture.rows}
            last = rows[jobs[-1]]
            assert (last["reason"], told.picture.reason(last)) == (None, f"behind {jobs[1]}")
            at.daemon.kill(jobs[1])
            while told.picture.reason(last) != f"behind {jobs[2]}":
                await told.next()
            assert jobs[-1] not in {row["id"] for row in told.parts[-1].get("jobs", ())}

    asked(tmp_path, deed, **KEPT)


def test_who_comes_back_is_told_what_he_missed(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [at.wait_for_ever() for _ in range(40)]
        async with subscribed(at) as told:
            await told.whole()
            number = told.picture.number
        await at.do("hold", jobs[2])
        async with subscribed(at, since=number) as again:
            (part,) = again.parts
            assert "is_picture" not in part
            assert jobs[2] in {row["id"] for row in part["jobs"]}
            assert jobs[-1] not in {row["id"] for row in part["jobs"]}
            assert part["counts"]["queued"] == 40

    asked(tmp_path, deed, **KEPT)


@pytest.mark.parametrize("number", [0, 10**6])
def test_who_cannot_be_told_all_that_he_missed_is_told_anew(tmp_path: Path, number: int) -> None:
    async def deed(at: Asked) -> None:
        for _ in range(3):
            at.wait_for_ever()
        at.store.pruned.prune_events(at.daemon.clock.wall() + 60, 2)
        async with subscribed(at, since=number) as told:
            assert told.parts[0]["first"]
            await told.whole()
            assert len(told.rows()) == 3

    asked(tmp_path, deed, **KEPT)


def test_who_comes_from_another_queue_is_told_so_and_anew(tmp_path: Path) -> None:
    places: list[Answer] = []

    async def deed(at: Asked) -> None:
        for _ in range(5):
            at.wait_for_ever()
        for place in places:
            async with subscribed(at, since=place["number"], mark=place["mark"]) as told:
                assert (told.parts[0]["first"], told.parts[0]["is_other"]) == (True, True)
                await told.whole()
                assert len(told.rows()) == 5
        async with subscribed(at) as told:
            assert "is_other" not in told.parts[0]
            places.append(told.parts[0])

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        asked(tmp_path / name, deed, **KEPT)


def test_a_database_that_was_put_back_and_went_on_is_another_queue(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        at.wait_for_ever()
        async with subscribed(at) as told:
            common = told.parts[0]
        aside = at.store.database.rows("select * from events")
        at.wait_for_ever()
        async with subscribed(at) as told:
            lost = told.parts[0]
        first_lost = aside[-1]["seq"] + 1
        stored.write(at.store, "update events set at = at + 9 where seq >= ?", first_lost)
        async with subscribed(at, since=common["number"], mark=common["mark"]) as told:
            assert "is_picture" not in told.parts[0]
        async with subscribed(at, since=lost["number"], mark=lost["mark"]) as told:
            assert told.parts[0]["is_other"]

    asked(tmp_path, deed, **KEPT)


@pytest.mark.parametrize("mark", ["", "x", "9" * 40, "1:2:3", ":", "-1:None:x", "²:None:x"])
def test_a_mark_that_nobody_gave_is_of_another_queue(tmp_path: Path, mark: str) -> None:
    async def deed(at: Asked) -> None:
        at.wait_for_ever()
        async with subscribed(at, since=1, mark=mark) as told:
            assert told.parts[0]["is_other"]

    asked(tmp_path, deed, **KEPT)


def test_much_news_becomes_a_new_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller, "MOST_EVENTS", 20)
    monkeypatch.setattr(teller, "PAGE", 7)

    async def deed(at: Asked) -> None:
        async with subscribed(at) as told:
            await told.whole()
            jobs = [at.wait_for_ever() for _ in range(50)]
            await told.next()
            assert told.parts[-1]["first"]
            assert told.parts[-1]["more"]
            await told.until(*[(job, job, "queued") for job in jobs])
            assert told.picture.is_whole

    asked(tmp_path, deed, **KEPT)


def test_what_ended_since_a_moment_is_in_the_picture(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 3")
        await at.daemon.ended(job)
        now = at.daemon.clock.wall()
        async with subscribed(at, finished_since=now - 60) as told:
            await told.whole()
            assert told.rows() == [(job, job, "ended")]
            assert told.picture.finished == {"failed": 1}
        async with subscribed(at, finished_since=now + 60) as told:
            await told.whole()
            assert told.rows() == []

    asked(tmp_path, deed, **KEPT)


def test_what_is_removed_is_gone(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 3")
        await at.daemon.ended(job)
        stays = at.wait_for_ever()
        async with subscribed(at, finished_since=0) as told:
            await told.whole()
            assert len(told.rows()) == 2
            await at.ask("prune", job)
            await told.until((stays, stays, "queued"))

    asked(tmp_path, deed, **KEPT)


def test_others_are_told_what_they_may_see(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever()
        async with subscribed(at, BEN) as told:
            await told.whole()
            (row,) = told.picture.rows
            assert (row["id"], row["name"], row["command"], row["hidden"]) == (job, "", [], True)

    asked(tmp_path, deed, visibility="own", **KEPT)


def test_a_report_is_told_though_it_is_no_event(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        line = '{"by": "a", "n": 1, "v": {"progress": 0.4}}'
        job = at.daemon.submit(f"echo '{line}' >> $GPUQ_REPORT; exec sleep 600", by=ME)
        await at.daemon.running(job)
        async with subscribed(at) as told:
            await told.whole()
            while next(iter(told.picture.rows))["progress"] != 0.4:
                await told.next()

    asked(tmp_path, deed, **KEPT)


def test_a_command_of_megabytes_is_told_in_short(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        at.wait_for_ever(argv=(b"echo", b"x" * 10**5))
        async with subscribed(at) as told:
            await told.whole()
            (row,) = told.picture.rows
            assert row["command"][0] == "echo"
            assert len(row["command"][1]) < 500

    asked(tmp_path, deed, **KEPT)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pace_s": "often"}, "pace_s"),
        ({"pace_s": float("nan")}, "pace_s"),
        ({"since": "x"}, "since"),
        ({"finished_since": []}, "finished_since"),
    ],
)
def test_what_is_no_subscription_is_refused(tmp_path: Path, wrong: Answer, said: str) -> None:
    async def deed(at: Asked) -> None:
        with pytest.raises(UsageError, match=said):
            await at.ask("subscribe", **wrong)

    asked(tmp_path, deed, **KEPT)


def test_nobody_keeps_too_many_and_who_leaves_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribing, "MOST_AT_ONCE", 1)

    async def deed(at: Asked) -> None:
        async with subscribed(at):
            with pytest.raises(GpuqError, match="close one"):
                await at.ask("subscribe")
            async with subscribed(at, BEN):
                pass
        async with subscribed(at):
            pass

    asked(tmp_path, deed, **KEPT)


def test_after_anything_the_told_picture_is_the_true_one(tmp_path: Path) -> None:
    """A day of wishes, told part by part, ends at what a newcomer is shown."""

    async def deed(at: Asked) -> None:
        array, jobs = at.array(30), [at.wait_for_ever() for _ in range(6)]
        async with subscribed(at, finished_since=0) as told:
            await told.whole()
            await at.do("hold", f"{array.start + 3}-{array.start + 20}")
            await told.next()
            await at.do("kill", f"{array.start + 10}-{array.start + 12}", jobs[0])
            await at.do("hold", f"{array.start + 3}-{array.start + 9}", off=True)
            await at.ask("priority", jobs[1], priority=-50)
            ran = at.daemon.submit("exit 0")
            await at.daemon.ended(ran)
            await at.ask("prune", ran, jobs[0])
            await at.do("requeue", f"{array.start + 10}-{array.start + 11}")
            await at.daemon.turn()
            async with subscribed(at, finished_since=0) as new:
                await new.whole()
                while described(told) != described(new):
                    await told.next()

    def described(told: Told) -> list[Any]:
        kept = (
            "id",
            "last_id",
            "state",
            "substate",
            "priority",
            "outcome",
            "array_index",
            "indices",
        )
        return [[row[name] for name in kept] for row in told.picture.rows]

    asked(tmp_path, deed, **KEPT)


def test_who_comes_back_is_told_what_the_plan_says_now(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await at.daemon.show()
        jobs = [at.wait_for_ever() for _ in range(30)]
        await at.daemon.turn()
        async with subscribed(at) as told:
            await told.whole()
            picture = told.picture
            assert "wants 1 GPU" in str(reasons_of(picture)[jobs[0]])
        at.daemon.drain("away")
        await at.daemon.turn()
        assert picture.number is not None
        async with subscribed(at, since=picture.number) as again:
            picture.take(again.parts[0])
            assert "is_picture" not in again.parts[0]
            assert {"the queue is drained by bob: away"} == set(reasons_of(picture).values())
            at.daemon.drain(None)
            await at.daemon.turn()
            while "drained" in str(reasons_of(picture)):
                picture.take(await again.next())
            assert reasons_of(picture)[jobs[-1]] == f"behind {jobs[0]}"

    def reasons_of(picture: Picture) -> dict[int, str | None]:
        return {row["id"]: picture.reason(row) for row in picture.rows}

    asked(tmp_path, deed, **KEPT)


def test_an_element_that_is_edited_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await at.daemon.show(gpu(0, simulated=True))
        at.daemon.drain("nothing is to start")
        array = at.array(10)
        async with subscribed(at) as told:
            await told.whole()
            await at.do("edit", array.start + 6, changes={"name": "other"})
            while len(told.rows()) < 3:
                await told.next()
            seen = [(row["array_index"], row["indices"]) for row in told.picture.rows]
            assert seen == [(0, "0-5"), (6, None), (7, "7-9")]

    asked(tmp_path, deed, **KEPT)


def test_more_other_reasons_than_can_be_told_become_a_new_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "MOST_NEWS", 5)

    async def deed(at: Asked) -> None:
        await at.daemon.show()
        for number in range(12):
            at.wait_for_ever(name=f"job-{number}")
        await at.daemon.turn()
        async with subscribed(at) as told:
            await told.whole()
            at.daemon.loop.plan = replace(
                at.daemon.loop.plan, reasons=dict.fromkeys(range(13), "x")
            )
            at.daemon.watchers.publish_change()
            assert (await told.next())["first"]

    asked(tmp_path, deed, **KEPT)


def test_those_who_tell_take_turns_and_leave_half_of_the_time_to_others() -> None:
    async def main() -> None:
        turns, under_way, served = Turns(Watchers().rest_s), 0, 0

        def work() -> None:
            nonlocal under_way
            under_way += 1
            assert under_way == 1
            end = time.monotonic() + 0.01
            while time.monotonic() < end:
                pass
            under_way -= 1

        async def others() -> None:
            nonlocal served
            while True:
                served += 1
                await asyncio.sleep(0)

        beside, began = asyncio.create_task(others()), time.monotonic()
        await asyncio.gather(*(turns.take(work) for _ in range(10)))
        beside.cancel()
        assert time.monotonic() - began >= 0.2
        assert served > 10

    asyncio.run(main())
