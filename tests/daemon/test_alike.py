"""Separate jobs that were submitted alike share rows until they differ, and nobody sees that."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import UsageError
from tests.daemon.asking import ANN, Asked, asked

Answer = dict[str, Any]
COUNT, SEED = 6, 2**32 - 3  # the fourth begins anew at 0
SCRIPT = 'echo "$GPUQ_SEED ${GPUQ_ARRAY_INDEX-none} $GPUQ_GROUP $GPUQ_ATTEMPT" >> "$GPUQ_JOB_ID"'
HASH = sha256(b"A=1\0").hexdigest()


def job_in(folder: Path, **more: Any) -> Answer:
    return {"argv": ["sh", "-c", SCRIPT], "cwd": str(folder), "gpus": 0, "held": True} | more


async def submit(at: Asked, do: str, *jobs: Answer, **more: Any) -> Answer:
    return await at.ask(do, jobs=list(jobs), env_hash=HASH, environment=["A=1"], token="t", **more)


async def alike(at: Asked, folder: Path, **more: Any) -> Answer:
    return await submit(at, "submit_alike", job_in(folder, seed=SEED, times=COUNT, **more))


async def one_by_one(at: Asked, folder: Path, **more: Any) -> Answer:
    seeds = [(SEED + number) % 2**32 for number in range(COUNT)]
    return await submit(at, "submit", *(job_in(folder, seed=seed, **more) for seed in seeds))


Submit = Callable[..., Coroutine[Any, Any, Answer]]
WAYS = (alike, one_by_one)


def timeless(value: Any) -> Any:
    """Without what is another number each time."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name not in CHANGING}
    if isinstance(value, list):
        return [timeless(one) for one in value]
    return "a time" if isinstance(value, float) and value > 1e9 else value


CHANGING = {"number", "mark", "pid", "user_s", "system_s", "peak_rss_bytes", "memory_peak_bytes"}
CHANGING |= {"version", "uptime_s", "log_dropped_bytes", "cgroup", "seq", "paused_s", "wait"}
CHANGING |= {"peak", "run_s", "ran_s", "waited_s", "estimated_end", "series", "log", "output_dir"}


def told_each(jobs: list[Answer]) -> list[tuple[int, str]]:
    """What was done to each, told as runs."""
    return [(job, run["done"]) for run in jobs for job in range(run["id"], run["last_id"] + 1)]


async def picture(at: Asked) -> list[Answer]:
    parts: Any = await at.handlers.handle({"do": "subscribe"}, ANN)
    jobs: list[Answer] = []
    async for part in parts:
        jobs += part["jobs"]
        if not part["more"]:
            break
    await parts.aclose()
    return jobs


async def looks(at: Asked, *jobs: int) -> list[Any]:
    """All that can be seen of them."""
    await at.daemon.turn()
    seen: list[Any] = [
        await at.ask("status", **how)
        for how in ({}, {"runs": True}, {"fold": True}, {"places": True}, {"all": True})
    ]
    seen.append(await at.ask("status", all=True, runs=True, limit=4))
    seen.append(await at.ask("status", runs=True, limit=2, before=jobs[1]))
    seen += [await at.ask("show", ref=str(job), with_env=True) for job in jobs]
    seen += [await at.ask("group", ref="g1", each=each) for each in (False, True)]
    seen.append(await at.ask("group", ref="g1", limit=2, after=jobs[1]))
    seen += [await at.ask("history", *who) for who in ((), (jobs[0],))]
    seen += [await at.ask("events", *who, since=0) for who in ((), jobs[1:3])]
    seen += [await at.ask("stats"), await at.ask("consequences", f"{jobs[0]}-{jobs[-1]}")]
    seen[-1]["jobs"] = told_each(seen[-1]["jobs"])
    seen.append(await picture(at))
    return seen


def both(
    tmp_path: Path,
    deed: Callable[[Asked, Submit, Path], Coroutine[Any, Any, list[Any]]],
    **how: Any,
) -> list[Any]:
    """What they saw who were told the one way, which is what the others saw."""
    found: list[list[Any]] = []
    for number, way in enumerate(WAYS):
        here = tmp_path / str(number)
        here.mkdir()

        async def lived(at: Asked, way: Submit = way, here: Path = here) -> None:
            seen = await deed(at, way, here)
            text = json.dumps(timeless(seen)).replace(str(here), "HERE")
            found.append(json.loads(text))

        asked(here, lived, **{"cpu_slots": "1"} | how)
    one, other = found
    assert len(one) == len(other)
    for number, (first, second) in enumerate(zip(one, other, strict=True)):
        assert first == second, number
    return one


def test_jobs_that_wait_are_seen_one_by_one(tmp_path: Path) -> None:
    async def deed(at: Asked, way: Submit, folder: Path) -> list[Any]:
        answer = await way(at, folder)
        assert answer["entries"] == [(job, job) for job in range(1, COUNT + 1)]
        again = await way(at, folder)
        again["entries"] = [tuple(entry) for entry in again["entries"]]
        assert again == answer, "the same token has the same answer"
        return [answer, *await looks(at, *range(1, COUNT + 1))]

    seen = both(tmp_path, deed)
    shown = [one["job"] for one in seen if isinstance(one, dict) and "job" in one]
    assert [one["seed"] for one in shown] == [2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1, 2]
    assert {one["array_index"] for one in shown} == {None}


