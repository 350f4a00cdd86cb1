"""What others are told of one's jobs: with both settings, by every request, word for word."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.decisions import Plan
from gpuq.core.gpus.gpu import GpuProcess
from gpuq.core.model import Exit, JobState, Outcome, Request, Snapshot
from gpuq.core.states import explain
from gpuq.daemon.callers import discretion
from gpuq.daemon.callers.discretion import Discretion, Sight, of_event, of_job
from gpuq.daemon.callers.peer import NOBODY, Peer
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.requests.views import attempt_view, event_view, job_view
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import NotPermitted
from tests import stored
from tests.builders import foreign, gpu
from tests.stored import ALICE, BOB, NOW, end, fail, job_in, row, run, start, submit_one


def peer_of(uid: int, user: str, *, is_admin: bool = False) -> Peer:
    return Peer(uid=uid, gid=uid, pid=1, user=user, is_admin=is_admin)


OWNER = peer_of(ALICE.uid, "alice")
STRANGER = peer_of(BOB.uid, "bob")
ADMIN = peer_of(2003, "carol", is_admin=True)
CONTAINER = peer_of(NOBODY, "root of a container")

# Of each of these the letters say whose it is: C is of what a job runs, W of what it wrote, E of its
# environment.
COMMAND = (
    "Cargv",
    "Cname",
    "Ccwd",
    "Ctag",
    "Ckey",
    "Coutput",
    "Cstderr",
    "Cstage",
    "Cleft",
    "Cstuck",
)
WRITTEN = ("Wmemory",)
SECRET = ("Eenvironment", "Echange")


class World:
    """What the daemon last saw: alice's job has a process on a GPU that it does not hold."""

    gpu_trouble: str | None = None
    has_no_driver = False
    turns = 0
    plan = Plan()
    health = ()

    def __init__(self) -> None:
        self.cards = [gpu(0), gpu(1)]

    @property
    def gpus(self) -> list[Any]:
        return self.cards

    def gpu_use(self, job: int, attempt: int) -> None:
        return None

    commit_and_start = nullcontext

    def wake(self) -> None: ...
    def look_closely(self) -> None: ...
    def look(self) -> Snapshot:
        return Snapshot(now=0.0, gpus=())

    def keep_house(self) -> None: ...
    def note_kills(self, jobs: Any) -> list[Any]:
        return []

    def strike(self, kills: Any) -> None: ...
    def ask_to_stop(self, reason: str, *, back: bool = False) -> None: ...
    def wish_tests(self, uuids: Any, actor: str) -> None: ...

    def owner_of(self, pid: int) -> int | None:
        found = [one.job for card in self.cards for one in card.processes if one.pid == pid]
        return found[0] if found else None

    async def settle(self) -> None: ...
    async def first_reading(self, timeout_s: float) -> None: ...


