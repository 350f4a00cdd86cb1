"""What a job that waits asks for, changed: as a submit would have said it, judged as one, and never
when it has started or was changed by somebody else meanwhile."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.ends.bounds import Bounds
from gpuq.daemon.runners import Gate
from gpuq.daemon.store import Store
from gpuq.errors import GpuqError, NeverFits, NotPermitted, UsageError
from tests import stored
from tests.alive import shown_by_hand
from tests.builders import gpu
from tests.daemon.asking import ANN, CAROL, FOR_EVER, Asked, asked
from tests.stored import BOB

ROOT = replace(CAROL, uid=0, user="root")


def argv_of(at: Asked, job: int) -> list[str]:
    return bytes(at.daemon.row(job)["argv"]).decode().split("\0")[:-1]


def specs(at: Asked) -> int:
    return stored.count(at.store, "specs")


async def with_a_gpu(at: Asked) -> int:
    """One is there, and a job that is held, for one GPU."""
    job = at.wait_for_ever(held=True)
    at.store.machine.see_gpus([gpu(0, simulated=True)], now=stored.NOW)
    await at.daemon.show(gpu(0, simulated=True))
    return job


async def edit(at: Asked, *refs: int | str, peer: Any = ANN, **changes: Any) -> list[Any]:
    version = changes.pop("version", None)
    return await at.do("edit", *refs, peer=peer, changes=changes, version=version)


def test_what_it_runs_and_how_is_changed_before_it_starts(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 3", held=True, name="old")
        (one,) = await edit(
            at, job, argv=["sh", "-c", "exit 4"], name="new", grace_s=2.5, tags=["x"]
        )
        assert one == {
            "id": job,
            "last_id": job,
            "why": None,
            "done": "edited",
            "changed": ["name", "argv", "grace_s", "tags"],
        }
        seen = await at.seen(job)
        assert (seen["name"], seen["grace_s"], seen["tags"]) == ("new", 2.5, ["x"])
        assert specs(at) == 1, "nobody else has its spec, so it is changed in place"
        await at.do("hold", job, off=True)
        assert (await at.daemon.ended(job))["exit_code"] == 4

    asked(tmp_path, deed)


def test_the_event_names_what_was_changed_and_not_to_what(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever()
        await edit(at, job, env={"TOKEN": "secret"})
        (event,) = [one for one in stored.events(at.store) if one["kind"] == "edited"]
        assert event["actor"] == "alice"
        assert "env" in event["detail"]
        assert "secret" not in str(event)

    asked(tmp_path, deed)


def test_another_request_is_another_class_in_the_same_place(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 5")  # without a GPU
        at.daemon.drain("quiet")
        waits = at.wait_for_ever()
        before = at.daemon.row(waits)
        await edit(at, waits, gpus=0, cpus=2)
        after = at.daemon.row(waits)
        assert after["class"] != before["class"]
        assert after["place"] == before["place"]
        assert (after["cpu_bound"], (await at.seen(waits))["cpus"]) == (2, 2)
        at.daemon.drain(None)
        assert (await at.daemon.ended(waits))["outcome"] == "succeeded", "it can start now"
        await at.daemon.ended(job)

    asked(tmp_path, deed)


def test_an_element_gets_a_spec_of_its_own_and_the_others_keep_theirs(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        table = {"rows": (("a",), ("b",), ("c",), ("d",))}
        job = at.wait_for_ever(elements=Elements(indices=(range(4),), columns=("letter",)), **table)
        jobs = range(job, job + 4)
        (one,) = await edit(at, f"{jobs[1]}-{jobs[2]}", name="other")
        assert (one["id"], one["last_id"]) == (jobs[1], jobs[2])
        names = [(await at.seen(job))["name"] for job in jobs]
        assert names == ["sh", "other", "other", "sh"]
        assert [(await at.seen(job))["array_index"] for job in jobs] == [0, 1, 2, 3]
        own = at.daemon.row(jobs[1])["spec"]
        kept = "select element from parameters where spec = ? order by element"
        assert [row["element"] for row in at.store.database.rows(kept, (own,))] == [1, 2]
        await edit(at, jobs[1], name="third")
        assert specs(at) == 3
        await edit(at, jobs[2], name="fourth")
        assert specs(at) == 3, "it is alone with its spec by now"

    asked(tmp_path, deed)


def test_all_jobs_that_are_named_are_changed_or_none(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [at.wait_for_ever() for _ in range(3)]
        done = await edit(at, *jobs, heartbeat_s=60)
        assert [one["done"] for one in done] == ["edited"] * 3
        with pytest.raises(UsageError, match="stop_to"):
            await edit(at, *jobs, stop_to="nobody", name="x")
        assert {at.daemon.row(job)["name"] for job in jobs} == {"sh"}
        done = await edit(at, *jobs, heartbeat_s=60)
        assert [one["done"] for one in done] == ["already"] * 3

    asked(tmp_path, deed)


def test_what_runs_or_has_ended_is_refused_politely(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        ended, runs = at.daemon.submit("true"), at.daemon.submit(FOR_EVER)
        await at.daemon.ended(ended)
        await at.daemon.running(runs)
        one, two = await edit(at, ended, runs, name="x")
        assert one["why"] == (
            "it has ended, and only what waits can be edited: "
            f"gpuq requeue {ended} brings it back into the queue"
        )
        assert two["why"] == (
            "it runs, and only what waits can be edited: "
            "gpuq pause, kill and requeue are for what runs"
        )
        with pytest.raises(GpuqError, match=f"job {runs}: it runs"):
            await at.ask("editable", runs)

    asked(tmp_path, deed)


def test_a_version_that_is_not_the_present_one_changes_nothing(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever()
        version = (await at.ask("editable", job))["version"]
        await at.do("hold", job)
        (one,) = await edit(at, job, name="x", version=version)
        assert (one["done"], one["why"]) == ("refused", "somebody has changed it meanwhile")
        version = (await at.ask("editable", job))["version"]
        assert (await edit(at, job, name="x", version=version))[0]["done"] == "edited"
        (one,) = await edit(at, job, name="y", version=version)
        assert one["done"] == "refused", "the edit itself counts"

    asked(tmp_path, deed)


def test_what_is_editable_and_sent_back_changes_nothing(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        everything = {
            "tags": ("a", "b"),
            "time_limit_s": 60.0,
            "heartbeat_s": 30.0,
            "retries": 2,
            "backoff": "2s",
            "retry_on": "failed",
            "changes": {b"A": b"1", b"B": b"\xff="},
            "output": b"/tmp/\xff",
            "stop_to": "main",
        }
        job = at.wait_for_ever(**everything)
        options = (await at.ask("editable", job))["options"]
        assert options["env"] == {"A": "1", "B": "\udcff="}
        assert options["output"] == "/tmp/\udcff"
        (one,) = await edit(at, job, **options)
        assert (one["done"], one["changed"]) == ("already", [])

    asked(tmp_path, deed)


def test_variables_are_set_over_those_there_are_and_taken_out(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever(changes={b"A": b"1", b"B": b"2"})
        await edit(at, job, env={"A": None, "C": "3"})
        assert (await at.ask("editable", job))["options"]["env"] == {"B": "2", "C": "3"}
        await edit(at, job, env=None)
        assert "env" not in (await at.ask("editable", job))["options"]

    asked(tmp_path, deed)


def test_an_admin_does_not_see_the_environment_of_others_nor_change_it(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever(changes={b"TOKEN": b"secret"})
        assert "secret" not in str(await at.ask("editable", job, peer=CAROL))
        with pytest.raises(NotPermitted, match="is alice's alone"):
            await edit(at, job, peer=CAROL, env={"A": "1"})
        assert (await edit(at, job, peer=CAROL, name="x"))[0]["done"] == "edited"
        options = (await at.ask("editable", job, peer=ROOT))["options"]
        assert options["env"] == {"TOKEN": "secret"}

    asked(tmp_path, deed)


def test_priorities_are_edited_by_the_rule_for_priorities(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever()
        with pytest.raises(NotPermitted, match="only an admin may raise a priority above 0"):
            await edit(at, job, priority=5)
        assert (await edit(at, job, priority=-5))[0]["done"] == "edited"
        assert (await edit(at, job, priority=5, peer=CAROL))[0]["done"] == "edited"

    asked(tmp_path, deed)


def test_what_can_never_start_is_refused_as_at_a_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(at: Asked) -> None:
        job = await with_a_gpu(at)
        with pytest.raises(NeverFits, match="Nothing was changed"):
            await edit(at, job, gpus=9)
        assert (await edit(at, job, time_limit_s=60))[0]["done"] == "edited"
        with pytest.raises(UsageError, match="key cannot be edited"):
            await edit(at, job, key="x")
        with pytest.raises(UsageError, match="what is to change is wanted"):
            await edit(at, job)

    asked(tmp_path, deed, gpus="sim:1x24G")


def test_what_cannot_start_for_now_can_be_mended_all_the_same(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever()
        assert (await edit(at, job, name="x"))[0]["done"] == "edited"
        with pytest.raises(NeverFits, match="this machine has no GPU"):
            await edit(at, job, gpus=2)
        assert (await edit(at, job, gpus=0))[0]["done"] == "edited"
        assert (await at.daemon.ended(job))["outcome"] == "succeeded"

    asked(tmp_path, deed)


def test_fewer_retries_take_their_rules_with_them(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.wait_for_ever(retries=2, backoff="2s", retry_on="failed")
        await edit(at, job, retries=0)
        told = at.daemon.row(job)
        assert (told["retries"], told["backoff"], told["retry_on"]) == (0, None, None)

    asked(tmp_path, deed)


def test_elements_do_not_come_to_write_into_one_file(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = at.array(4)
        with pytest.raises(UsageError, match="would write there"):
            await edit(at, f"{jobs[0]}-{jobs[3]}", output="/tmp/log")
        await edit(at, f"{jobs[0]}-{jobs[3]}", output="/tmp/log-{i}")
        await edit(at, jobs[0], output="/tmp/log")

    asked(tmp_path, deed)


def test_memory_as_it_was_learned_and_a_share_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(at: Asked) -> None:
        job = await with_a_gpu(at)
        await edit(at, job, gpu_mem_bytes=2**30, max_util=40)
        seen = await at.seen(job)
        assert (seen["gpu_mem_bytes"], seen["exclusive"], seen["max_util"]) == (2**30, False, 40)
        with pytest.raises(UsageError, match="--max-util is for a job that shares"):
            await edit(at, job, gpu_mem_bytes=None)
        await edit(at, job, gpu_mem_bytes=None, max_util=None)
        seen = await at.seen(job)
        assert (seen["gpu_mem_bytes"], seen["exclusive"]) == (None, True)
        await edit(at, job, gpu_mem="auto")
        assert (await at.seen(job))["gpu_mem_from"]

    asked(tmp_path, deed, gpus="sim:1x24G")


def test_a_job_that_is_edited_while_it_starts_runs_as_one_of_the_two(tmp_path: Path) -> None:
    """40 jobs, each edited in a moment in which it may be about to start: what it holds and what it
    runs are of one and the same request, and the answer says of which."""

    async def deed(at: Asked) -> None:
        edited = 0
        for round in range(40):
            job = at.daemon.submit("exit 3")
            for _ in range(round % 9):
                await asyncio.sleep(0)
            (one,) = await edit(at, job, argv=["sh", "-c", "exit 4"], mem_bytes=2**30)
            told = await at.daemon.ended(job)
            bound = at.daemon.attempts(job)[0]["mem_bound_by"]
            assert (told["exit_code"], bound) == (
                (4, "watched") if one["done"] == "edited" else (3, None)
            ), one
            edited += one["done"] == "edited"
        assert edited > 0

    asked(tmp_path, deed)


def test_bobs_job_is_his(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = stored.submit_one(at.store, by=BOB, held=True)
        with pytest.raises(NotPermitted, match=f"job {job} belongs to bob"):
            await edit(at, job, name="mine")

    asked(tmp_path, deed)


def test_an_edit_that_is_asked_again_is_said_to_be_done(tmp_path: Path) -> None:
    """Its answer was lost: its own change is not somebody else's."""

    async def deed(at: Asked) -> None:
        job = at.wait_for_ever()
        version = (await at.ask("editable", job))["version"]
        for _ in range(2):
            asked_so = {"changes": {"name": "x"}, "version": version, "token": "abc"}
            assert await at.done("edit", job, **asked_so) == ["edited"]
        assert stored.kinds(at.store, job).count("edited") == 1

    asked(tmp_path, deed)