def test_they_are_one_row_until_they_differ(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await alike(at, tmp_path)
        assert at.rows() == {(1, 6): "queued"}
        assert await at.done("hold", 3, off=True) == ["released"]
        assert list(at.rows()) == [(1, 2), (3, 3), (4, 6)]
        assert at.store.database.value("select count(*) from specs") == 1

    asked(tmp_path, deed, cpu_slots="1")


def test_what_befalls_one_of_them_is_its_own(tmp_path: Path) -> None:
    async def deed(at: Asked, way: Submit, folder: Path) -> list[Any]:
        first = (await way(at, folder, retries=1))["first"]
        jobs = range(first, first + COUNT)
        seen: list[Any] = [await at.ask("editable", jobs[2])]
        seen.append(await at.ask("edit", jobs[2], changes={"name": "other", "tags": ["t"]}))
        seen.append(await at.done("priority", jobs[3], priority=-5))
        seen.append(await at.done("move", jobs[4]))
        seen.append(await at.done("move", jobs[1], before=str(jobs[0])))
        seen.append(await at.ask("kill", jobs[5]))
        await at.daemon.turn()
        seen += await looks(at, *jobs)
        seen.append(await at.done("undo", jobs[5]))
        after = [{"jobs": str(jobs[1])}, {"jobs": f"{jobs[0]}-{jobs[4]}", "when": "any"}]
        waits = job_in(folder, after=after, held=False)
        seen.append(await at.ask("submit", jobs=[waits], env_hash=HASH))
        seen += await looks(at, *jobs, jobs[-1] + 1)
        seen.append(told_each((await at.ask("kill", f"{jobs[0]}-{jobs[1]}"))["jobs"]))
        await at.daemon.turn()
        seen += [(await at.ask("show", ref=str(jobs[-1] + 1)))["job"]["state"]]
        seen.append(told_each(await at.do("requeue", f"{jobs[0]}-{jobs[1]}")))
        await at.daemon.turn()
        return seen + [await at.ask("show", ref=str(job)) for job in jobs]

    both(tmp_path, deed)


def test_each_runs_with_its_own_seed(tmp_path: Path) -> None:
    async def deed(at: Asked, way: Submit, folder: Path) -> list[Any]:
        first = (await way(at, folder, held=False))["first"]
        jobs = range(first, first + COUNT)
        waiting = asyncio.ensure_future(at.ask("wait", f"{jobs[0]}-{jobs[-1]}", timeout_s=30))
        for job in jobs:
            assert (await at.daemon.ended(job))["outcome"] == "succeeded"
        answer = await waiting
        said = [(folder / str(job)).read_text() for job in jobs]
        shown = [(await at.ask("show", ref=str(job)))["job"] for job in jobs]
        kept = ("id", "seed", "state", "outcome", "attempt", "array_index", "command", "reason")
        return [said, sorted(answer), [[job[name] for name in kept] for job in shown]]

    seen = both(tmp_path, deed)
    assert [line.split()[:2] for line in seen[0]] == [
        [str((SEED + number) % 2**32), "none"] for number in range(COUNT)
    ]


def test_what_there_is_to_know_is_said_of_each(tmp_path: Path) -> None:
    async def deed(at: Asked, way: Submit, folder: Path) -> list[Any]:
        return [await way(at, folder, gpus=1, gpu_mem="auto")]

    (answer,) = both(tmp_path, deed, gpus="sim:1x24G")
    assert f"{COUNT} jobs have GPUs alone" in answer["note"]


def test_a_screen_hears_of_all_that_were_submitted_together(tmp_path: Path) -> None:
    async def deed(at: Asked, way: Submit, folder: Path) -> list[Any]:
        parts: Any = await at.handlers.handle({"do": "subscribe", "pace_s": 0.0}, ANN)
        async for part in parts:
            if not part["more"]:
                break
        await way(at, folder)
        seen: set[int] = set()
        async with asyncio.timeout(20):
            while len(seen) < COUNT:
                seen |= {job["id"] for job in (await anext(parts)).get("jobs", ())}
        await parts.aclose()
        return sorted(seen)

    assert both(tmp_path, deed) == list(range(1, COUNT + 1))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"times": 0}, "times: 0 is not a whole number"),
        ({"times": True}, "times: True is not a whole number"),
        ({"times": 10_001}, "times: 10001 is not a whole number"),
        ({"times": 2, "key": "k"}, "told one by one"),
        ({"times": 2, "after": [{"jobs": "1"}]}, "told one by one"),
        ({"times": 2, "array": {"indices": [[0, 2, 1]]}}, "told one by one"),
    ],
)
def test_what_cannot_be_repeated_is_refused(tmp_path: Path, more: Answer, why: str) -> None:
    async def deed(at: Asked) -> None:
        with pytest.raises(UsageError, match=why):
            await submit(at, "submit_alike", job_in(tmp_path, **more))
        assert at.rows() == {}

    asked(tmp_path, deed)


def test_together_they_are_no_more_than_one_submit_takes(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [job_in(tmp_path, times=5000), job_in(tmp_path, times=5001)]
        with pytest.raises(UsageError, match="a list of 1 to 10000 jobs"):
            await submit(at, "submit_alike", *jobs)
        assert at.rows() == {}

    asked(tmp_path, deed)


def test_a_submit_that_does_not_say_so_repeats_nothing(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        assert (await submit(at, "submit", job_in(tmp_path, times=5)))["count"] == 1

    asked(tmp_path, deed)