class Desk:
    """A daemon's handlers over a store with jobs of alice's in every state."""

    def __init__(self, folder: Path, visibility: str) -> None:
        self.store = stored.with_gpus(Store(":memory:"))
        self.world = World()
        flags = {"state_dir": str(folder), "gpus": "none", "visibility": visibility}
        self.config = config.load(flags, {})
        self.handlers = Handlers(self.store, self.config, self.world, Watchers())
        self.queued = self.secret_job()
        self.running = self.secret_job()
        start(self.store, self.running, stored.lease(self.running), gpu_indices=(0,))
        run(self.store, self.running)
        process = GpuProcess(pid=os.getpid(), user="alice", command="Cargv", memory_bytes=2**30)
        self.world.cards[0] = gpu(0, processes=[replace(process, job=self.running), foreign()])
        self.stuck = job_in(self.store, JobState.RUNNING, **self.secrets("stuck"))
        self.store.happened.unkillable(self.stuck, 1, "7 (Cstuck) hangs", now=NOW)
        self.again = self.ended(retries=2)
        self.failed = self.ended()
        self.unstarted = self.ended(
            Exit(exit_code=126, stage="executing Cstage", error="Cstage: no", ended_at=NOW + 9)
        )

    def secrets(self, key: str) -> dict[str, Any]:
        return {
            "argv": (b"Cargv", b"--now"),
            "name": "Cname",
            "cwd": b"/Ccwd",
            "tags": ("Ctag",),
            "key": f"Ckey{key}",
            "output": b"/Coutput",
            "stderr": b"/Cstderr",
            "changes": {b"X": b"Echange"},
            "gpu_mem_from": "asks for 1G: Cname used so much before",
        }

    def secret_job(self, **changes: Any) -> int:
        number = self.store.found.last_id() or 0
        job = submit_one(self.store, **(self.secrets(str(number)) | changes))
        stored.write(self.store, "update environments set content = ?", b"A=Eenvironment\0")
        return job

    def ended(self, exit: Exit | None = None, *, retries: int = 0) -> int:
        """One that ended badly, saying why; with retries it waits for the next attempt."""
        exit = exit or Exit(
            exit_code=3,
            told_out_of_memory="Wmemory",
            leftovers=1,
            leftover_names="Cleft",
            ended_at=NOW + 9,
        )
        job = self.secret_job(retries=retries, request=Request(gpus=0))
        start(self.store, job)
        run(self.store, job)
        outcome = Outcome.FAILED if exit.stage else Outcome.OUT_OF_MEMORY
        reason, openly = explain(exit, outcome), explain(exit, outcome, openly=True)
        how: dict[str, Any] = {"exit": exit, "outcome": outcome}
        finish = fail if retries else end
        finish(self.store, job, **how, reason=reason, open_reason=openly)
        return job

    def ask(self, peer: Peer, do: str, **words: Any) -> Any:
        return asyncio.run(self.handlers.handle({"do": do, **words}, peer))

    def show(self, peer: Peer, job: int) -> dict[str, Any]:
        shown: dict[str, Any] = self.ask(peer, "show", ref=str(job))["job"]
        return shown

    def everything(self, peer: Peer) -> str:
        """All that a caller can be told, in one text."""
        jobs = range(1, self.failed + 2)
        answers = [
            self.ask(peer, "status", all=True),
            self.ask(peer, "status", mine=True, all=True),
            self.ask(peer, "gpus"),
            self.ask(peer, "why_gpu", ref="0"),
            self.ask(peer, "why_gpu", ref="1"),
            self.ask(peer, "events", since=0),
            self.ask(peer, "prunable"),
            self.ask(peer, "pruning"),
            self.ask(peer, "ping"),
            self.ask(peer, "wait", refs=[str(self.failed)]),
            self.ask(peer, "status", name="Xname", all=True),
            self.told(peer, "explain", pid=os.getpid()),
            *(self.ask(peer, "show", ref=str(job)) for job in jobs),
            *(self.ask(peer, "group", ref=str(job), best="Wloss:max") for job in jobs),
            *(self.told(peer, "kill", refs=[str(job)]) for job in jobs),
            *(self.told(peer, "pause", refs=[str(job)]) for job in jobs),
            *(self.told(peer, "prune", refs=[str(job)]) for job in jobs),
        ]
        return json.dumps(answers)

    def told(self, peer: Peer, do: str, **words: Any) -> Any:
        """The answer, or the words of the refusal."""
        try:
            return self.ask(peer, do, **words)
        except NotPermitted as refusal:
            return str(refusal)

    def refused(self, peer: Peer, do: str, **words: Any) -> str:
        with pytest.raises(NotPermitted) as refusal:
            self.ask(peer, do, **words)
        return str(refusal.value)


@pytest.fixture
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(tmp_path, getattr(request, "param", "own"))
    with closing(desk.store):
        yield desk


def found_in(text: str, words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word in text]


both = pytest.mark.parametrize("desk", ["own", "all"], indirect=True)
with_all = pytest.mark.parametrize("desk", ["all"], indirect=True)


# ── nothing gets out ──


@pytest.mark.parametrize("peer", [STRANGER, CONTAINER], ids=lambda peer: peer.user)
def test_others_are_told_no_word_of_what_a_job_runs_where_only_ones_own_are_shown(
    desk: Desk, peer: Peer
) -> None:
    told = desk.everything(peer)
    assert found_in(told, (*COMMAND, *WRITTEN, *SECRET)) == []


@with_all
@pytest.mark.parametrize("peer", [STRANGER, CONTAINER], ids=lambda peer: peer.user)
def test_others_are_told_nothing_of_what_a_job_wrote_where_all_are_shown(
    desk: Desk, peer: Peer
) -> None:
    told = desk.everything(peer)
    assert found_in(told, (*WRITTEN, *SECRET)) == []
    assert found_in(told, COMMAND) == list(COMMAND)


