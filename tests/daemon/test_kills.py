"""A kill without a grace of what runs: ahead of the turn that follows from it, and the same to tell."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.decisions import Signal
from gpuq.core.model import ActiveJob, EndCause, JobState
from gpuq.daemon.kills import due_at_once
from gpuq.daemon.linux import processes
from tests import stored
from tests.builders import active, stop
from tests.daemon.asking import Asked, asked
from tests.desk import DEADLINE_S, until

STUBBORN = "trap '' TERM; while :; do sleep 0.02; done"
OF_THE_KILL = ("stop_asked", "kill_sent", "ended")
REASON = "cancelled by alice: ended by SIGKILL"
NOW = 1000.0


async def in_a_group(at: Asked, script: str = STUBBORN, **more: Any) -> tuple[int, int]:
    """A job that runs in a group of its own, which its runner has left; and its pid."""
    if at.daemon.loop._cgroup_root is None:
        pytest.skip("NOT TESTED: this process may make no groups in a cgroup 2 here")
    job = at.daemon.submit(script, **more)
    pid = await at.daemon.running(job)
    (attempt,) = at.daemon.attempts(job)
    procs = Path(f"{attempt['cgroup']}/cgroup.procs")
    await until(lambda: str(attempt["runner_pid"]) not in procs.read_text().split(), "it alone")
    return job, pid


def is_gone(pid: int) -> bool:
    return processes.identity(pid) is None


def at_once(condition: Callable[[], bool]) -> bool:
    """Whether that comes true though the loop does nothing any more."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def told(at: Asked, job: int) -> list[tuple[Any, ...]]:
    found = [event for event in stored.events(at.store) if event["job"] == job]
    names = ("kind", "actor", "cause", "detail")
    return [tuple(event[name] for name in names) for event in found if event["kind"] in OF_THE_KILL]


def test_what_is_killed_dies_of_the_request_which_is_one_commit(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job, pid = await in_a_group(at)
        commits: list[float] = []
        at.store.database.commit_took = commits.append
        turns = at.daemon.loop.turns
        assert await at.done("kill", job, grace_s=0) == ["killing"]
        assert at_once(lambda: is_gone(pid))
        assert (len(commits), at.daemon.loop.turns) == (1, turns)
        assert (await at.daemon.ended(job))["outcome"] == "cancelled"

    asked(tmp_path, deed, cgroup="auto")


@pytest.mark.parametrize("by_the_turn", [False, True])
def test_a_kill_at_once_tells_what_one_by_a_turn_tells(tmp_path: Path, by_the_turn: bool) -> None:
    async def deed(at: Asked) -> None:
        job, _ = await in_a_group(at)
        if by_the_turn:
            at.store.wished.stop(job, grace_s=0.0, actor="alice", now=time.time())
            at.daemon.loop.wake()
        else:
            await at.do("kill", job, grace_s=0)
        ended = await at.daemon.ended(job)
        assert (ended["outcome"], ended["signal"]) == ("cancelled", 9)
        assert ended["reason"] == REASON
        asked_for, sent, end = told(at, job)
        assert asked_for[:2] == ("stop_asked", "alice")
        assert sent[:2] == ("kill_sent", "alice")
        assert end[:3] == ("ended", "alice", REASON)

    asked(tmp_path, deed, cgroup="auto")


def test_who_has_left_the_group_is_killed_by_the_turn(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job, pid = await in_a_group(at, "sleep 600 & wait")
        (child,) = processes.descendants(pid)
        away = os.path.dirname(str(at.daemon.loop._cgroup_root))
        Path(f"{away}/cgroup.procs").write_text(str(child))
        await at.do("kill", job, grace_s=0)
        assert (await at.daemon.ended(job))["outcome"] == "cancelled"
        assert is_gone(child)

    asked(tmp_path, deed, cgroup="auto")


def test_what_stands_still_is_killed_at_once_too(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job, pid = await in_a_group(at)
        at.daemon.pause(job)
        await at.daemon.until(lambda: at.daemon.row(job)["paused_mono"], "the pause")
        await at.do("kill", job, grace_s=0)
        assert at_once(lambda: is_gone(pid))
        assert (await at.daemon.ended(job))["reason"] == REASON

    asked(tmp_path, deed, cgroup="auto")


def test_a_job_without_a_group_is_killed_by_the_turn(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit(STUBBORN)
        await at.daemon.running(job)
        await at.do("kill", job, grace_s=0)
        assert at.daemon.attempts(job)[0]["kill_mono"], "noted with the wish"
        assert (await at.daemon.ended(job))["reason"] == REASON

    asked(tmp_path, deed)


def test_who_has_a_command_for_its_end_is_told_why_it_did_not_run(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job, _ = await in_a_group(at, on_kill=b"true")
        await at.do("kill", job, grace_s=0)
        await at.daemon.ended(job)
        (said,) = [e["cause"] for e in stored.events(at.store) if e["kind"] == "on_kill"]
        assert "there was no time for it: KILL came at once" in said

    asked(tmp_path, deed, cgroup="auto")


@pytest.mark.parametrize(("cgroup", "rung"), [("auto", "soon"), ("none", "now")])
def test_the_turn_leaves_those_in_a_group_the_time_to_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, rung: str
) -> None:
    """A look at all processes takes longer than that, and they need the same CPUs."""

    async def deed(at: Asked) -> None:
        if cgroup == "auto":
            job, _ = await in_a_group(at)
        else:
            job = at.daemon.submit(STUBBORN)
            await at.daemon.running(job)
        heard: list[str] = []
        bell = at.daemon.loop._bell
        with monkeypatch.context() as patched:
            patched.setattr(bell, "wake_soon", lambda: heard.append("soon"))
            patched.setattr(bell, "wake", lambda: heard.append("now"))
            await at.do("kill", job, grace_s=0)
        assert heard == [rung]
        bell.wake()
        await at.daemon.ended(job)

    asked(tmp_path, deed, cgroup=cgroup)


# ─── whom it is for ──────────────────────────────────────────────────────────────────────────────


def wished_gone(grace_s: float = 0.0, **more: Any) -> ActiveJob:
    return replace(active(7), running_since=900.0, stop=stop(grace_s=grace_s), **more)


KILL_7 = [Signal(job=7, attempt=1, signal=9, ends=EndCause.ASKED)]


@pytest.mark.parametrize(
    "job",
    [
        wished_gone(),
        wished_gone(paused_since=950.0, pause_wished=True),
        wished_gone(ending=EndCause.ASKED, term_sent_at=990.0),
        wished_gone(ending=EndCause.PREEMPTED, term_sent_at=990.0, gives_way_to=9),
        wished_gone(main_ended_at=950.0),
    ],
)
def test_what_a_turn_would_kill_is_killed_at_once(job: ActiveJob) -> None:
    assert due_at_once([job], NOW) == KILL_7


@pytest.mark.parametrize(
    "job",
    [
        wished_gone(grace_s=10.0),
        wished_gone(ending=EndCause.ASKED, kill_sent_at=999.0),
        wished_gone(signal_wishes=(10,)),
        replace(wished_gone(), state=JobState.STARTING, running_since=None),
        replace(wished_gone(), stop=None),
    ],
)
def test_all_else_is_left_to_the_turn(job: ActiveJob) -> None:
    assert due_at_once([job], NOW) == []
