"""kill -9 at each marked step between a commit and its deed, and then a new process in its place.

A scenario is a small piece of work that passes some steps; whoever passes the armed one dies there.
Whatever died and wherever, each job ends once with its own code, and nothing is left running.
"""

import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import gpuq
from gpuq.daemon.linux import processes
from tests.acceptance.faults import test_notices_told as told
from tests.acceptance.faults.conftest import FaultyDaemon, assert_all_well, assert_checked
from tests.conftest import until

Scenario = Callable[[FaultyDaemon, str], None]

SCENARIOS: list[tuple[str, Scenario]] = []
STARTING = ("loop.starting", "loop.primed", "loop.committed", "loop.dispatched")
ORDERING = ("supervisor.ordering", "supervisor.ordered")
NEVER_RAN = ("runner.ordered", "runner.prepared", "runner.told_to_go", "runner.room_taken")
NEWS = ("loop.news", "loop.news_committed")
SIGNALLING = ("loop.signalling", "loop.signal_committed", "loop.signalled")
LONG_S = 20.0
HEARS_TERM = "trap 'exit 9' TERM; while :; do sleep 0.02; done"


def dying_at(*steps: str) -> Callable[[Scenario], Scenario]:
    """The steps at which somebody dies in the course of a scenario."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.extend((step, scenario) for step in steps)
        return scenario

    return register


# ── from a submit to a start ──


@dying_at("submit.storing", "submit.committed")
def submit(daemon: FaultyDaemon, step: str) -> None:
    before = daemon.last_id()
    with daemon.client() as client:
        with daemon.dying_at(step):
            job = client.submit(**daemon.job("exit 3"))
        assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3
    assert daemon.last_id() == job == before + 1, "one submit, one job"
    assert daemon.runs(job) == [f"{job}.1"]


@dying_at("spool.made", "submit.storing", "submit.committed")
def drop(daemon: FaultyDaemon, step: str) -> None:
    """A file in the spool folder, while the daemon dies on who submits it."""
    before, script = daemon.last_id(), daemon.folder / "dropped"
    script.write_text("#!/bin/sh\n#GPUQ -g 0\nexit 3\n")
    with daemon.client() as client:
        with daemon.dying_at(step):
            folder = Path(client.call("spool")["path"])
            script.rename(folder / "three.sh")
            until(lambda: list(folder.glob("accepted/*")), "the job of the file")
        assert client.wait([before + 1], timeout_s=LONG_S)[0]["exit_code"] == 3
    assert daemon.last_id() == before + 1, "one file, one job"
    assert [path.name for path in folder.glob("accepted/*")] == [f"{before + 1}-three.sh"]
    (folder / "accepted" / f"{before + 1}-three.sh").unlink()


@dying_at(*STARTING, *ORDERING, *NEWS, *NEVER_RAN, "launcher.asked", "launcher.forked")
def start(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        with daemon.dying_at(step):
            jobs = client.submit_many([daemon.job(f"exit {code}", gpus=2) for code in (3, 4, 5)])
            ended = client.wait(jobs, timeout_s=LONG_S)
        assert [job["exit_code"] for job in ended] == [3, 4, 5]
        assert [job["attempt"] for job in ended] == [1, 1, 1], "none of these deaths was a try"
    assert daemon.runs(*jobs) == [f"{job}.1" for job in jobs], "once each, in order"


@dying_at("runner.begun", "runner.born", "runner.spawned", "runner.told_running")
def birth(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        with daemon.dying_at(step):
            jobs = client.submit_many([daemon.job(f"exec sleep {300 * n}", gpus=2) for n in (1, 0)])
            lost, next_one = client.wait(jobs, timeout_s=LONG_S)
        assert lost["outcome"] == "lost"
        assert "its runner" in lost["reason"]
        assert next_one["outcome"] == "succeeded", "it gets the GPUs"
        assert lost["pid"] is None or processes.identity(lost["pid"]) is None


# ── one after the other, by one runner ──

AGAIN = (
    *("runner.told_end", "runner.record_written", "runner.recorded", "runner.told_clean"),
    *("runner.waits_again", "supervisor.keeping", "supervisor.kept"),
)


@dying_at(*AGAIN, *STARTING, *ORDERING, *NEVER_RAN, *NEWS)
def again(daemon: FaultyDaemon, step: str) -> None:
    """Whoever dies, no end is taken for another one's, and no job runs for want of a runner."""
    with daemon.client() as client:
        before = _run_by_one(daemon, client)
        with daemon.dying_at(step):
            jobs = client.submit_many([daemon.job(f"exit {code}", gpus=2) for code in (3, 4, 5)])
            ended = client.wait(jobs, timeout_s=LONG_S)
        assert [job["exit_code"] for job in ended] == [3, 4, 5]
        assert [job["attempt"] for job in ended] == [1, 1, 1], "none of these deaths was a try"
        assert [job["exit_code"] for job in client.jobs([str(job) for job in before])] == [7, 8]
    assert daemon.runs(*jobs) == [f"{job}.1" for job in jobs], "once each, in order"


