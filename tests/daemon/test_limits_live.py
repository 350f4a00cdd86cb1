"""Limits and named queues as they are set, changed and lifted while jobs wait and run."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.decisions import Plan
from gpuq.core.model import JobState, Limit, LimitKind, Request
from gpuq.core.policy import Policy, Queue, Rate
from gpuq.daemon.callers import names
from gpuq.daemon.callers.peer import NOBODY, Peer
from gpuq.daemon.recent_starts import RecentStarts
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.store.leased import accounts
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, NeverFits, NothingMatched, NotPermitted, UsageError
from tests import stored
from tests.alive import Alive, MovedClock, shown_by_hand, with_alive
from tests.builders import gpu
from tests.daemon.test_queue_limits import ADMIN, ANN, BEN, Still, plain_jobs, submit_to
from tests.stored import ALICE, BOB, NOW, job_in, submit_one

CONTAINER = Peer(uid=NOBODY, gid=NOBODY, pid=1, user="root of a container")
NIGHT = """
[queues.night]
gpus = [0, 1]
max_gpus = 2
time_limit = "1h"
max_time_limit = "2h"
users = ["alice", "@lab"]
[queues.day]
"""


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield opened


def handlers(tmp_path: Path, store: Store, text: str = "") -> Handlers:
    file = tmp_path / "gpuq.toml"
    file.write_text(text)
    given = {"state_dir": str(tmp_path), "gpus": "none", "config": str(file)}
    return Handlers(store, config.load(given, {}), Still(), Watchers())


def ask(asked: Handlers, do: str, peer: Peer = ADMIN, **request: Any) -> Any:
    return asyncio.run(asked.handle({"do": do, **request}, peer))


def submitted(asked: Handlers, peer: Peer = ANN, **job: Any) -> int:
    return int(asyncio.run(submit_to(asked, peer, plain_jobs(1, **job)))["first"])


def classes(store: Store) -> dict[int, tuple[str, int, str]]:
    """Of each job that has not ended: queue, group and tags of its class."""
    rows = store.database.rows(
        "select j.id, c.queue, c.group_id, c.tags from jobs j join classes c on c.id = j.class "
        "where j.state <> 'ended'"
    )
    return {row["id"]: (row["queue"], row["group_id"], row["tags"]) for row in rows}


PLAIN = ("", 0, "[]")
BIG = ("", 0, '["big"]')


# ── who waits with whom ──


def test_a_limit_of_a_tag_puts_its_jobs_into_classes_of_their_own(store: Store) -> None:
    tagged, other = submit_one(store, tags=("big", "new")), submit_one(store, tags=("new",))
    runs = job_in(store, JobState.RUNNING, tags=("big",))
    assert set(classes(store).values()) == {PLAIN}
    store.limited.limit(LimitKind.TAG, "big", {"max_running": 2}, actor="root", now=NOW)
    later = submit_one(store, tags=("big",))
    assert classes(store) == {tagged: BIG, other: PLAIN, runs: BIG, later: BIG}
    known = {job.id: job.class_id for job in store.current.waiting(9)}
    assert known[tagged] == known[later] != known[other]
    assert store.limited.lift(LimitKind.TAG, "big", actor="root", now=NOW)
    assert set(classes(store).values()) == {PLAIN}
    assert not store.limited.lift(LimitKind.TAG, "big", actor="root", now=NOW)


def test_a_second_limit_leaves_the_first_one_where_it_is(store: Store) -> None:
    both = submit_one(store, tags=("über", 'a "b"'))
    for tag in ("über", 'a "b"'):
        store.limited.limit(LimitKind.TAG, tag, {"max_running": 2}, actor="root", now=NOW)
    (known,) = store.current.waiting(9)
    assert set(known.tags) == {"über", 'a "b"'}
    again = submit_one(store, tags=('a "b"', "über"))
    assert classes(store)[both] == classes(store)[again]
    assert len({job.class_id for job in store.current.waiting(9)}) == 1


def test_a_limit_of_a_group_is_its_own_class_and_no_other_groups(store: Store) -> None:
    first, second = stored.submit(store, 3), stored.submit(store, 3)
    store.limited.limit_group(first.start, {"max_running": 1}, actor="alice", now=NOW)
    mine = ("", first.start, "[]")
    assert classes(store) == dict.fromkeys(first, mine) | dict.fromkeys(second, PLAIN)
    assert {job.group for job in store.current.waiting(9)} == {first.start, None}
    assert store.limited.of_groups([*first, *second]) == [
        Limit(kind=LimitKind.GROUP, name=str(first.start), max_running=1, actor="alice")
    ]
    both: Any = {"max_running": None, "max_gpus": None}
    store.limited.limit_group(first.start, both, actor="alice", now=NOW)
    assert set(classes(store).values()) == {PLAIN}
    assert store.limited.of_groups(first) == store.limited.of_groups_in_use() == []


@pytest.mark.parametrize("most", ["max_running", "max_gpus"])
def test_what_is_added_to_a_group_is_under_its_limit(store: Store, most: str) -> None:
    group = submit_one(store)
    store.limited.limit_group(group, {most: 1}, actor="alice", now=NOW)
    (later,) = store.asked.submit(ALICE, [stored.spec()], now=NOW, group=group)
    assert classes(store)[later] == ("", group, "[]")


def test_the_scheduler_sees_what_counts_of_those_that_run(store: Store) -> None:
    job = job_in(store, JobState.RUNNING, tags=("big",), queue="night")
    (known,) = store.current.active()
    assert (known.user, known.queue, known.group, known.tags) == ("alice", "night", job, ("big",))


def test_a_job_that_comes_back_is_under_the_limits_of_by_then(store: Store) -> None:
    job = job_in(store, JobState.ENDED, tags=("big",))
    store.limited.limit(LimitKind.TAG, "big", {"max_running": 2}, actor="root", now=NOW)
    store.changed.requeue(job, job, actor="alice", now=NOW)
    store.returned.requeue(job, now=NOW, boottime=1.0, boot_id="boot")
    assert classes(store) == {job: BIG}


# ── asked ──


def test_a_limit_is_set_changed_and_lifted(tmp_path: Path, store: Store) -> None:
    asked = handlers(tmp_path, store)
    submit_one(store, tags=("big",))
    ask(asked, "limit", subject="tag:big", max_running=2)
    ask(asked, "limit", subject="tag:big", max_gpus=4)
    assert store.limited.of_users_and_tags() == [
        Limit(kind=LimitKind.TAG, name="big", max_running=2, max_gpus=4, actor="carol")
    ]
    ask(asked, "limit", subject="tag:big", off=True)
    assert store.limited.of_users_and_tags() == []
    told = [(one["kind"], one["actor"], one["cause"]) for one in stored.events(store)][1:]
    assert told == [
        ("limited", "carol", "tag big: max_running 2"),
        ("limited", "carol", "tag big: max_gpus 4"),
        ("limit_lifted", "carol", "tag big"),
    ]


def test_who_is_no_admin_limits_his_own_groups_alone(tmp_path: Path, store: Store) -> None:
    asked = handlers(tmp_path, store)
    mine, bens = submit_one(store), stored.submit(store, by=BOB).start
    for subject in ("user:alice", "tag:big"):
        with pytest.raises(NotPermitted, match=r"only an admin may limit a (user|tag)"):
            ask(asked, "limit", ANN, subject=subject, max_running=2)
    ask(asked, "limit", ANN, subject=f"g{mine}", max_running=2)
    with pytest.raises(NotPermitted, match=f"group g{bens} is another user's"):
        ask(asked, "limit", ANN, subject=f"g{bens}", max_running=2)
    ask(asked, "limit", subject=f"g{bens}", max_running=0)
    with pytest.raises(NotPermitted):
        ask(asked, "limit", CONTAINER, subject=f"g{mine}", max_running=2)
    assert [one.name for one in store.limited.of_groups_in_use()] == [str(mine), str(bens)]


def test_a_group_without_a_limit_has_none_to_lift(tmp_path: Path, store: Store) -> None:
    asked, group = handlers(tmp_path, store), submit_one(store)
    with pytest.raises(NothingMatched, match=f"group g{group} has no limit of its own"):
        ask(asked, "limit", ANN, subject=f"g{group}", off=True)
    ask(asked, "limit", ANN, subject=f"g{group}", max_gpus=2)
    ask(asked, "limit", ANN, subject=f"g{group}", off=True)
    assert store.limited.of_groups_in_use() == []


@pytest.mark.parametrize(
    ("request_", "error", "why"),
    [
        ({"subject": "big"}, UsageError, "Write user:NAME, tag:NAME or a group like g12"),
        ({"subject": "user:"}, UsageError, "Write user:NAME"),
        ({"subject": 12}, UsageError, "Write user:NAME"),
        ({"subject": "g" + "1" * 30}, UsageError, "Write user:NAME"),
        ({"subject": "queue:night"}, UsageError, r"stand in the settings: \[queues.night\]"),
        ({"subject": "g99", "max_running": 1}, NothingMatched, "no group g99"),
        ({"subject": "tag:x", "off": True}, NothingMatched, "tag x has no limit of its own"),
        ({"subject": "tag:x"}, UsageError, "limit it to what"),
        ({"subject": "tag:x", "max_running": -1}, UsageError, "from 0 to"),
        ({"subject": "tag:x", "max_gpus": True}, UsageError, "from 0 to"),
    ],
)
def test_what_cannot_be_limited_is_said(
    tmp_path: Path, store: Store, request_: dict[str, Any], error: type[GpuqError], why: str
) -> None:
    with pytest.raises(error, match=why):
        ask(handlers(tmp_path, store), "limit", **request_)


def test_a_name_that_nobody_has_is_no_slip_that_goes_unseen(tmp_path: Path, store: Store) -> None:
    asked = handlers(tmp_path, store)
    submit_one(store)
    assert ask(asked, "limit", subject="user:alice", max_running=1)["note"] is None
    note = ask(asked, "limit", subject="user:alcie", max_running=1)["note"]
    assert note == "nobody called alcie has submitted anything yet"


def test_all_limits_are_listed_with_whose_they_are_and_what_they_hold(
    tmp_path: Path, store: Store
) -> None:
    text = "max_gpus_per_user = 4\nstart_rate = '5/s'\n[queues.night]\nmax_running = 3\n"
    asked = handlers(tmp_path, store, text)
    job_in(store, JobState.RUNNING, tags=("big",), queue="night", request=Request(gpus=2))
    ask(asked, "limit", subject="tag:big", max_running=2)
    ask(asked, "limit", subject="g1", max_gpus=2)
    file = str(tmp_path / "gpuq.toml")
    answer = ask(asked, "limits", CONTAINER)
    assert [tuple(one.values()) for one in answer["limits"]] == [
        ("user", "*", None, 4, None, file, None, None),
        ("queue", "night", 3, None, None, file, 1, 2),
        ("tag", "big", 2, None, "carol", None, 1, 2),
        ("group", "g1", None, 2, "carol", None, 1, 2),
    ]
    assert answer["start_rates"] == [{"queue": None, "rate": "5/s", "origin": file}]


# ── queues at submit ──


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of that name, with the id 77."""

    async def get(name: str) -> int | None:
        return 77 if name == "lab" else None

    monkeypatch.setattr(names.groups, "get", get)


