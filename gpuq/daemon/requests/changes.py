"""What people ask about jobs after they have submitted them: hold, release, another priority, another
place, once more, and back from a cancel that was a mistake.

Each of the jobs named is answered for: what was done to it, or why that cannot be. Who names one that
is not theirs to change changes none.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuq.config import Config
from gpuq.core.scheduling.limits import too_many_queued
from gpuq.core.units import format_spans, in_words
from gpuq.daemon import faults
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.refs import References
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.errors import GpuqError, NothingMatched, NotPermitted, UsageError

HIGHEST = 1_000_000  # of priorities
AGAIN = "gpuq requeue {id} runs it again"

Answer = dict[str, Any]
FindOwn = Callable[[Mapping[str, Any], Peer, str], list[Row]]


class Changes:
    """Nothing is waited for between a look at the jobs and the commit: none of them starts in between.
    `find_own` gives the rows of the jobs that a request names, if the caller may change them all."""

    def __init__(
        self, store: Store, refs: References, config: Config, world: World, find_own: FindOwn
    ) -> None:
        self._store = store
        self._refs = refs
        self._config = config
        self._world = world
        self._find_own = find_own

    async def hold(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Jobs that wait are not to start; or (`off`) nobody holds them any more."""
        if request.get("off"):
            return self._release(request, peer)
        rows, now = self._find_own(request, peer, "hold"), time.time()

        def deed(row: Row) -> Answer:
            if why := _not_waiting(row, "a hold keeps only what has not started: gpuq pause {id}"):
                return refused(row, why)
            as_admin = not peer.is_self(row["uid"])
            changed = self._store.changed.hold(
                *_span(row), actor=peer.user, as_admin=as_admin, now=now
            )
            return _did(row, "held") if changed else _did(row, "already", by=row["held_by"])

        answer = self._carry_out(rows, deed)
        faults.here("hold.committed")
        return answer

    def _release(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        rows, now = self._find_own(request, peer, "release"), time.time()
        for row in rows:
            if row["held_by"] and row["held_as_admin"] and not peer.is_admin:
                raise NotPermitted(
                    f"job {row['id']} is held by {row['held_by']}, an admin; "
                    "only an admin may release it. Nothing was done."
                )

        def deed(row: Row) -> Answer:
            if row["state"] == "ended":
                return refused(row, f"it has ended; {AGAIN}")
            changed = self._store.changed.release(*_span(row), actor=peer.user, now=now)
            return _did(row, "released" if changed else "already")

        answer = self._carry_out(rows, deed)
        faults.here("release.committed")
        return answer

    async def priority(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Jobs that wait get another priority. Their owner may lower it, an admin may raise it too."""
        wanted = request.get("priority")
        if isinstance(wanted, bool) or not isinstance(wanted, int) or abs(wanted) > HIGHEST:
            raise UsageError(f"{wanted!r} is no priority: a whole number up to {HIGHEST} is wanted")
        rows, now = self._find_own(request, peer, "change the priority of"), time.time()
        for row in rows:
            check_priority(wanted, row, peer)

        def deed(row: Row) -> Answer:
            if why := _not_waiting(row, "a priority says only which job starts first"):
                return refused(row, why)
            changed = self._store.changed.prioritise(*_span(row), wanted, actor=peer.user, now=now)
            done = "changed" if changed else "already"
            return _did(row, done, priority=wanted, before=row["priority"])

        answer = self._carry_out(rows, deed)
        faults.here("priority.committed")
        return answer

    async def move(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Jobs that wait go before all others of their own user, or (`before`) before one of those."""
        rows, now = self._find_own(request, peer, "move"), time.time()
        other = self._the_one_before(request, rows, peer)

        def deed(row: Row) -> Answer:
            if why := _not_waiting(row, "only what waits has a place in the queue"):
                return refused(row, why)
            if other is not None and (why := _cannot_go_before(row, other)):
                return refused(row, why)
            self._store.changed.rank(*_span(row), ranks[row["uid"]], actor=peer.user, now=now)
            return _did(row, "moved", before=None if other is None else other["id"])

        ranks: dict[int, int] = {}

        def make_room() -> None:
            if other is not None:
                ranks[other["uid"]] = self._store.changed.make_room_before(*_span(other))
            else:
                for uid in {row["uid"] for row in rows}:
                    ranks[uid] = self._store.changed.lowest_rank(uid) - 1

        answer = self._carry_out(rows, deed, first=make_room)
        faults.here("move.committed")
        return answer

    def _the_one_before(
        self, request: Mapping[str, Any], rows: Sequence[Row], peer: Peer
    ) -> Row | None:
        if request.get("before") is None:
            return None
        others = self._find_own({"refs": [request["before"]]}, peer, "move jobs before")
        if len(others) != 1 or others[0]["id"] != others[0]["last_id"]:
            raise UsageError(f"before {request['before']!r}: name one job")
        if why := _not_waiting(others[0], "only what waits has a place in the queue"):
            job = others[0]["id"]
            raise GpuqError(f"job {job}: {why.format(id=job)}. Nothing was moved.")
        return others[0]

    async def requeue(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Jobs are to run once more, with their number: those that run are ended for it."""
        rows, now = self._find_own(request, peer, "requeue"), time.time()
        token = fields.token(request)

        def deed(row: Row) -> Answer:
            if is_done(row, token):
                return _did(row, "requeued")
            if (why := self._cannot_requeue(row)) is not None:
                return refused(row, why)
            self._store.changed.requeue(*_span(row), actor=peer.user, now=now, token=token)
            if row["state"] == "ended":
                return _did(row, "requeued", with_it=with_it[row["id"]])
            if row["state"] == "queued":
                has_backoff = row["delayed_for"] == "backoff"
                return _did(row, "waits_no_more" if has_backoff else "wants_gpus_again")
            return _did(row, "stopping", grace_s=row["grace_s"])

        ended = [row for row in rows if row["state"] == "ended"]
        with_it = {row["id"]: self._skipped_for(row) for row in ended}
        self._check_room([row for row in ended if not is_done(row, token)])
        answer = self._carry_out(rows, deed)
        for done in answer["jobs"]:  # of separate jobs of one row each brings back its own
            if done.get("with_it"):
                done["with_it"] = self._skipped_for(done)
        faults.here("requeue.committed")
        await self._world.settle()  # who asks next is not to hear that they have ended
        return answer

    def _skipped_for(self, row: Row) -> str | None:
        first, last = _span(row)
        return format_spans(self._store.waiting.skipped_for(range(first, last + 1))) or None

    def _cannot_requeue(self, row: Row) -> str | None:
        waits_for_less = row["delayed_for"] == "backoff" or row["gpu_request"] is not None
        if row["state"] == "queued" and not waits_for_less:
            return "it is queued already"
        if row["state"] == "queued":
            return _not_waiting(row, "")
        if row["state"] != "ended":
            return "it is being ended; wait for that" if row["stop_asked_at"] is not None else None
        if row["outcome"] == "skipped" and self._store.waiting.was_skipped_for_forgotten(row):
            return f"{row['open_reason']}. That is forgotten by now: submit this one anew"
        if row["outcome"] == "skipped":
            return f"{row['open_reason']}: requeue that, and this one comes back with it"
        return self._cannot_come_back(row)

    def _cannot_come_back(self, row: Row) -> str | None:
        if row["prune_asked_at"] is not None:
            return "it is about to be forgotten (gpuq prune)"
        if (other := self._store.changed.living_of_same_key(row["id"])) is not None:
            key = row["key"].partition(":")[2]
            return f"job {other} has its key {key!r} and has not ended"
        return None

    def _check_room(self, back: Sequence[Row]) -> None:
        """Whoever comes back counts among what its owner may have in the queue."""
        most = self._config.max_queued_per_user or None
        for uid in {row["uid"] for row in back} if most is not None else ():
            new = sum(row["last_id"] - row["id"] + 1 for row in back if row["uid"] == uid)
            there = self._store.counted.queued(uid) + self._store.changed.pending_requeues(uid)
            if (why := too_many_queued(there, new, most)) is not None:
                raise GpuqError(why)

    async def undo(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Jobs that were cancelled while they waited wait again, as before. Where none is named those
        that the caller's last kill cancelled so."""
        await self._world.settle()  # whom a kill of just now hit is cancelled by then
        now = time.time()
        since = now - float(self._config.undo_for)
        token = fields.token(request)
        rows = self._killed_last(peer, since, token)
        if fields.named(request):
            rows = self._find_own(request, peer, "undo the cancel of")

        def deed(row: Row) -> Answer:
            if is_done(row, token):
                return _did(row, "undone", held=row["held_by"] is not None)
            if (why := self._cannot_undo(row, now)) is not None:
                return refused(row, why)
            self._store.changed.undo(
                *_span(row), since=since, actor=peer.user, now=now, token=token
            )
            return _did(row, "undone", held=row["held_by"] is not None)

        if not rows:
            raise NothingMatched(
                f"no kill of yours in the last {in_words(self._config.undo_for)} "
                "cancelled a job that waited. See: gpuq status -a"
            )
        back = [row for row in rows if self._cannot_undo(row, now) is None]
        self._check_room([row for row in back if not is_done(row, token)])
        ran = [] if fields.named(request) else self._ended_beside(rows, peer)
        answer = self._carry_out(rows, deed)
        answer["jobs"] += [_did(row, "ran") for row in ran]
        faults.here("undo.committed")
        await self._world.settle()
        return answer

    def _killed_last(self, peer: Peer, since: float, token: str | None) -> list[Row]:
        changed = self._store.changed
        spans = changed.done_by(token) if token is not None else []
        spans = spans or changed.last_kill(peer.user, since=since)
        rows = self._store.found.brief(spans) if spans else []
        return sorted(
            (row for row in rows if peer.may_change(row["uid"])), key=lambda row: int(row["id"])
        )

    def _ended_beside(self, cancelled: Sequence[Row], peer: Peer) -> list[Row]:
        """Those that ran when the caller's kill cancelled these, and so cannot come back like them."""
        moments = {row["stop_asked_at"] for row in cancelled} - {None}
        changed = self._store.changed
        spans = [span for at in moments for span in changed.ended_by_kill(peer.user, at)]
        rows = self._store.found.brief(sorted(spans, key=lambda span: span.start)) if spans else []
        return [row for row in rows if peer.may_change(row["uid"])]

    def _cannot_undo(self, row: Row, now: float) -> str | None:
        if row["state"] == "queued":
            return None if row["stop_asked_at"] is not None else "it is queued, and nobody ended it"
        if row["state"] != "ended":
            return "it runs; only the cancel of a job that waited can be undone"
        if not row["cancelled_queued"]:
            again = AGAIN.format(id=row["id"])
            return f"it did not wait when it ended, so there is nothing to undo; {again}"
        ago_s, most_s = now - row["ended_at"], self._config.undo_for
        if ago_s > most_s:
            return (
                f"it was cancelled {in_words(ago_s)} ago, and that can be undone for "
                f"{in_words(most_s)}; {AGAIN.format(id=row['id'])}"
            )
        return self._cannot_come_back(row)

    def _carry_out(
        self,
        rows: Sequence[Row],
        deed: Callable[[Row], Answer],
        *,
        first: Callable[[], None] | None = None,
    ) -> Answer:
        """All in one commit."""
        with self._store.transaction():
            if first is not None:
                first()
            done = [answer for row in rows for answer in _separately(row, deed)]
        self._world.wake()
        return {"jobs": done}


def _separately(row: Row, deed: Callable[[Row], Answer]) -> list[Answer]:
    """Done to all of a row at once. Only the elements of an array are answered for as a run."""
    answer, jobs = deed(row), range(row["id"], row["last_id"] + 1)
    if row["array_first"] is not None or len(jobs) == 1:
        return [answer]
    each = [{"id": job, "last_id": job} for job in jobs]
    if answer["done"] == "refused":  # which changes nothing, and names the job
        return [deed(row | one) for one in each]
    return [answer | one for one in each]


def check_priority(wanted: int, row: Row, peer: Peer) -> None:
    if wanted > max(row["priority"], 0) and not peer.is_admin:
        raise NotPermitted(
            f"only an admin may raise a priority above 0, and {wanted} was asked for job "
            f"{row['id']}. Nothing was done."
        )


def is_done(row: Row, token: str | None) -> bool:
    """Was it done by this request, whose answer was lost, so that its client asks again?"""
    return token is not None and row["wish_token"] == token


def refused(row: Row, why: str) -> Answer:
    return _did(row, "refused", why=why.format(id=row["id"]))


def _did(row: Row, done: str, **more: Any) -> Answer:
    return {"id": row["id"], "last_id": row["last_id"], "done": done, "why": None} | more


def _span(row: Row) -> tuple[int, int]:
    return row["id"], row["last_id"]


def _not_waiting(row: Row, for_those_that_run: str) -> str | None:
    if row["state"] == "ended":
        return f"it has ended; {AGAIN}"
    if row["state"] != "queued":
        return f"it runs; {for_those_that_run}"
    if row["stop_asked_at"] is not None:
        return "it is about to be cancelled; gpuq undo {id} takes that back"
    return None


def _cannot_go_before(row: Row, other: Row) -> str | None:
    if row["uid"] != other["uid"]:
        return f"job {other['id']} is {other['user']}'s: only jobs of one user change places"
    if row["id"] == other["id"]:
        return "no job goes before itself"
    if row["priority"] != other["priority"]:
        return (
            f"its priority is {row['priority']} and that of job {other['id']} is "
            f"{other['priority']}; gpuq priority {other['priority']} {{id}} first"
        )
    return None
