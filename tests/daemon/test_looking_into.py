"""What is told of one job: its processes as they are now, and how an attempt of it went."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.ends.bounds import Bounds
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request
from gpuq.daemon import memory_watch, usage
from gpuq.daemon.linux import investigate
from gpuq.daemon.requests.looking_into import memory_by_pid
from gpuq.daemon.store import Store
from gpuq.daemon.store.pruned import Remains
from gpuq.errors import NothingMatched, UsageError
from tests import stored
from tests.alive import Alive, alive
from tests.builders import GIB, foreign, gpu, ours
from tests.daemon.asking import ANN, BEN, CAROL, FOR_EVER, Asked, asked
from tests.daemon.test_gpu_use import Desk, busy
from tests.desk import until
from tests.stored import NOW

A_TREE = "sleep 600 & (exec sh -c 'sleep 600 & wait') & wait"


async def of_processes(at: Asked, job: int, number: int) -> dict[str, Any]:
    """Once it has so many."""
    found: dict[str, Any] = {}

    async def look() -> int:
        found.update(await at.ask("processes", ref=job))
        return len(found["processes"])

    while await look() < number:
        await at.daemon.turn()
    return found


def test_the_processes_of_a_job_are_told_with_their_parents_and_what_they_use(
    tmp_path: Path,
) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit(A_TREE)
        main = await at.daemon.running(job)
        found = await of_processes(at, job, 4)
        by_pid = {one["pid"]: one for one in found["processes"]}
        assert list(by_pid) == sorted(by_pid)
        top = by_pid.pop(main)
        assert top["command"] == ["sh", "-c", A_TREE]
        assert top["ppid"] not in by_pid
        (inner,) = [one for one in by_pid.values() if one["command"][0] == "sh"]
        sleeps = [one for one in by_pid.values() if one["command"] == ["sleep", "600"]]
        assert sorted(one["ppid"] for one in sleeps) == sorted([main, inner["pid"]])
        assert inner["ppid"] == main
        assert all(one["rss_bytes"] > 0 and one["cpu_s"] >= 0 for one in found["processes"])
        assert {one["gpu_memory_bytes"] for one in found["processes"]} == {None}
        assert {one["state"] for one in found["processes"]} <= set("SRD")
        assert (found["why"], found["left_out"], found["hidden"]) == (None, 0, False)

    asked(tmp_path, deed)


def test_what_a_process_has_of_the_cpu_grows_by_what_it_computes(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("while :; do :; done")
        await at.daemon.running(job)
        (before,) = (await at.ask("processes", ref=job))["processes"]

        async def computes() -> bool:
            (now,) = (await at.ask("processes", ref=job))["processes"]
            return bool(now["cpu_s"] >= before["cpu_s"] + 0.02)

        while not await computes():
            await at.daemon.turn()

    asked(tmp_path, deed)


def test_a_job_that_does_not_run_has_none_and_it_is_said_why(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        waits, over = at.wait_for_ever(), at.daemon.submit("true")
        await at.daemon.ended(over)
        for job, why in ((waits, "it has not begun"), (over, "it has ended")):
            found = await at.ask("processes", ref=job)
            assert (found["processes"], found["why"]) == ([], why)

    asked(tmp_path, deed)


def test_who_may_not_see_what_a_job_runs_is_told_of_no_process(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit(FOR_EVER)
        await at.daemon.running(job)
        found = await at.ask("processes", ref=job, peer=BEN)
        assert (found["processes"], found["hidden"]) == ([], True)
        assert found["why"] == "its processes are alice's to see"
        for peer in (ANN, CAROL):
            (one,) = (await at.ask("processes", ref=job, peer=peer))["processes"]
            assert one["command"] == ["sleep", "600"]

    asked(tmp_path, deed, visibility="own")


def test_where_the_machine_hides_processes_their_command_lines_are_their_owners_to_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit(FOR_EVER)
        await at.daemon.running(job)
        for hides, commands in ((False, ["sleep", "600"]), (True, [])):
            monkeypatch.setattr(investigate, "hides_processes", lambda hides=hides: hides)
            (one,) = (await at.ask("processes", ref=job, peer=BEN))["processes"]
            assert one["command"] == commands
        (one,) = (await at.ask("processes", ref=job))["processes"]
        assert one["command"] == ["sleep", "600"]

    asked(tmp_path, deed)


def test_gpu_memory_is_that_of_all_gpus_and_made_up_pids_are_nobodys() -> None:
    cards = [
        gpu(0, processes=[replace(ours(1, "2G"), pid=7), foreign("1G", pid=8)]),
        gpu(1, processes=[replace(ours(1, "3G"), pid=7), replace(ours(1, "1G"), pid=9)]),
        replace(gpu(2, processes=[replace(ours(1, "9G"), pid=7)]), simulated=True),
    ]
    assert memory_by_pid(cards) == {7: 5 * GIB, 8: GIB, 9: GIB}
    silent = gpu(0, processes=[replace(ours(1, "2G"), pid=7, memory_bytes=None)])
    assert memory_by_pid([silent]) == {7: None}
    assert memory_by_pid([silent, cards[1]])[7] == 3 * GIB


# ─── how an attempt went ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def desk() -> Iterator[Desk]:
    with closing(Store(":memory:")) as store:
        desk = Desk(stored.with_gpus(store))
        desk.read(gpu(0), gpu(1))
        yield desk


def points(told: dict[str, Any], name: str = "gpu_memory_bytes") -> list[tuple[float, float]]:
    """(number, mean)"""
    return [(number, mean) for number, mean, *_ in told["quantities"][name]["points"]]


def kept(desk: Desk, job: int) -> dict[str, Any] | None:
    series = desk.store.series.read(job, 1)
    return None if series is None else series.told()


def test_what_readings_say_of_a_job_is_stored_with_its_end(desk: Desk) -> None:
    job = desk.runs((0, None))
    for mem, percent in (("1G", 10), ("2G", 90), ("4G", 50)):
        desk.read(busy(job, mem=mem, percent=percent))
    assert kept(desk, job) is None, "while it runs it is in memory"
    desk.ends(job)
    told = kept(desk, job)
    assert told is not None
    assert points(told) == [(1, GIB), (2, 2 * GIB), (3, 4 * GIB)]
    assert told["quantities"]["gpu_utilization_percent"]["mean"] == 50
    assert desk.usage.series.latest((job, 1)) is None, "and no longer in memory"


def test_a_job_that_was_measured_once_or_never_is_stored_without(desk: Desk) -> None:
    once, never = desk.runs((0, None)), desk.runs((1, None))
    desk.ends(never)
    desk.read(busy(once))
    desk.ends(once)
    assert stored.count(desk.store, "series") == 0


def test_of_two_gpus_it_is_the_fuller_one_and_the_mean_of_how_busy_they_are(desk: Desk) -> None:
    job = desk.runs((0, None), (1, None))
    for _ in range(2):
        desk.read(busy(job, mem="1G", percent=20), busy(job, 1, mem="3G", percent=60))
    series = desk.usage.series.latest((job, 1))
    assert series is not None
    assert points(series.told())[0] == (1, 3 * GIB)
    assert points(series.told(), "gpu_utilization_percent")[0] == (1, 40)


def test_a_daemon_that_comes_anew_goes_on_with_a_gap(desk: Desk) -> None:
    job = desk.runs((0, None))
    for _ in range(3):
        desk.read(busy(job, mem="1G"))
    desk.usage.flush()
    desk.come_anew()
    desk.read(busy(job, mem="2G"), after_s=7.0)
    desk.ends(job)
    told = kept(desk, job)
    assert told is not None
    assert points(told) == [(1, GIB), (2, GIB), (3, GIB), (10, 2 * GIB)]


def test_a_daemon_that_is_killed_loses_a_minute_at_the_most(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(busy(job), for_s=usage.WRITE_EVERY_S + 10, every_s=5.0)
    desk.come_anew()
    desk.read(busy(job, percent=33))
    series = desk.usage.series.latest((job, 1))
    assert series is not None
    assert len(points(series.told())) >= usage.WRITE_EVERY_S / 5


def test_what_was_measured_goes_with_the_rows_of_its_attempt(desk: Desk) -> None:
    job = desk.runs((0, None))
    for _ in range(2):
        desk.read(busy(job))
    desk.ends(job)
    assert stored.count(desk.store, "series") == 1
    stored.write(desk.store, "delete from leases")
    desk.store.pruned.forget([Remains(id=job, attempts=1)], {}, now=NOW)
    assert stored.count(desk.store, "series") == 0


def test_each_attempt_has_its_own(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exec sleep 600", request=Request(gpus=1))
        await at.daemon.show(idle())
        await at.daemon.running(job)
        await measured(at.daemon, job, 1)
        assert await at.done("requeue", job) == ["stopping"]
        await at.daemon.until(lambda: at.daemon.attempts(job)[0]["ended_at"], "its end")
        await at.daemon.show(idle())
        await at.daemon.running(job, 2)
        first, second = [await at.ask("series", ref=job, attempt=number) for number in (1, 2)]
        assert first["ended_at"] is not None
        assert len(points(first)) == 2
        assert (second["ended_at"], second["attempt"]) == (None, 2)
        assert second["quantities"] == {} or len(points(second)) <= 1
        assert (await at.ask("series", ref=job))["attempt"] == 2
        at.daemon.kill(job, 0.0)
        await at.daemon.ended(job)

    asked(tmp_path, deed)


async def measured(daemon: Alive, job: int, attempt: int) -> None:
    """Two readings, a second apart by the daemon's clock."""
    for _ in range(2):
        daemon.clock.awake_s += 1.0
        await daemon.show(busy_with(job))