def test_a_queue_gives_a_job_its_time_limit(tmp_path: Path, store: Store, lab: None) -> None:
    asked = handlers(tmp_path, store, NIGHT)
    usual, said = submitted(asked, queue="night"), submitted(asked, queue="night", time_limit_s=60)
    none = submitted(asked)
    limits = [stored.row(store, job)["time_limit_s"] for job in (usual, said, none)]
    assert limits == [3600.0, 60.0, None]
    assert stored.row(store, usual)["queue"] == "night"
    without = handlers(tmp_path, store, "[queues.night]\nmax_time_limit = '2h'\n")
    assert stored.row(store, submitted(without, queue="night"))["time_limit_s"] == 7200.0


@pytest.mark.parametrize(
    ("job", "error", "why"),
    [
        (
            {"queue": "nigt"},
            UsageError,
            "there is no queue 'nigt': there are night, day. Nothing was queued.",
        ),
        (
            {"queue": "night", "time_limit_s": 7201},
            UsageError,
            "--time 2:00:01 is more than the 2:00:00 that a job of queue night may run "
            "(max_time_limit). Nothing was queued.",
        ),
        (
            {"queue": "night", "gpus": 3},
            NeverFits,
            "the job can never start: it wants 3 GPUs, and 2 may be in use at a time: limit of "
            "queue night. Nothing was queued.",
        ),
    ],
)
def test_what_a_queue_does_not_allow_is_refused(
    tmp_path: Path, store: Store, lab: None, job: dict[str, Any], error: type[GpuqError], why: str
) -> None:
    with pytest.raises(error) as refused:
        submitted(handlers(tmp_path, store, NIGHT), **job)
    assert str(refused.value) == why
    assert stored.count(store, "jobs") == 0