@dying_at("runner.begun", "runner.born", "runner.spawned", "runner.told_running")
def birth_again(daemon: FaultyDaemon, step: str) -> None:
    """The end of the runner is that of its present job alone."""
    with daemon.client() as client:
        before = _run_by_one(daemon, client)
        with daemon.dying_at(step):
            jobs = client.submit_many([daemon.job(f"exec sleep {300 * n}", gpus=2) for n in (1, 0)])
            lost, next_one = client.wait(jobs, timeout_s=LONG_S)
        assert [lost["outcome"], next_one["outcome"]] == ["lost", "succeeded"]
        assert [job["exit_code"] for job in client.jobs([str(job) for job in before])] == [7, 8]
        assert lost["pid"] is None or processes.identity(lost["pid"]) is None


def _run_by_one(daemon: FaultyDaemon, client: Any) -> list[int]:
    """Two jobs that have ended, by one runner, which waits for another one."""
    for _ in range(5):
        jobs = []
        for code in (7, 8):
            jobs.append(client.submit(**daemon.job(f"exit {code}", gpus=2)))
            client.wait(jobs, timeout_s=LONG_S)
        with daemon.database() as db:
            asked = "select distinct runner_pid, runner_start from attempts where job in (?, ?)"
            if len(db.execute(asked, jobs).fetchall()) == 1:
                return jobs
    raise AssertionError("no runner has taken a second attempt")


# ── the end ──