def idle() -> Gpu:
    return gpu(0, simulated=True)


def busy_with(job: int) -> Gpu:
    return gpu(0, simulated=True, utilization_percent=80, processes=[ours(job, "3G")])


def test_it_is_told_while_it_runs_and_after_its_end_and_by_the_next_daemon(tmp_path: Path) -> None:
    async def first(at: Asked) -> None:
        job = at.daemon.submit("exec sleep 600", request=Request(gpus=1))
        await at.daemon.show(idle())
        await at.daemon.running(job)
        before = await at.ask("series", ref=job)
        assert (before["why"], before["quantities"]) == ("nothing has been measured yet", {})
        await measured(at.daemon, job, 1)
        running = await at.ask("series", ref=job)
        assert [mean for _, mean in points(running)] == [3 * GIB, 3 * GIB]
        at.daemon.kill(job, 0.0)
        await at.daemon.ended(job)
        over = await at.ask("series", ref=job)
        assert over["quantities"] == running["quantities"]
        assert over["ended_at"] is not None
        assert await at.ask("series", ref=job, peer=BEN) == over, "as of what it used in all"

    async def second(at: Asked) -> None:
        assert len(points(await at.ask("series", ref=1))) == 2

    asked(tmp_path, first)
    asked(tmp_path, second)