def test_more_gpus_than_a_queue_has_are_refused(tmp_path: Path, store: Store) -> None:
    asked = handlers(tmp_path, store, "[queues.night]\ngpus = ['0-1']\n")
    assert submitted(asked, queue="night", gpus=2) == 1
    with pytest.raises(NeverFits, match="can never start in this queue: queue night has GPU 0-1"):
        submitted(asked, queue="night", gpus=3)


def test_a_queue_is_open_to_those_it_names_and_their_groups_and_admins(
    tmp_path: Path, store: Store, lab: None
) -> None:
    asked = handlers(tmp_path, store, NIGHT)
    for peer in (ANN, replace(BEN, groups=frozenset({77})), ADMIN):
        submitted(asked, peer, queue="night")
    with pytest.raises(NotPermitted) as refused:
        submitted(asked, BEN, queue="night")
    assert str(refused.value) == (
        "queue night is for alice, @lab, and bob is not among them. Submit to another one "
        "(gpuq queues), or without -q. Nothing was queued."
    )
    submitted(asked, BEN, queue="day")
    seen = {one["name"]: one["may_submit"] for one in ask(asked, "queues", BEN)["queues"]}
    assert seen == {"night": False, "day": True}


def test_a_queue_that_names_a_gpu_of_another_machine_is_told(tmp_path: Path, store: Store) -> None:
    notes = ask(handlers(tmp_path, store, "[queues.night]\ngpus = [0, 9]\n"), "config")["notes"]
    assert notes == ["queues.night.gpus: no GPU of this machine is 9. See: gpuq gpus"]


