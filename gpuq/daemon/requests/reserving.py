"""Requests about reservations: make one, cancel one, see them. As all handlers these store wishes; what
a reservation means for those that wait is the core's to say."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from gpuq.core.asked.moments import words_for
from gpuq.core.gpus.condition import CLOSED, assess
from gpuq.core.gpus.fitting import is_allowed
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Lease, Reservation, Snapshot
from gpuq.core.scheduling import reservations
from gpuq.core.scheduling.foresight import end_of
from gpuq.core.scheduling.reservations import Candidate
from gpuq.daemon import faults
from gpuq.daemon.callers import names
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.gpu_refs import find_gpus
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.errors import GpuqError, NothingMatched, UsageError

Answer = dict[str, Any]
Request = Mapping[str, Any]
JUST_NOW_S = 60.0  # a begin that is not longer ago is meant to be now
LONGEST_USER = 200


def read_reservations(rows: Sequence[Row], wall: float) -> tuple[Reservation, ...]:
    """As the core knows them, with their moments in words of this machine's clock."""
    if not rows:
        return ()
    time.tzset()  # somebody may have moved it to another time zone meanwhile
    here = datetime.fromtimestamp(wall)
    kept = ("id", "uid", "user", "gpus", "begin_at", "end_at", "reason", "actor")
    return tuple(
        Reservation(
            **{name: row[name] for name in kept},
            begin_words=words_for(datetime.fromtimestamp(row["begin_at"]), here),
            end_words=words_for(datetime.fromtimestamp(row["end_at"]), here),
        )
        for row in rows
    )


class ReservingWorld(Protocol):
    def look(self) -> Snapshot: ...
    def wake(self) -> None: ...


class Reserving:
    """`known` gives every GPU that this machine has shown."""

    def __init__(
        self, store: Store, world: ReservingWorld, known: Callable[[], Sequence[Gpu]]
    ) -> None:
        self._store = store
        self._world = world
        self._known = known

    async def reserve(self, request: Request, peer: Peer) -> Answer:
        """GPUs that are named, or so many of them (`count`), for a user and a time."""
        peer.require_admin("reserve GPUs")
        user = _user(request, peer)
        uid = await names.uids.get(user)
        if uid is None:
            raise NothingMatched(
                f"there is no user {user!r} on this machine. Nothing was reserved."
            )
        world, token = self._world.look(), fields.token(request)
        made = None if token is None else self._store.reserved.made_by(peer.user, token)
        if made is None:
            made = self._make(request, peer, (uid, user), world, token)
        (one,) = read_reservations([made], world.wall)
        gpus = [gpu for gpu in self._known() if gpu.uuid in one.gpus]
        return {"reservation": self._view(one, world.wall), "held": _held(gpus, world, one)}

    def _make(
        self,
        request: Request,
        peer: Peer,
        whom: tuple[int, str],
        world: Snapshot,
        token: str | None,
    ) -> Row:
        begin_at, end_at = _span(request, world.wall)
        gpus = self._choose(request, begin_at, end_at, world)
        uid, user = whom
        row = self._store.reserved.make(
            uid=uid,
            user=user,
            gpus=[gpu.uuid for gpu in gpus],
            begin_at=begin_at,
            end_at=end_at,
            reason=None if request.get("reason") is None else fields.reason(request),
            actor=peer.user,
            now=world.wall,
            token=token,
        )
        faults.here("reserve.committed")
        self._world.wake()
        return row

    async def cancel(self, request: Request, peer: Peer) -> Answer:
        peer.require_admin("cancel a reservation")
        number = request.get("reservation")
        if type(number) is not int or not 0 < number < 2**63:
            raise UsageError(f"reservation: {number!r} is not the number of a reservation")
        if not self._store.reserved.cancel(number, actor=peer.user, now=time.time()):
            raise NothingMatched(
                f"there is no reservation {number}, or it is over. See: gpuq reserve"
            )
        self._world.wake()
        return {"reservation": number}

    async def reservations(self, request: Request, peer: Peer) -> Answer:
        """Those that have not ended, by when they begin."""
        wall = time.time()
        return {"reservations": [self._view(one, wall) for one in self._open(wall)]}

    def of_gpus(self) -> dict[str, list[Answer]]:
        """The same by uuid, for who looks at GPUs."""
        wall = time.time()
        found: dict[str, list[Answer]] = {}
        for one in self._open(wall):
            for gpu in one.gpus:
                found.setdefault(gpu, []).append(self._view(one, wall))
        return found

    def _open(self, wall: float) -> tuple[Reservation, ...]:
        return read_reservations(self._store.reserved.open(wall), wall)

    def _choose(
        self, request: Request, begin_at: float, end_at: float, world: Snapshot
    ) -> list[Gpu]:
        """Raises GpuqError where they are reserved for somebody else, or too few."""
        taken = reservations.taken_by(begin_at, end_at, self._open(world.wall))
        known = [gpu for gpu in self._known() if is_identified(gpu)]
        if fields.named(request):
            chosen = find_gpus(fields.named(request), known)
            indices = {gpu.uuid: gpu.index for gpu in chosen}
            if (why := reservations.overlap_words(taken, indices, list(indices))) is not None:
                raise GpuqError(f"that is reserved already: {why}. Nothing was reserved.")
            return chosen
        number = _number(request)
        candidates = [_candidate(gpu, world) for gpu in known if _may_be_given(gpu, world)]
        uuids = reservations.choose(candidates, number, taken)
        if uuids is None:
            free = sum(one.uuid not in taken for one in candidates)
            why = reservations.too_few_words(number, len(candidates), free)
            raise GpuqError(f"{why}. Nothing was reserved. See: gpuq reserve")
        return [gpu for gpu in known if gpu.uuid in uuids]

    def _view(self, one: Reservation, wall: float) -> Answer:
        indices = {gpu.uuid: gpu.index for gpu in self._known()}
        return {
            "id": one.id,
            "user": one.user,
            "gpus": sorted(indices[gpu] for gpu in one.gpus if gpu in indices),
            "gpu_uuids": list(one.gpus),
            "begin_at": one.begin_at,
            "end_at": one.end_at,
            "active": one.begin_at <= wall,
            "reason": one.reason,
            "actor": one.actor,
        }


