"""Reservations: who may make them, of which GPUs, what they mean for jobs, and the clock they go by."""

import asyncio
import json
import os
import pwd
import select
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request, Snapshot
from gpuq.core.policy import Policy
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.linux.syscalls import WallAlarm
from gpuq.daemon.requests.gpu_requests import GpuRequests
from gpuq.daemon.requests.reserving import Reserving
from gpuq.daemon.store import Store
from gpuq.errors import GpuqError, NothingMatched, NotPermitted, UsageError
from tests import stored
from tests.alive import Alive, MovedClock, alive, with_alive
from tests.builders import active, gpu, lease, world
from tests.desk import until
from tests.stored import NOW

ADMIN = Peer(uid=0, gid=0, pid=1, user="ann", is_admin=True)
SOMEBODY = Peer(uid=4242, gid=4242, pid=2, user="bob")
ME = pwd.getpwuid(os.getuid()).pw_name
HOUR = 3600.0
WHOLE = Request(gpus=1)


# ─── made and cancelled ──────────────────────────────────────────────────────────────────────────


class Box:
    """Four GPUs, and what is on them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cards: list[Gpu] = [gpu(index) for index in range(4)]
        self.snapshot: Snapshot = replace(world(self.cards), wall=NOW)
        self.reserving = Reserving(store, self, lambda: self.cards)

    def look(self) -> Snapshot:
        return self.snapshot

    def wake(self) -> None:
        pass

    def holds(self, *held: tuple[int, float | None]) -> None:
        """GPUs, each with the time that the job on it has left."""
        runs = [
            active(10 + index, time_limit_s=left_s, running_since=1000.0, grace_s=0.0)
            for index, left_s in held
        ]
        runs = [replace(job, stop=None) for job in runs]
        leases = [lease(index, 10 + index) for index, _ in held]
        self.snapshot = replace(world(self.cards, leases=leases, active=runs), wall=NOW)

    def ask(self, what: str, peer: Peer = ADMIN, **request: Any) -> Any:
        answer = asyncio.run(getattr(self.reserving, what)(request, peer))
        assert json.loads(json.dumps(answer)) == answer, "it goes over the wire as it is"
        return answer

    def reserve(self, **request: Any) -> Any:
        usual = {"user": ME, "begin_at": NOW + HOUR, "length_s": 12 * HOUR}
        return self.ask("reserve", **(usual | request))


@pytest.fixture
def box() -> Iterator[Box]:
    with closing(Store(":memory:")) as store:
        yield Box(store)


def test_only_an_admin_may(box: Box) -> None:
    for what in ("reserve", "cancel"):
        with pytest.raises(NotPermitted, match="only an admin may"):
            box.ask(what, SOMEBODY, count=1, reservation=1)
    assert box.ask("reservations", SOMEBODY) == {"reservations": []}
    assert stored.count(box.store, "reservations") == 0


def test_the_gpus_that_are_idle_the_soonest_are_taken_and_told(box: Box) -> None:
    box.holds((0, None), (1, 60.0), (2, 30.0))
    answer = box.reserve(count=2, reason="a deadline")
    assert answer["reservation"] == {
        "id": 1,
        "user": ME,
        "gpus": [2, 3],
        "gpu_uuids": ["GPU-2", "GPU-3"],
        "begin_at": NOW + HOUR,
        "end_at": NOW + 13 * HOUR,
        "active": False,
        "reason": "a deadline",
        "actor": "ann",
    }
    assert answer["held"] == []
    assert box.reserve(count=2)["held"] == [{"index": 0, "jobs": [10]}]
    assert [one["gpus"] for one in box.ask("reservations")["reservations"]] == []


def test_who_may_still_be_there_when_it_begins_is_told(box: Box) -> None:
    box.holds((0, None), (1, 2 * HOUR), (2, HOUR / 2))
    held = box.reserve(refs=["0-2"])["held"]
    assert held == [{"index": 0, "jobs": [10]}, {"index": 1, "jobs": [11]}]


def test_no_gpu_is_reserved_twice_for_the_same_time(box: Box) -> None:
    box.reserve(refs=["1,2"])
    with pytest.raises(GpuqError, match=rf"reserved already: GPU 2 for {ME} from .*reservation 1"):
        box.reserve(refs=["2-3"])
    assert box.reserve(count=2)["reservation"]["gpus"] == [0, 3]
    with pytest.raises(GpuqError, match="0 of 4 GPUs are free of other reservations then, and 1 "):
        box.reserve(count=1)
    box.reserve(refs=["2"], begin_at=NOW + 13 * HOUR)
    box.reserve(refs=["2"], begin_at=NOW, length_s=HOUR)
    assert stored.count(box.store, "reservations") == 4


def test_what_is_asked_twice_is_reserved_once(box: Box) -> None:
    """As by a client whose answer was lost, even where that reservation is over by now."""
    made = [box.reserve(count=2, token=token) for token in ("one", "one", "two")]
    assert [one["reservation"]["id"] for one in made] == [1, 1, 2]
    assert made[0] == made[1]
    box.store.reserved.cancel(1, actor="ann", now=NOW)
    assert box.reserve(count=2, token="one")["reservation"]["id"] == 1
    assert stored.count(box.store, "reservations") == 2


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"count": 9}, GpuqError, "this machine has 4 GPUs, and 9 were asked for"),
        ({"count": 0}, UsageError, "which GPUs"),
        ({}, UsageError, "which GPUs"),
        ({"refs": ["7"]}, NothingMatched, "there is no GPU 7"),
        ({"count": 1, "user": "nobody-of-that-name"}, NothingMatched, "there is no user"),
        ({"count": 1, "user": 7}, UsageError, "the name of a user"),
        ({"count": 1, "begin_at": NOW - HOUR}, UsageError, "that moment is past"),
        ({"count": 1, "begin_at": NOW + 400 * 86400.0}, UsageError, "more than a year away"),
        ({"count": 1, "begin_at": "soon"}, UsageError, "begin_at: 'soon' is no time"),
        ({"count": 1, "length_s": 0}, UsageError, "longer than nothing"),
        ({"count": 1, "length_s": 400 * 86400.0}, UsageError, "no longer than a year"),
        ({"count": 1, "length_s": None}, UsageError, "length_s: None is no time"),
        ({"count": 1, "length_s": float("nan")}, UsageError, "length_s: nan is no time"),
    ],
)
def test_what_cannot_be_is_said(
    box: Box, request_: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        box.reserve(**request_)
    assert stored.count(box.store, "reservations") == 0


def test_a_gpu_that_is_set_aside_is_not_taken_unasked(box: Box) -> None:
    box.cards[0] = replace(box.cards[0], fault="it does not answer")
    box.snapshot = replace(world(box.cards, deny_gpus=("1",)), wall=NOW)
    assert box.reserve(count=2)["reservation"]["gpus"] == [2, 3]
    assert box.reserve(refs=["0"])["reservation"]["gpus"] == [0]


def test_it_begins_now_unless_something_else_is_said(box: Box) -> None:
    made = box.reserve(count=1, begin_at=None)["reservation"]
    assert (made["begin_at"], made["active"]) == (NOW, True)
    made = box.reserve(count=1, begin_at=None, begin_in_s=60.0)["reservation"]
    assert made["begin_at"] == NOW + 60


def test_one_can_be_called_off(box: Box) -> None:
    far = {"begin_at": None, "length_s": 300 * 86400.0}
    with closing(Store(":memory:")) as store:
        own = Box(store)
        own.snapshot = replace(own.snapshot, wall=datetime.now().timestamp())
        number = own.reserve(count=2, **far)["reservation"]["id"]
        assert len(own.ask("reservations")["reservations"]) == 1
        assert own.ask("cancel", reservation=number) == {"reservation": number}
        assert own.ask("reservations") == {"reservations": []}
        with pytest.raises(NothingMatched, match="no reservation 1, or it is over"):
            own.ask("cancel", reservation=number)
        with pytest.raises(UsageError):
            own.ask("cancel", reservation="1")
        told = [(one["kind"], one["gpu"], one["actor"]) for one in stored.events(store)]
        assert told == [
            ("reserved", "GPU-0", "ann"),
            ("reserved", "GPU-1", "ann"),
            ("reservation_cancelled", "GPU-0", "ann"),
            ("reservation_cancelled", "GPU-1", "ann"),
        ]
        assert own.reserve(count=4, **far)["reservation"]["gpus"] == [0, 1, 2, 3]


def test_old_ones_are_forgotten(box: Box) -> None:
    box.reserve(count=1)
    end = NOW + 13 * HOUR
    assert box.store.reserved.open(end - 1)
    assert not box.store.reserved.open(end)
    assert box.store.reserved.forget(end) == 0
    assert box.store.reserved.forget(end + 1) == 1


def test_a_gpu_tells_of_its_reservations(box: Box) -> None:
    box.snapshot = replace(box.snapshot, wall=datetime.now().timestamp())
    box.reserve(refs=["2"], begin_at=None, begin_in_s=HOUR, reason="a deadline")

    class GpuWorld:
        gpus = box.cards
        gpu_trouble = None
        health = ()

    requests = GpuRequests(
        box.store,
        GpuWorld(),  # type: ignore[arg-type]
        Policy,
        lambda: box.cards,
        lambda peer: Discretion(peer=peer, visibility="all", owner_of=lambda job: None),
        reservations=box.reserving.of_gpus,
    )
    views = requests.views(SOMEBODY)
    assert [[one["id"] for one in view["reservations"]] for view in views] == [[], [], [1], []]
    sentences = asyncio.run(requests.why({"ref": "2"}, SOMEBODY))["sentences"]
    assert sentences[-1].startswith(f"It is reserved for {ME} from ")
    assert sentences[-1].endswith(": a deadline (by ann). End that: gpuq reserve --cancel 1")


# ─── the clock on the wall ───────────────────────────────────────────────────────────────────────


def rings(alarm: WallAlarm, within_s: float) -> bool:
    return bool(select.select([alarm.fd], [], [], within_s)[0])


def test_the_alarm_rings_at_its_moment_and_not_before() -> None:
    alarm = WallAlarm()
    try:
        alarm.set(3600.0)
        assert not rings(alarm, 0.0)
        for in_s in (0.02, 0.0, -5.0):
            alarm.set(in_s)
            assert rings(alarm, 20.0)
            alarm.acknowledge()
            assert not rings(alarm, 0.0)
        alarm.set(0.0)
        alarm.set(None)
        assert not rings(alarm, 0.0)
        alarm.acknowledge()  # there is nothing to be
    finally:
        alarm.close()


def reserve(daemon: Alive, begin_s: float, length_s: float) -> int:
    """The one GPU, for somebody else than who submits."""
    wall = daemon.clock.wall()
    made = daemon.store.reserved.make(
        uid=4242,
        user="carol",
        gpus=[row["uuid"] for row in daemon.store.database.rows("select uuid from gpus")],
        begin_at=wall + begin_s,
        end_at=wall + begin_s + length_s,
        reason=None,
        actor="ann",
        now=wall,
    )
    daemon.loop.wake()
    return int(made["id"])


async def waits_for_carol(daemon: Alive, job: int) -> None:
    def is_so() -> bool:
        return "reserved for carol" in daemon.loop.plan.reasons.get(job, "")

    await until(is_so, "it to wait for the reservation")


async def has_gpus(daemon: Alive) -> None:
    await until(lambda: stored.count(daemon.store, "gpus"), "the first reading")


ONE_GPU = {"gpus": "sim:1x24G"}


def test_a_job_starts_as_soon_as_the_reservation_ends(tmp_path: Path) -> None:
    """Nobody says anything then: the clock on the wall does."""

    async def deed(daemon: Alive) -> None:
        await has_gpus(daemon)
        reserve(daemon, 0.0, 0.5)
        ends_at = daemon.store.reserved.open(0.0)[0]["end_at"]
        job = daemon.submit("true", request=WHOLE)
        await waits_for_carol(daemon, job)
        await daemon.ended(job)
        assert daemon.row(job)["started_at"] >= ends_at - 0.01

    with_alive(tmp_path, deed, **ONE_GPU)


def test_whoever_sets_the_clock_moves_what_goes_by_it(tmp_path: Path) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        await has_gpus(daemon)
        reserve(daemon, HOUR, HOUR)
        clock.set_s += 1.5 * HOUR
        short = daemon.submit("true", request=WHOLE, time_limit_s=60.0)
        await waits_for_carol(daemon, short)
        clock.set_s -= 1.5 * HOUR
        await daemon.turn()  # in place of the ring
        await daemon.ended(short)
        long = daemon.submit("true", request=WHOLE)
        await waits_for_carol(daemon, long)
        clock.set_s += 3 * HOUR
        await daemon.turn()
        await daemon.ended(long)

    with_alive(tmp_path, deed, clock, **ONE_GPU)


def test_a_reservation_outlives_the_daemon_and_one_that_is_called_off_lets_go(
    tmp_path: Path,
) -> None:
    async def first() -> int:
        async with alive(tmp_path, **ONE_GPU) as daemon:
            await has_gpus(daemon)
            return reserve(daemon, 0.0, HOUR)

    number = asyncio.run(first())

    async def then(daemon: Alive) -> None:
        job = daemon.submit("true", request=WHOLE)
        await waits_for_carol(daemon, job)
        daemon.store.reserved.cancel(number, actor="ann", now=daemon.clock.wall())
        daemon.loop.wake()
        await daemon.ended(job)

    with_alive(tmp_path, then, **ONE_GPU)


def test_a_preemptible_job_gives_way_when_it_begins_and_he_needs_the_gpu(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await has_gpus(daemon)
        job = daemon.submit("sleep 600", request=WHOLE, preemptible=True, priority=5)
        await daemon.running(job)
        reserve(daemon, 0.0, HOUR)
        carol = stored.Submitter(uid=4242, gid=4242, user="carol")
        daemon.store.asked.keep_environment(4242, stored.DIGEST, stored.ENVIRONMENT)
        hers = daemon.submit("true", request=WHOLE, by=carol)
        await daemon.ended(hers)
        first = daemon.attempts(job)[0]
        assert first["reason"].startswith(
            f"gave way to {hers} (for whose user, carol, its GPU is reserved)"
        )
        await waits_for_carol(daemon, job)

    with_alive(tmp_path, deed, preempt_after="0", **ONE_GPU)