@both
@pytest.mark.parametrize("peer", [OWNER, ADMIN], ids=lambda peer: peer.user)
def test_the_owner_and_admins_are_told_all_of_it(desk: Desk, peer: Peer) -> None:
    jobs = [desk.show(peer, job) for job in range(1, desk.failed + 2)]
    events = desk.ask(peer, "events", since=0)
    gpus = desk.ask(peer, "gpus")
    told = json.dumps([jobs, events, gpus])
    assert found_in(told, (*COMMAND, *WRITTEN)) == [*COMMAND, *WRITTEN]
    assert found_in(told, SECRET) == []
    assert not any(job["hidden"] for job in jobs)


@both
@pytest.mark.parametrize("peer", [STRANGER, CONTAINER, ADMIN], ids=lambda peer: peer.user)
def test_an_environment_is_its_owners(desk: Desk, peer: Peer) -> None:
    refusal = desk.refused(peer, "show", ref=str(desk.queued), with_env=True)
    assert refusal == f"the environment of job {desk.queued} is alice's alone"
    job = desk.ask(OWNER, "show", ref=str(desk.queued), with_env=True)["job"]
    assert job["environment"] == ["A=Eenvironment"]


# ── what everybody sees ──


def test_the_queue_is_everybodys_to_see(desk: Desk) -> None:
    job = desk.show(STRANGER, desk.running)
    assert (job["id"], job["user"], job["state"]) == (desk.running, "alice", "running")
    assert (job["gpus"], job["gpu_count"], job["priority"]) == ([0], 1, 0)
    assert (job["submitted_at"], job["started_at"], job["hidden"]) == (NOW, NOW, True)
    waiting = desk.show(STRANGER, desk.queued)
    assert (waiting["place"], waiting["reason"]) == (1, "about to be considered")


def test_what_is_hidden_is_there_and_empty(desk: Desk) -> None:
    seen, whole = desk.show(STRANGER, desk.failed), desk.show(OWNER, desk.failed)
    assert seen.keys() == whole.keys()
    assert (seen["command"], seen["name"], seen["cwd"], seen["tags"]) == ([], "", "", [])
    assert [seen[name] for name in ("key", "log", "output", "stderr", "output_dir")] == [None] * 5
    assert seen["attempts"][0].keys() == whole["attempts"][0].keys()
    assert seen["attempts"][0]["log"] is None


@both
def test_others_are_told_how_a_job_ended_without_its_words(desk: Desk) -> None:
    ends = {
        desk.failed: "out of GPU memory (exit code 3); it left a process behind, which was ended",
        desk.unstarted: "could not start",
    }
    for job, reason in ends.items():
        seen = desk.show(STRANGER, job)
        assert (seen["reason"], seen["attempts"][0]["reason"]) == (reason, reason)
    again = desk.show(STRANGER, desk.again)
    assert again["reason"] == f"{ends[desk.failed]}; attempt 2 of 3 in 60 s"
    causes = [
        event["cause"]
        for event in desk.ask(STRANGER, "events", since=0)["events"]
        if event["kind"] in ("ended", "attempt_ended")
    ]
    assert causes == [ends[desk.failed], ends[desk.failed], ends[desk.unstarted]]


def test_what_survives_kill_is_said_without_its_name(desk: Desk) -> None:
    assert desk.show(STRANGER, desk.stuck)["reason"] == "survives KILL"
    assert desk.show(OWNER, desk.stuck)["reason"] == "survives KILL: 7 (Cstuck) hangs"


def test_whose_process_is_on_a_gpu_is_seen_and_not_which(desk: Desk) -> None:
    ours, other = desk.ask(STRANGER, "gpus")["gpus"][0]["processes"]
    assert (ours["user"], ours["job"], ours["command"]) == ("alice", desk.running, None)
    assert other["command"] == "python", "what is nobody's job is anybody's to see in /proc"
    mine = desk.ask(OWNER, "gpus")["gpus"][0]["processes"]
    assert [one["command"] for one in mine] == ["Cargv", "python"]


def test_a_process_of_a_hidden_job_is_said_to_be_one_and_no_more(desk: Desk) -> None:
    told = desk.ask(STRANGER, "explain", pid=os.getpid())
    whose = f"job {desk.running}, which is another user's to look into"
    assert told["sentences"] == [f"process {os.getpid()} belongs to {whose}"]
    assert len(desk.ask(ADMIN, "explain", pid=os.getpid())["sentences"]) > 1


def test_ones_own_jobs_are_not_hidden_from_oneself(desk: Desk) -> None:
    mine = submit_one(desk.store, by=BOB, name="sweep")
    job = desk.show(STRANGER, mine)
    assert (job["name"], job["command"], job["hidden"]) == ("sweep", ["sh", "-c", "true"], False)