def test_a_job_that_runs_on_under_the_next_daemon_keeps_what_was_measured(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, leave=True) as before:
            job = before.submit("exec sleep 600", request=Request(gpus=1))
            await before.show(idle())
            await before.running(job)
            await measured(before, job, 1)
        async with alive(tmp_path) as after:
            at = Asked(after)
            await after.show(busy_with(job))
            await until(lambda: after.loop.series(job, 1), "a reading of the job")
            assert len(points(await at.ask("series", ref=job))) == 3

    import asyncio

    asyncio.run(main())


def test_why_nothing_is_known_is_said(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        waits, plain = at.wait_for_ever(), at.daemon.submit("true")
        await at.daemon.ended(plain)
        assert (await at.ask("series", ref=waits))["why"] == "it has not begun"
        told = (await at.ask("series", ref=plain))["why"]
        assert (
            told == "it has no GPU, and no --mem that gpuq watches: nothing is measured as it goes"
        )
        with pytest.raises(NothingMatched, match=f"job {plain} has no attempt 2"):
            await at.ask("series", ref=plain, attempt=2)
        with pytest.raises(UsageError, match="they count from 1"):
            await at.ask("series", ref=plain, attempt="x")

    asked(tmp_path, deed)


def test_memory_that_gpuq_watches_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_watch, "EVERY_S", 0.02)

    async def deed(at: Asked) -> None:
        job = at.daemon.submit(FOR_EVER, bounds=Bounds(mem_bytes=2**28))
        await at.daemon.running(job)

        def is_known() -> bool:
            at.daemon.clock.awake_s += 0.5
            series = at.daemon.loop.series(job, 1)
            return series is not None and len(series) >= 3

        await until(is_known, "three looks at its memory")
        at.daemon.kill(job, 0.0)
        await at.daemon.ended(job)
        told = await at.ask("series", ref=job)
        assert list(told["quantities"]) == ["memory_bytes"]
        assert 0 < told["quantities"]["memory_bytes"]["max"] < 2**26

    asked(tmp_path, deed)


def test_answers_are_json(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exec -a \"$(printf 'x\\377')\" sleep 600", argv=odd_argv())
        await at.daemon.running(job)
        found = await at.ask("processes", ref=job)
        assert json.loads(json.dumps(found)) == found

    asked(tmp_path, deed)


def odd_argv() -> tuple[bytes, ...]:
    return (
        (b"sleep", b"600")
        if not Path("/bin/bash").exists()
        else (
            b"/bin/bash",
            b"-c",
            b"exec -a $'x\\xff' sleep 600",
        )
    )