@dying_at(*NEWS, "runner.told_end", "runner.record_written", "runner.recorded")
def end(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job, go = _submit_held(daemon, client, "exit 3", gpus=2)
        with daemon.dying_at(step):
            go.touch()
            assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3
    assert daemon.runs(job) == [f"{job}.1"]


@dying_at("loop.settling_needs", "loop.needs_settled")
def end_that_others_wait_for(daemon: FaultyDaemon, step: str) -> None:
    """A chain that waits for a failure, and one that is skipped for it."""
    with daemon.client() as client:
        first, go = _submit_held(daemon, client, "exit 3", gpus=2)
        on_first = [{"jobs": str(first), "when": when} for when in ("fail", "ok")]
        needs = [*on_first, {"entry": 1}, {"entry": 0, "when": "fail"}]
        rest = [daemon.job(after=[need]) for need in needs]
        with daemon.dying_at(step):
            jobs = client.submit_many(rest)
            go.touch()
            ended = client.wait(jobs, timeout_s=LONG_S)
        assert [job["outcome"] for job in ended] == ["succeeded", "skipped", "skipped", "skipped"]
    assert daemon.runs(*jobs) == [f"{jobs[0]}.1"]


@dying_at("runner.ended")
def end_without_record(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job, go = _submit_held(daemon, client, "exit 3", gpus=2)
        with daemon.dying_at(step):
            go.touch()
            assert client.wait([job], timeout_s=LONG_S)[0]["outcome"] == "lost"
    assert daemon.runs(job) == [f"{job}.1"], "nobody knows how it ended; it is not run twice"


@dying_at(*NEWS)
def end_of_main_alone(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        deaf = "(trap '' TERM; while :; do sleep 0.02; done) & exit 3"
        job, go = _submit_held(daemon, client, deaf, grace_s=0.5)
        with daemon.dying_at(step):
            go.touch()
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert ended["exit_code"] == 3
        assert "it left" in ended["reason"]


@dying_at(*NEWS, "loop.undelayed")
def retry(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        again = {"retries": 1, "backoff": "0.5s"}
        job, go = _submit_held(daemon, client, "exit $((7 * (2 - GPUQ_ATTEMPT)))", **again)
        with daemon.dying_at(step):
            go.touch()
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert (ended["outcome"], ended["attempt"]) == ("succeeded", 2)
    assert daemon.runs(job) == [f"{job}.1", f"{job}.2"]


@dying_at("loop.fell_back")
def cpu_in_place_of_gpus(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        first, go = _submit_held(daemon, client, "exit 3", gpus=2)
        with daemon.dying_at(step):
            script = 'test "$GPUQ_DEVICE" = cpu || exit 9'
            job = client.submit(**daemon.job(script, gpus=1, cpu_after_s=0.3))
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert (ended["outcome"], ended["cpu_fallback"]["gpus"]) == ("succeeded", 1)
        go.touch()
        client.wait([first], timeout_s=LONG_S)
    assert daemon.runs(job) == [f"{job}.1"]


# ── wishes ──


@dying_at(*SIGNALLING)
def kill_with_something_to_do(daemon: FaultyDaemon, step: str) -> None:
    said = daemon.folder / f"said-{step}"
    with daemon.client() as client:
        job = client.submit(**daemon.job(HEARS_TERM, gpus=2, on_kill=f"echo done >>{said}"))
        daemon.at_work(job)
        with daemon.dying_at(step):
            client.kill([job], grace_s=60)
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert ended["outcome"] == "cancelled"
    assert said.read_text() == "done\n", "once, whoever died"


@dying_at("kill.committed", *SIGNALLING)
def kill(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job = client.submit(**daemon.job(HEARS_TERM, gpus=2))
        daemon.at_work(job)
        with daemon.dying_at(step):
            client.kill([job], grace_s=60)
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert ended["outcome"] == "cancelled"
        assert ended["exit_code"] == 9, "it heard the TERM"


@dying_at("kill.committed", "kill.struck")
def kill_now(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job = client.submit(**daemon.job("trap '' TERM; while :; do sleep 0.02; done", gpus=2))
        daemon.at_work(job)
        with daemon.dying_at(step):
            client.kill([job], grace_s=0)
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert (ended["outcome"], ended["signal"]) == ("cancelled", signal.SIGKILL)


@dying_at(*SIGNALLING)
def kill_at_its_limit(daemon: FaultyDaemon, step: str) -> None:
    """By a turn, which nobody asked for."""
    stubborn = daemon.job("trap '' TERM; while :; do sleep 0.02; done", time_limit_s=1, grace_s=0)
    with daemon.client() as client:
        with daemon.dying_at(step):
            job = client.submit(**stubborn | {"gpus": 2})
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert (ended["outcome"], ended["signal"]) == ("timed_out", signal.SIGKILL)


@dying_at("loop.signal_committed")
def kill_of_a_paused_one(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job = client.submit(**daemon.job(HEARS_TERM, gpus=2))
        daemon.at_work(job)
        _pause(client, job)
        with daemon.dying_at(step):
            client.kill([job], grace_s=60)
            assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 9


@dying_at("loop.signal_committed")
def kill_that_is_for_main_alone(daemon: FaultyDaemon, step: str) -> None:
    heard = daemon.folder / "heard"
    heard.unlink(missing_ok=True)
    child = f"(trap 'touch {heard}' TERM; while :; do sleep 0.02; done) &"
    main = f"trap 'sleep 0.3; [ -e {heard} ] && exit 6; exit 9' TERM; while :; do sleep 0.02; done"
    with daemon.client() as client:
        job = client.submit(**daemon.job(f"{child} {main}", stop_to="main", grace_s=1))
        daemon.at_work(job)
        with daemon.dying_at(step):
            client.kill([job], grace_s=60)
            assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 9


@dying_at(*SIGNALLING)
def message(daemon: FaultyDaemon, step: str) -> None:
    """A signal by hand goes out once; where it was noted and not yet sent, nobody knows, and it is
    not sent twice."""
    heard = daemon.folder / "heard"
    heard.unlink(missing_ok=True)
    with daemon.client() as client:
        traps = f"trap 'echo x >> {heard}' USR1"
        job, go = _submit_held(daemon, client, "exit 3", before=traps)
        with daemon.dying_at(step):
            client.kill([job], signal="USR1")
            until(lambda: client.call("ping")["turns"])
        until(lambda: step == "loop.signal_committed" or heard.exists(), "the signal")
        go.touch()
        assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3
    times = len(heard.read_text().split()) if heard.exists() else 0
    assert times <= 1


@dying_at("pause.committed", "loop.pause_committed")
def pause(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job, go = _submit_held(daemon, client, "exit 3", gpus=2)
        with daemon.dying_at(step):
            client.call("pause", refs=[str(job)])
            until(lambda: client.job(job)["substate"] == "paused", "the pause")
        until(lambda: not _moves(daemon), "its standing still")
        client.call("pause", refs=[str(job)], off=True)
        go.touch()
        assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3


@dying_at("pause.committed", "loop.resumed")
def resume(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job, go = _submit_held(daemon, client, "exit 3", gpus=2)
        _pause(client, job)
        until(lambda: not _moves(daemon), "its standing still")
        with daemon.dying_at(step):
            client.call("pause", refs=[str(job)], off=True)
            until(lambda: _moves(daemon), "its going on")
            until(lambda: client.job(job)["substate"] is None, "its going on, as far as is known")
        go.touch()
        assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3


@dying_at("drain.committed")
def drain(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        with daemon.dying_at(step):
            client.call("drain", reason="a new disk")
        job = client.submit(**daemon.job("exit 3"))
        client.call("status", after_turn=True)
        assert client.job(job)["state"] == "queued"
        with daemon.dying_at(step):
            client.call("drain", off=True)
        assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3


@dying_at("kill.committed", "loop.cancelling", "loop.cancelled")
def cancel(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        client.call("drain", reason="nothing is to start")
        jobs = client.submit_many([daemon.job()] * 3)
        with daemon.dying_at(step):
            client.kill(jobs)
            ended = client.wait(jobs, timeout_s=LONG_S)
        client.call("drain", off=True)
    assert [job["outcome"] for job in ended] == ["cancelled"] * 3
    assert daemon.runs(*jobs) == []


@dying_at("hold.committed", "release.committed", "priority.committed", "move.committed")
def order_of_those_that_wait(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        client.call("drain", reason="nothing is to start")
        held, first, second = client.submit_many([daemon.job("exit 3", gpus=2)] * 3)
        with daemon.dying_at(step):
            for change in (client.hold, client.release, client.hold):
                assert change([held])[0]["done"] != "refused"
            client.set_priority([first], -1)
            client.move([second])
        client.call("drain", off=True)
        client.wait([first, second], timeout_s=LONG_S)
        assert client.job(held)["substate"] == "held"
        assert client.job(first)["priority"] == -1
        client.release([held])
        client.wait([held], timeout_s=LONG_S)
    assert daemon.runs(held, first, second) == [f"{job}.1" for job in (second, first, held)]


@dying_at("requeue.committed", "loop.requeueing", "loop.requeued")
def requeue_of_an_ended_one(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job = client.submit(**daemon.job("exit $((2 + GPUQ_ATTEMPT))", gpus=2))
        assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3
        with daemon.dying_at(step):
            assert client.requeue([job])[0]["done"] == "requeued"
            until(lambda: client.job(job)["attempt"] == 2, "its second attempt")
            assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 4
    assert daemon.runs(job) == [f"{job}.1", f"{job}.2"], "once more, and not twice"


@dying_at("requeue.committed", *SIGNALLING, *NEWS)
def requeue_of_a_running_one(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        script = f"[ $GPUQ_ATTEMPT = 2 ] && exit 4; {HEARS_TERM}"
        job = client.submit(**daemon.job(script, gpus=2))
        daemon.at_work(job)
        with daemon.dying_at(step):
            client.requeue([job])
            ended = client.wait([job], timeout_s=LONG_S)[0]
        assert (ended["exit_code"], ended["attempt"]) == (4, 2)
        first = client.job(job)["attempts"][0]
        assert (first["outcome"], first["exit_code"]) == ("cancelled", 9), "it heard the TERM"
    assert daemon.runs(job) == [f"{job}.1", f"{job}.2"]


@dying_at("undo.committed", "loop.requeueing", "loop.requeued")
def undo(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        client.call("drain", reason="nothing is to start")
        before, *jobs = client.submit_many([daemon.job("exit 3", gpus=2)] * 3)
        for killed in ([before], jobs):
            client.kill(killed)
            client.wait(killed, timeout_s=LONG_S)
        with daemon.dying_at(step):
            assert [one["id"] for one in client.undo()] == jobs
        client.call("drain", off=True)
        client.wait(jobs, timeout_s=LONG_S)
        assert client.job(before)["outcome"] == "cancelled", "that was another kill"
    assert daemon.runs(before, *jobs) == [f"{job}.1" for job in jobs]


@dying_at("edit.committed")
def edit(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        client.call("drain", reason="nothing is to start")
        job = client.submit(**daemon.job("exit 3"))
        version = client.editable(job)["version"]
        with daemon.dying_at(step):
            done = client.edit([job], version=version, name="new", env={"A": "1"})
        assert done[0]["done"] == "edited"
        client.call("drain", off=True)
        assert client.wait([job], timeout_s=LONG_S)[0]["name"] == "new"


# ── the daemon's own ──


@dying_at("main.locked", "loop.resolved")
def beginning(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job, go = _submit_held(daemon, client, "exit 3", gpus=2)
        daemon.kill()
        with daemon.dying_at(step):
            go.touch()
            assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3


@dying_at("main.leaving")
def leaving(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        job, go = _submit_held(daemon, client, "exit 3", gpus=2)
        with daemon.dying_at(step):
            client.call("stop", restart=True)
            go.touch()
            assert client.wait([job], timeout_s=LONG_S)[0]["exit_code"] == 3


@dying_at("loop.releasing")
def release(daemon: FaultyDaemon, step: str) -> None:
    """Simulated GPUs are cool at once, so one is said to be cooling while nobody looks."""
    with daemon.client() as client:
        job = client.submit(**daemon.job("exit 3", gpus=2))
        client.wait([job], timeout_s=LONG_S)
        daemon.kill()
        with closing(sqlite3.connect(daemon.state / "gpuq.db")) as db, db:
            db.execute(
                """
                insert into leases (gpu, slot, job, attempt, exclusive, state, since,
                                    cooling_mono, cooling_boot)
                select uuid, 0, ?, 1, 1, 'cooling', ?, ?, ? from gpus
                """,
                (job, time.time(), time.monotonic(), processes.boot_id()),
            )
        with daemon.dying_at(step):
            after = client.submit(**daemon.job("exit 4", gpus=2))
            assert client.wait([after], timeout_s=LONG_S)[0]["exit_code"] == 4


@dying_at("prune.committed", "retention.files_pruned")
def prune(daemon: FaultyDaemon, step: str) -> None:
    with daemon.client() as client:
        gone, stays = client.submit_many([daemon.job("exit 3"), daemon.job("exit 4")])
        client.wait([gone, stays], timeout_s=LONG_S)
        with daemon.dying_at(step):
            client.call("prune", refs=[str(gone)], outputs=True)
        until(lambda: not client.call("pruning")["pending"], "its being forgotten")
        assert [job["id"] for job in client.jobs([f"{gone}-{stays}"])] == [stays]
    assert not (daemon.state / "jobs" / str(gone)).exists()
    assert (daemon.state / "jobs" / str(stays)).exists()


@dying_at("reserve.committed")
def reserve(daemon: FaultyDaemon, step: str) -> None:
    """The answer is lost, and the client asks again."""
    with daemon.client() as client:
        with daemon.dying_at(step):
            ran = daemon.gpuq("reserve", "--gpus", "1", "--from", "+2h", "--for", "1h")
        assert ran.returncode == 0, ran.stderr
        made = [one["id"] for one in client.call("reservations")["reservations"]]
        assert len(made) == 1, "one wish, one reservation"
        client.call("cancel_reservation", reservation=made[0])


@dying_at("retention.files_removed")
def grow_old(daemon: FaultyDaemon, step: str) -> None:
    """What is old goes as a daemon begins; that the job was, stays."""
    with daemon.client() as client:
        job = client.submit(**daemon.job("exit 3"))
        log = Path(client.wait([job], timeout_s=LONG_S)[0]["log"])
        daemon.kill()
        daemon.flags = ("--keep-for", "0.1s")
        with daemon.dying_at(step):
            until(lambda: not log.exists(), "the end of its log")
        daemon.kill()
        daemon.flags = ()
        daemon.start()
        assert client.job(job)["exit_code"] == 3


def _submit_held(
    daemon: FaultyDaemon, client: Any, then: str, before: str = ":", **options: Any
) -> tuple[int, Path]:
    """A job at work, and the file that lets it go on to `then`. Meanwhile it counts."""
    go = daemon.folder / "go"
    go.unlink(missing_ok=True)
    count = f"echo >> {daemon.folder}/count"
    hold = f"{before}; while [ ! -e {go} ]; do {count}; sleep 0.02; done"
    job: int = client.submit(**daemon.job(f"{hold}; {then}", **options))
    daemon.at_work(job)
    return job, go


def _moves(daemon: FaultyDaemon) -> bool:
    """Does the job that is held count on?"""
    count = daemon.folder / "count"
    before = count.stat().st_size
    time.sleep(0.15)
    return count.stat().st_size != before


def _pause(client: Any, job: int) -> None:
    client.call("pause", refs=[str(job)])
    until(lambda: client.job(job)["substate"] == "paused", "the pause")


# ── all of them ──


def marked_steps() -> set[str]:
    sources = Path(gpuq.__file__).parent.rglob("*.py")
    return {step for file in sources for step in re.findall(r'\bhere\("(.+?)"\)', file.read_text())}


def test_no_step_is_left_out() -> None:
    """Those of notices are tried in test_notices_told.py."""
    elsewhere = {*told.OF_DAEMON, *told.OF_WHO_DELIVERS, *told.OF_A_TRIAL}
    assert {step for step, _ in SCENARIOS} | elsewhere == marked_steps()


@pytest.mark.parametrize(
    ("step", "scenario"), [pytest.param(*s, id=f"{s[0]} in {s[1].__name__}") for s in SCENARIOS]
)
def test_kill_9_at(daemon: FaultyDaemon, step: str, scenario: Scenario) -> None:
    scenario(daemon, step)


@pytest.fixture(scope="module")
def shared() -> Iterator[list[FaultyDaemon]]:
    """One daemon for as many scenarios as leave it well: what one left behind would be the next
    one's trouble. After a failure comes a new one."""
    daemons: list[FaultyDaemon] = []
    yield daemons
    for daemon in daemons:
        assert_checked(daemon)
        daemon.end()


@pytest.fixture
def daemon(
    shared: list[FaultyDaemon], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyDaemon]:
    if not shared:
        shared.append(FaultyDaemon(tmp_path_factory.mktemp("daemon")).start())
    daemon = shared[0]
    try:
        yield daemon
        assert_all_well(daemon)
    except BaseException:
        shared.remove(daemon)
        daemon.end()
        raise