def _user(request: Request, peer: Peer) -> str:
    user = request.get("user") or peer.user
    if not isinstance(user, str) or not user.isprintable() or len(user) > LONGEST_USER:
        raise UsageError("user: the name of a user is wanted")
    return user


def _span(request: Request, now: float) -> tuple[float, float]:
    begin_at = now if request.get("begin_at") is None else _seconds(request, "begin_at")
    begin_at += 0.0 if request.get("begin_in_s") is None else _seconds(request, "begin_in_s")
    if begin_at < now - JUST_NOW_S:
        raise UsageError("--from: that moment is past. Nothing was reserved.")
    length_s = _seconds(request, "length_s")
    if not 0 < length_s <= reservations.LONGEST_S:
        raise UsageError("--for: it is longer than nothing and no longer than a year")
    if begin_at > now + reservations.LONGEST_S:
        raise UsageError("--from: that is more than a year away. Nothing was reserved.")
    return begin_at, begin_at + length_s


def _seconds(request: Request, field: str) -> float:
    value = request.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise UsageError(f"{field}: {value!r} is no time in seconds")
    return float(value)


def _number(request: Request) -> int:
    value = request.get("count")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("which GPUs? Add --gpus N, or --gpu-id 2,3")
    return value


def _may_be_given(gpu: Gpu, world: Snapshot) -> bool:
    now = next((one for one in world.gpus or () if one.uuid == gpu.uuid), gpu)
    return is_allowed(now, world.policy) and assess(now, (), world.policy)[0] not in CLOSED


def _candidate(gpu: Gpu, world: Snapshot) -> Candidate:
    ends = [_end_at(lease, world) for lease in world.leases if lease.gpu == gpu.uuid]
    known = [at for at in ends if at is not None]
    idle_at = max(known, default=world.wall) if len(known) == len(ends) else None
    return Candidate(uuid=gpu.uuid, index=gpu.index, idle_at=idle_at)


def _end_at(lease: Lease, world: Snapshot) -> float | None:
    """When its job will have ended, by the clock on the wall; None where nobody knows."""
    job = next(
        (one for one in world.active if (one.id, one.attempt) == (lease.job, lease.attempt)), None
    )
    if job is None:  # it is only cooling down
        return world.wall
    end = end_of(job, world.now)
    return None if end is None else world.wall + end.at - world.now


def _held(gpus: Sequence[Gpu], world: Snapshot, made: Reservation) -> list[Answer]:
    """Who may still be on them when it begins: nothing is ended for it."""
    held = []
    for gpu in gpus:
        jobs = {
            lease.job
            for lease in world.leases
            if lease.gpu == gpu.uuid
            and ((end := _end_at(lease, world)) is None or end > made.begin_at)
        }
        if jobs:
            held.append({"index": gpu.index, "jobs": sorted(jobs)})
    return held