def test_the_setting_is_in_force_at_once(desk: Desk, tmp_path: Path) -> None:
    flags = {"state_dir": str(tmp_path), "gpus": "none", "visibility": "all"}
    assert desk.show(STRANGER, desk.queued)["hidden"]
    desk.config.take_over(config.load(flags, {}))
    job = desk.show(STRANGER, desk.queued)
    assert (job["hidden"], job["name"]) == (False, "Cname")


# ── nothing can be guessed ──


@pytest.mark.parametrize("words", [{"name": "Cname"}, {"tag": "Ctag"}])
def test_a_hidden_job_is_not_found_by_what_is_hidden(desk: Desk, words: dict[str, str]) -> None:
    mine = submit_one(desk.store, by=BOB, name="Cname", tags=("Ctag",))

    def found(peer: Peer, **more: Any) -> list[int]:
        return [job["id"] for job in desk.ask(peer, "status", all=True, **words, **more)["jobs"]]

    assert found(STRANGER) == [mine]
    assert found(STRANGER, user="alice") == []
    assert len(found(OWNER)) == 6
    assert len(found(ADMIN)) == 7
    assert found(CONTAINER) == []


@with_all
def test_where_all_are_shown_all_are_found(desk: Desk) -> None:
    assert len(desk.ask(STRANGER, "status", all=True, name="Cname")["jobs"]) == 6


# ── no field is forgotten ──


def test_every_field_of_a_job_an_attempt_and_an_event_is_known_to_be_open_or_not(
    desk: Desk,
) -> None:
    """Whoever adds one decides whose it is, in `discretion`: until then others do not get it."""
    known = row(desk.store, desk.failed)
    job = job_view(known, Plan(), "/state", sight=Sight.ALL)
    assert set(discretion.JOB) - {"place", "place_of", "queue_place"} == set(job)
    (attempt,) = desk.store.found.attempts(desk.failed)
    assert set(attempt_view(attempt, known, "/state", sight=Sight.ALL)) == set(discretion.ATTEMPT)
    event = event_view(stored.events(desk.store)[0], [], sight=Sight.ALL)
    hidden = {"uid", "open_cause"}
    assert set(event) == set(discretion.EVENT)
    assert set(stored.events(desk.store)[0]) - hidden == set(event) - {"gpu_index"}


def test_a_field_that_nobody_thought_of_is_not_told() -> None:
    view = {"id": 1, "fresh": "secret"}
    assert of_job(view, Sight.ALL)["fresh"] == "secret"
    assert [of_job(view, sight)["fresh"] for sight in (Sight.COMMANDS, Sight.QUEUE)] == [None] * 2


def test_an_event_of_a_job_that_nobody_thought_of_tells_that_it_was() -> None:
    view: dict[str, Any] = dict.fromkeys(discretion.EVENT) | {"open_cause": None}
    view |= {"kind": "fresh", "job": 7, "cause": "secret", "detail": {"a": 1}}
    for sight in (Sight.COMMANDS, Sight.QUEUE):
        told = of_event(view, sight)
        assert (told["kind"], told["job"], told["cause"], told["detail"]) == (
            "fresh",
            7,
            None,
            None,
        )
    assert of_event(view | {"job": None}, Sight.QUEUE)["cause"] == "secret", "it is nobody's job"


def test_an_event_of_a_job_that_is_forgotten_is_still_its_owners(desk: Desk) -> None:
    desk.ask(OWNER, "prune", refs=[str(desk.failed)])
    desk.store.pruned.forget(desk.store.pruned.wished(9), {}, now=NOW)
    assert desk.store.found.owner(desk.failed) is None

    def cause(peer: Peer) -> Any:
        events = desk.ask(peer, "events", since=0)["events"]
        (found,) = [e for e in events if e["job"] == desk.failed and e["kind"] == "ended"]
        return found["cause"]

    assert "Wmemory" in cause(OWNER)
    assert "Wmemory" not in cause(STRANGER)


def test_a_job_of_which_nobody_knows_whose_it_is_is_an_admins_to_see() -> None:
    for visibility, others in (("own", Sight.QUEUE), ("all", Sight.COMMANDS)):
        for peer, sight in ((ADMIN, Sight.ALL), (OWNER, others), (CONTAINER, others)):
            told = Discretion(peer=peer, visibility=visibility, owner_of=lambda job: None)
            assert told.sight(None) is sight
    nobody = Discretion(peer=CONTAINER, visibility="own", owner_of=lambda job: NOBODY)
    assert nobody.sight(NOBODY) is Sight.QUEUE
