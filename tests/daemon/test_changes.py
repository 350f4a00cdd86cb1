"""Held, released, put higher or first: for each job that is named, what was done to it or why not."""

import asyncio
from pathlib import Path

import pytest

from gpuq.errors import GpuqError, NothingMatched, NotPermitted
from tests import stored
from tests.daemon.asking import BEN, CAROL, FOR_EVER, Asked, asked
from tests.stored import BOB

# ── hold and release ──


def test_what_is_held_does_not_start_until_it_is_released(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 3", held=True)
        await at.daemon.turn()
        seen = await at.seen(job)
        assert (seen["state"], seen["substate"]) == ("queued", "held")
        assert seen["reason"] == "held by alice"
        assert await at.done("hold", job, off=True) == ["released"]
        assert (await at.daemon.ended(job))["exit_code"] == 3

    asked(tmp_path, deed)


def test_each_job_is_answered_for_as_it_stands(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        ended = at.daemon.submit("true")
        await at.daemon.ended(ended)
        runs = at.daemon.submit(FOR_EVER)
        await at.daemon.running(runs)
        waits = at.wait_for_ever()
        done = await at.do("hold", f"{ended}-{waits}")
        assert [one["done"] for one in done] == ["refused", "refused", "held"]
        assert done[0]["why"] == f"it has ended; gpuq requeue {ended} runs it again"
        assert done[1]["why"] == (
            f"it runs; a hold keeps only what has not started: gpuq pause {runs}"
        )
        assert (await at.do("hold", waits))[0] == {
            "id": waits,
            "last_id": waits,
            "done": "already",
            "why": None,
            "by": "alice",
        }
        assert await at.done("hold", runs, waits, off=True) == ["already", "released"]
        assert await at.done("hold", waits, off=True) == ["already"]

    asked(tmp_path, deed)


def test_what_an_admin_holds_its_owner_cannot_release(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        mine, held = at.wait_for_ever(held=True), at.wait_for_ever()
        assert await at.done("hold", held, peer=CAROL) == ["held"]
        assert (await at.seen(held))["reason"] == "held by carol"
        with pytest.raises(NotPermitted, match=f"job {held} is held by carol, an admin"):
            await at.ask("hold", mine, held, off=True)
        assert at.daemon.row(mine)["held_by"] == "alice", "nothing was done to any"
        assert await at.done("hold", held) == ["already"]
        assert await at.done("hold", held, off=True, peer=CAROL) == ["released"]
        assert await at.done("hold", mine, peer=CAROL) == ["held"], "over the owner's own"
        with pytest.raises(NotPermitted):
            await at.ask("hold", mine, off=True)

    asked(tmp_path, deed)


def test_an_element_is_held_and_its_array_is_not(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = at.array(10)
        (one,) = await at.do("hold", f"{jobs[3]}-{jobs[4]}")
        assert (one["id"], one["last_id"]) == (jobs[3], jobs[4])
        assert list(at.rows()) == [(jobs[0], jobs[2]), (jobs[3], jobs[4]), (jobs[5], jobs[9])]
        held = "select id from jobs where held_by is not null"
        assert [row["id"] for row in at.store.database.rows(held)] == [jobs[3]]
        assert len(await at.do("hold", "@")) == 3

    asked(tmp_path, deed)


@pytest.mark.parametrize("do", ["hold", "priority", "move", "requeue", "undo", "edit", "editable"])
def test_who_names_a_job_of_somebody_else_changes_none(tmp_path: Path, do: str) -> None:
    more = {"priority": {"priority": -1}, "edit": {"changes": {"name": "x"}}}.get(do, {})

    async def deed(at: Asked) -> None:
        job, mine = at.wait_for_ever(), stored.submit_one(at.store, by=BOB)
        before = at.store.database.rows("select * from jobs")
        with pytest.raises(NotPermitted, match=f"job {job} belongs to alice"):
            await at.ask(do, mine, job, peer=BEN, **more)
        assert at.store.database.rows("select * from jobs") == before

    asked(tmp_path, deed)


@pytest.mark.parametrize("do", ["hold", "requeue", "undo", "move", "editable"])
def test_a_job_that_is_not_there_is_said_so(tmp_path: Path, do: str) -> None:
    async def deed(at: Asked) -> None:
        with pytest.raises(NothingMatched, match="no job 814"):
            await at.ask(do, 814)

    asked(tmp_path, deed)


# ── priority and place ──


def test_owners_lower_and_admins_raise(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job, other = at.wait_for_ever(), at.wait_for_ever()
        (one,) = await at.do("priority", job, priority=-5)
        assert (one["done"], one["before"], one["priority"]) == ("changed", 0, -5)
        assert await at.done("priority", job, priority=-5) == ["already"]
        assert await at.done("priority", job, priority=0) == ["changed"], "back to the usual"
        with pytest.raises(NotPermitted, match="only an admin may raise a priority above 0"):
            await at.ask("priority", other, job, priority=1)
        assert await at.done("priority", job, priority=10, peer=CAROL) == ["changed"]
        assert await at.done("priority", job, priority=7) == ["changed"], "lower than it was"
        assert at.starts_in_order() == [job, other]
        with pytest.raises(GpuqError, match="is no priority"):
            await at.ask("priority", job, priority=True)

    asked(tmp_path, deed)


def test_the_priority_of_what_runs_or_has_ended_is_let_alone(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        runs = at.daemon.submit(FOR_EVER)
        await at.daemon.running(runs)
        assert await at.why("priority", runs, priority=-5) == (
            "it runs; a priority says only which job starts first"
        )
        assert at.daemon.row(runs)["priority"] == 0

    asked(tmp_path, deed)


def test_a_job_moves_to_the_front_of_its_users_own(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [at.wait_for_ever() for _ in range(4)]
        assert await at.done("move", jobs[2], jobs[3]) == ["moved", "moved"]
        assert at.starts_in_order() == [jobs[2], jobs[3], jobs[0], jobs[1]]
        await at.do("move", jobs[1])
        assert at.starts_in_order() == [jobs[1], jobs[2], jobs[3], jobs[0]]

    asked(tmp_path, deed)


def test_a_job_moves_before_another_and_the_rest_keep_their_order(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [at.wait_for_ever() for _ in range(5)]
        await at.do("move", jobs[4], before=str(jobs[1]))
        assert at.starts_in_order() == [jobs[0], jobs[4], jobs[1], jobs[2], jobs[3]]
        await at.do("move", jobs[0], before=str(jobs[3]))
        assert at.starts_in_order() == [jobs[4], jobs[1], jobs[2], jobs[0], jobs[3]]
        await at.do("move", jobs[3], before=str(jobs[1]))
        assert at.starts_in_order() == [jobs[4], jobs[3], jobs[1], jobs[2], jobs[0]]

    asked(tmp_path, deed)


def test_nobody_moves_before_a_job_that_is_not_like_his(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job, higher = at.wait_for_ever(), at.wait_for_ever(priority=3)
        bobs = stored.submit_one(at.store, by=BOB, held=True)
        assert await at.why("move", job, before=str(higher)) == (
            f"its priority is 0 and that of job {higher} is 3; gpuq priority 3 {job} first"
        )
        assert "only jobs of one user change places" in (
            await at.why("move", job, before=str(bobs), peer=CAROL)
        )
        assert await at.why("move", job, before=str(job)) == "no job goes before itself"
        with pytest.raises(NotPermitted):
            await at.ask("move", job, before=str(bobs))
        await at.done("kill", higher)
        with pytest.raises(
            GpuqError, match=f"gpuq undo {higher} takes that back. Nothing was moved"
        ):
            await at.ask("move", job, before=str(higher))

    asked(tmp_path, deed)


# ── races ──


def test_a_hold_is_kept_or_comes_too_late_and_never_both(tmp_path: Path) -> None:
    """40 jobs, each held in a moment in which it may be about to start."""

    async def deed(at: Asked) -> None:
        held = 0
        for round in range(40):
            job = at.daemon.submit("true")
            for _ in range(round % 7):
                await asyncio.sleep(0)
            (done,) = await at.done("hold", job)
            if done == "held":
                held += 1
                await at.daemon.turn()
                assert at.daemon.row(job)["attempt"] == 0, "it was held, and started"
                await at.done("hold", job, off=True)
            else:
                assert at.daemon.row(job)["attempt"] == 1, "it did not start, and could not be held"
        for job in at.store.found.jobs(ended=False):
            await at.daemon.ended(job["id"])
        assert held > 0

    asked(tmp_path, deed)