# ── while it starts: between the plan and the commit a runner is waited for ──


def test_what_was_planned_by_an_older_request_is_not_started(tmp_path: Path) -> None:
    """The edit comes when the runner is there and nothing is committed yet."""

    async def deed(at: Asked) -> None:
        readying = at.daemon.loop._starter._readying
        take = readying._take_runner
        done: list[str] = []

        async def take_and_edit() -> Gate:
            gate = await take()
            if not done:
                (one,) = await edit(at, job, argv=["sh", "-c", "exit 4"], mem_bytes=2**30)
                done.append(one["done"])
            return gate

        readying._take_runner = take_and_edit
        job = at.daemon.submit("exit 3")
        told = await at.daemon.ended(job)
        assert done == ["edited"]
        assert (told["exit_code"], told["attempt"]) == (4, 1)
        assert at.daemon.attempts(job)[0]["mem_bound_by"] == "watched"

    asked(tmp_path, deed)


def test_a_runner_that_was_made_ready_for_other_bounds_is_let_go(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        readying = at.daemon.loop._starter._readying
        take, may_come = readying._take_runner, asyncio.Event()

        async def take_late() -> Gate:
            await may_come.wait()
            return await take()

        readying._take_runner = take_late
        job = at.daemon.submit("exit 3", bounds=Bounds(mem_bytes=2**30))
        await at.daemon.until(lambda: readying._under_way, "a runner to be waited for")
        await at.daemon.loop.settle()  # beside the loop, which has gone on
        assert (await edit(at, job, mem_bytes=None))[0]["done"] == "edited"
        may_come.set()
        assert (await at.daemon.ended(job))["exit_code"] == 3
        assert at.daemon.attempts(job)[0]["mem_bound_by"] is None

    asked(tmp_path, deed)


def test_the_commit_looks_once_more_at_what_was_judged(tmp_path: Path) -> None:
    """Names are looked up while an edit is judged, and meanwhile others have their turn."""
    store = Store(":memory:")
    changed, started, cancelled = stored.submit(store, 3)
    store.changed.hold(changed, changed, actor="alice", as_admin=False, now=stored.NOW)
    stored.start(store, started)
    store.wished.stop(cancelled, grace_s=1.0, actor="alice", now=stored.NOW)
    for job in (changed, started, cancelled):
        version = 0 if job == changed else stored.row(store, job)["version"]
        assert not store.changed.edit(
            *(job, job),
            version=version,
            spec={"name": "new"},
            request=stored.spec().request,
            queue="",
            priority=0,
            changed=["name"],
            actor="alice",
            now=stored.NOW,
        )
        assert stored.row(store, job)["name"] == "sh"
    store.close()