def test_queues_are_listed_with_what_runs_and_waits_and_those_that_are_gone(
    tmp_path: Path, store: Store
) -> None:
    asked = handlers(tmp_path, store, NIGHT)
    job_in(store, JobState.RUNNING, queue="night", request=Request(gpus=2))
    stored.submit(store, 3, queue="old")
    told = {
        one["name"]: (one["running"], one["gpus_in_use"], one["queued"], one["gone"])
        for one in ask(asked, "queues")["queues"]
    }
    assert told == {"night": (1, 2, 0, False), "day": (0, 0, 0, False), "old": (0, 0, 3, True)}


def test_jobs_are_found_by_their_queue(tmp_path: Path, store: Store) -> None:
    asked = handlers(tmp_path, store, NIGHT)
    submit_one(store)
    there = submit_one(store, queue="night")
    assert [one["id"] for one in ask(asked, "status", queue="night")["jobs"]] == [there]


def test_a_reason_names_no_tag_to_those_who_may_not_know_it(tmp_path: Path, store: Store) -> None:
    asked = handlers(tmp_path, store, "visibility = 'own'\n")
    job = submit_one(store, tags=("secret, really",))
    store.limited.limit(LimitKind.TAG, "secret, really", {"max_running": 0}, actor="root", now=NOW)
    why = "none may run: limit of tag secret, really, set by root"
    asked._world.plan = Plan(reasons={job: why})
    told = {
        peer.user: ask(asked, "status", peer)["jobs"][0]["reason"] for peer in (ANN, BEN, ADMIN)
    }
    assert told == {"alice": why, "carol": why, "bob": "none may run: limit of a tag"}


# ── who has had how much ──


def ended_after(store: Store, seconds: float, **changes: Any) -> int:
    """A job of two GPUs that ran so long."""
    job = submit_one(store, request=Request(gpus=2), **changes)
    stored.start(store, job, stored.lease(job, "GPU-0"), stored.lease(job, "GPU-1"))
    stored.run(store, job)
    stored.end(store, job, exit=stored.Exit(exit_code=0, ended_at=NOW + seconds))
    return job


def test_what_an_attempt_had_fades_and_is_carried_on(store: Store) -> None:
    stored.with_gpus(store)
    first = ended_after(store, 100.0)
    store.shares.add(first, 1, half_life_s=1000.0)
    assert store.shares.users() == {1000: "alice"}
    (had,) = store.shares.by_user(NOW + 100, 1000.0).values()
    assert had == pytest.approx(200 * 0.966, rel=0.01), "a bit of it has faded meanwhile"
    assert store.shares.by_user(NOW + 1100, 1000.0)[1000] == pytest.approx(had / 2)
    second = ended_after(store, 1100.0)
    store.shares.add(second, 1, half_life_s=1000.0)
    both = store.shares.by_user(NOW + 1100, 1000.0)[1000]
    assert both > had / 2 + 1000


def test_what_runs_counts_up_to_now(store: Store) -> None:
    stored.with_gpus(store)
    job = submit_one(store, request=Request(gpus=2))
    stored.start(store, job, stored.lease(job, "GPU-0"), stored.lease(job, "GPU-1"))
    assert store.shares.by_user(NOW + 50, 1e9) == {}, "it has not begun"
    stored.run(store, job)
    assert store.shares.by_user(NOW + 50, 1e9) == {1000: pytest.approx(100.0)}


