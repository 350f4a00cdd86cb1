"""When a job will probably start, as the daemon tells it; and how long its command ran before."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.model import Exit, Request
from gpuq.core.scheduling.durations import Ran, lasts_s
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.linux.processes import boot_id
from gpuq.daemon.requests.expectations import Expectations
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from tests.alive import Alive, with_alive
from tests.daemon.test_chronicle import Desk
from tests.daemon.test_queue_limits import Still
from tests.stored import ALICE, BOB, MONO, NOW, row, run, start, submit, submit_one

TRAIN = (b"python", b"train.py")
ONE_SLOT = {"cpu_slots": 1}


def learned(store: Store, *seconds: float, **changes: Any) -> None:
    for ran_s in seconds:
        job = submit_one(store, **({"argv": TRAIN, "name": "train"} | changes))
        store.durations.learn(job, ran_s, now=1.0)


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as open_one:
        yield open_one


# ── what is learned ──


def test_runs_of_a_command_are_remembered_by_user_place_and_name(store: Store) -> None:
    learned(store, 60.0, 300.0)
    known = store.durations.known
    assert known(1000, (*TRAIN, b"--lr", b"2"), b"/", "train") == Ran(
        longest_s=300.0, runs=2, last_job=2
    )
    assert known(1000, TRAIN, b"/", "other") is None
    assert known(1000, TRAIN, b"/home", "train") is None
    assert known(BOB.uid, TRAIN, b"/", "train") is None


def ask_for(store: Store, folder: Path, **asked: Any) -> tuple[int, Any]:
    """Submits one job to a daemon that does nothing with it, and shows it."""
    handlers = Handlers(
        store, config.load({"state_dir": str(folder), "gpus": "none"}, {}), Still(), Watchers()
    )
    peer = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")
    job = {"argv": ["python", "train.py", "--lr", "3"], "cwd": "/", "gpus": 0, "name": "train"}
    wire = {
        "do": "submit",
        "jobs": [job | asked],
        "environment": ["A=1"],
        "env_hash": sha256(b"A=1\0").hexdigest(),
    }
    first = asyncio.run(handlers.handle(wire, peer))["first"]
    shown = asyncio.run(handlers.handle({"do": "show", "ref": str(first)}, peer))["job"]
    return first, shown


def bound_of(store: Store, job: int) -> float | None:
    waiting = {one.id: one for one in store.current.waiting(99)}
    return waiting[job].request.lasts_s


def test_a_job_without_a_limit_is_taken_to_run_as_those_before_it(
    store: Store, tmp_path: Path
) -> None:
    learned(store, 60.0, 300.0)
    job, shown = ask_for(store, tmp_path)
    assert bound_of(store, job) == lasts_s(None, Ran(longest_s=300.0, runs=2, last_job=2))
    assert shown["ran_before"] == {"longest_s": 300.0, "runs": 2}


def test_a_limit_is_what_counts_where_there_is_one(store: Store, tmp_path: Path) -> None:
    learned(store, 300.0)
    job, shown = ask_for(store, tmp_path, time_limit_s=50.0)
    assert bound_of(store, job) == lasts_s(50.0, None)
    assert {one.id: one.time_limit_s for one in store.current.waiting(99)}[job] == 50.0
    assert "ran_before" not in shown


def test_of_a_new_command_nothing_is_known(store: Store, tmp_path: Path) -> None:
    learned(store, 300.0)
    job, shown = ask_for(store, tmp_path, name="other")
    assert bound_of(store, job) is None
    assert "ran_before" not in shown


@pytest.mark.parametrize(("exit_code", "learned_s"), [(0, 500.0), (1, None)])
def test_a_run_that_succeeded_is_learned_from_without_its_pauses(
    store: Store, exit_code: int, learned_s: float | None
) -> None:
    job = submit_one(store, argv=TRAIN, name="train")
    start(store, job, boot_id=boot_id())
    run(store, job, mono=MONO - 1000.0)
    store.happened.pause(job, 1, mono=MONO - 900.0, now=NOW)
    store.happened.resume(job, 1, mono=MONO - 400.0, now=NOW)
    Desk(store).exits(job, Exit(exit_code=exit_code, ended_mono=MONO))
    ran = store.durations.known_of(job)
    assert (None if ran is None else ran.longest_s) == learned_s


# ── what is expected ──


def told(daemon: Alive, job: int) -> dict[str, Any]:
    return Expectations(daemon.loop).of(daemon.row(job))


def test_who_waits_for_a_limit_is_told_when_it_is_over(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        holder = daemon.submit("sleep 100", time_limit_s=3600.0, grace_s=10.0)
        waits, behind = daemon.submit("true"), daemon.submit("true")
        await daemon.running(holder)
        started_at = daemon.row(holder)["started_at"]
        assert told(daemon, holder) == {}
        expected = told(daemon, waits)
        assert expected["expected_start"] == pytest.approx(started_at + 3610.0, abs=2.0)
        assert expected["expected_start_from"] == f"by the time limit of {holder}"
        assert expected["expected_start_is_guess"] is False
        assert told(daemon, behind) == {"expected_start_from": f"{waits} has no time limit"}

    with_alive(tmp_path, deed, **ONE_SLOT)


def test_a_guess_is_told_to_be_one(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        holder = daemon.submit("sleep 100", request=Request(gpus=0, lasts_s=600.0))
        waits = daemon.submit("true")
        await daemon.running(holder)
        expected = told(daemon, waits)
        assert expected["expected_start_is_guess"] is True
        assert expected["expected_start_from"] == (
            f"a guess, by how long jobs like {holder} ran before"
        )

    with_alive(tmp_path, deed, **ONE_SLOT)


def test_it_is_reckoned_once_until_something_happens(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        holder = daemon.submit("sleep 100", time_limit_s=3600.0)
        waits = daemon.submit("true")
        await daemon.running(holder)
        await daemon.turn()
        looks = []
        look = daemon.loop.look
        daemon.loop.look = lambda: looks.append(1) or look()  # type: ignore
        expectations = Expectations(daemon.loop)
        assert not looks
        for _ in range(5):
            expectations.of(daemon.row(waits))
        assert len(looks) == 1
        daemon.submit("true")
        await daemon.turn()
        expectations.of(daemon.row(waits))
        assert len(looks) == 2

    with_alive(tmp_path, deed, **ONE_SLOT)


def test_who_is_held_is_not_expected_to_start(store: Store) -> None:
    job = submit(store).start
    assert Expectations(Still()).of(row(store, job) | {"held_by": "ann"}) == {}