def test_what_had_no_gpu_counts_nothing(store: Store) -> None:
    job = job_in(store, JobState.ENDED)
    store.shares.add(job, 1, half_life_s=1000.0)
    assert stored.count(store, "shares") == 0


def test_the_hours_of_each_user_are_those_of_the_time_that_is_asked_for(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.with_gpus(store)
    ended_after(store, 100.0)
    job = stored.submit(store, by=BOB, request=Request(gpus=1)).start
    stored.start(store, job, stored.lease(job))
    stored.run(store, job)
    wall = NOW + 150.0

    def had(since: float) -> list[tuple[str | None, float]]:
        found = accounts(store.database, "user", since=since, now=wall, whose=None, limit=9)
        return [(row.name, row.held_s) for row in found.rows]

    assert had(NOW) == [("alice", 200.0), ("bob", 150.0)]
    assert had(NOW + 90) == [("bob", 60.0), ("alice", 20.0)]
    assert had(NOW + 101) == [("bob", 49.0)]
    answer = ask(handlers(tmp_path, store), "usage", CONTAINER, since=NOW)
    told = {one["user"]: (one["attempts"], one["running"], one["gpus"]) for one in answer["users"]}
    assert told == {"alice": (1, 0, 0), "bob": (1, 1, 1)}
    assert (answer["fair_share"], answer["half_life_s"]) == (False, 7 * 86400.0)


# ── the daemon alive ──


def test_the_daemon_counts_what_it_started_lately_and_who_has_had_what(tmp_path: Path) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        jobs = [daemon.submit("true") for _ in range(5)]
        for number in range(5):
            ended = await daemon.ended(jobs[number])
            assert ended["outcome"] == "succeeded"
            waiting = [daemon.row(job)["state"] for job in jobs[number + 1 :]]
            assert waiting == ["queued"] * (4 - number), "the next one waits for its minute"
            clock.awake_s += 61.0
            daemon.loop.wake()

    with_alive(tmp_path, deed, clock, start_rate="1/m")


def test_who_has_had_less_of_the_gpus_is_started_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(daemon: Alive) -> None:
        await daemon.show(gpu(0, simulated=True, cools_at_once=True))
        one: dict[str, Any] = {"request": Request(gpus=1)}
        await daemon.ended(daemon.submit("sleep 0.1", **one))
        assert daemon.store.shares.users() == {1000: "alice"}
        daemon.drain("both are to be there")
        alices, bobs = daemon.submit("true", **one), daemon.submit("true", by=BOB, **one)
        daemon.drain(None)
        for job in (alices, bobs):
            await daemon.ended(job)
        begun = [
            event["job"] for event in stored.events(daemon.store) if event["kind"] == "starting"
        ]
        assert begun[1:] == [bobs, alices]
        had = daemon.store.shares.by_user(daemon.clock.wall(), 7 * 86400.0)
        assert had[1000] > had[1001] > 0

    with_alive(tmp_path, deed, fair_share=True)


def test_a_limit_counts_for_those_that_wait_once_it_is_set_and_lifted(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        limited = daemon.store.limited
        limited.limit(LimitKind.TAG, "big", {"max_running": 0}, actor="root", now=NOW)
        held = daemon.submit("true", tags=("big",))
        await daemon.ended(daemon.submit("true"))
        await daemon.turn()
        reason = daemon.loop.plan.reasons[held]
        assert reason == "none may run: limit of tag big, set by root"
        limited.lift(LimitKind.TAG, "big", actor="root", now=NOW)
        daemon.loop.wake()
        assert (await daemon.ended(held))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


def test_starts_are_forgotten_once_no_rate_asks_about_them() -> None:
    recent = RecentStarts()
    fast = Policy(start_rate=Rate(count=5, per_s=1.0))
    slow = replace(fast, queues=(Queue(name="slow", start_rate=Rate(count=1, per_s=60.0)),))
    for at in (10.0, 10.5, 11.0):
        recent.note("", at=at)
    assert [one.at for one in recent.as_of(11.5, slow)] == [10.0, 10.5, 11.0]
    assert [one.at for one in recent.as_of(11.5, fast)] == [11.0]
    assert [one.at for one in recent.as_of(11.5, slow)] == [11.0]
    assert recent.as_of(11.6, Policy()) == ()
