"""Questions about what has been: which jobs ended and how, how all of them fared, and who had how much
of the GPUs. What they need of the history is read beside the loop."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

from gpuq.config import Config
from gpuq.core.model import Outcome
from gpuq.core.results.cost import cost, parse_price
from gpuq.core.units import quoted
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.clock import Clock
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.history import Idleness, Place, Wanted, history
from gpuq.daemon.store.leased import NOTHING, Account, Accounts, accounts, known_gpus
from gpuq.daemon.store.leased import By as UsageBy
from gpuq.daemon.store.reading import Readable
from gpuq.daemon.store.statistics import (
    FailuresBy,
    Scope,
    StatisticsBy,
    failures,
    statistics,
)
from gpuq.errors import UsageError

USAGE_SINCE_S = 7 * 86400.0
PAGE_BYTES = 2 * 2**20  # of commands: a page ends with the job that fills it
MOST_USERS = 10_000  # as many as a machine may have, and GPUs
NOBODY = -1  # no uid

Answer = dict[str, Any]
Request = Mapping[str, Any]


class LookingBack:
    """`view` shows a row of one job to somebody."""

    def __init__(
        self,
        store: Store,
        config: Config,
        looks: LongLooks,
        refs: References,
        discretion: Callable[[Peer], Discretion],
        view: Callable[[Row, Peer], Answer],
    ) -> None:
        self._store = store
        self._config = config
        self._looks = looks
        self._refs = refs
        self._discretion = discretion
        self._view = view
        self._clock = Clock()

    async def history(self, request: Request, peer: Peer) -> Answer:
        """A page of jobs that have ended, the last one first, and the cursor of the next (`after`)
        where there may be one. `idle`: only those that held a GPU and did not use it."""
        refs, limit = fields.named(request), fields.limit(request.get("limit"))
        ids = self._refs.resolve(refs, peer) if refs else None
        wanted = Wanted(
            scope=self._scope(request, peer),
            ids=ids,
            outcomes=_outcomes(request),
            until=fields.moment(request, "until"),
            only_idle=bool(request.get("idle")),
        )
        policy = self._config.policy()
        idleness = Idleness(percent=policy.idle_job_percent, seconds=policy.idle_job_s)
        after = _place(request)

        def find(db: Readable) -> list[Row]:
            return history(
                db, wanted, idleness=idleness, limit=limit, most_bytes=PAGE_BYTES, after=after
            )

        rows = await self._looks.look(peer.uid, find)
        if ids is not None and not rows and after is None:
            self._refs.check_any(refs, ids, peer)
        return {"jobs": [self._ended(row, peer) for row in rows], "after": _behind(rows)}

    def _ended(self, row: Row, peer: Peer) -> Answer:
        return self._view(row, peer) | {"held_idle": bool(row["held_idle"])}

    async def stats(self, request: Request, peer: Peer) -> Answer:
        """How jobs fared, `by` state, user, name, group or queue; some jobs (`refs`), or all."""
        by: StatisticsBy = _by(request, StatisticsBy, "state")
        scope, whose = self._scope_of_named(request, peer), self._whose_names(peer)
        limit = fields.limit(request.get("limit"))
        rows, number = await self._looks.look(
            peer.uid, lambda db: statistics(db, by, scope, whose=whose, limit=limit)
        )
        if by == "group":
            rows = [row | {"key": _group(row["key"])} for row in rows]
        return _table("stats", rows, number) | {"by": by, "since": scope.since}

    async def errors(self, request: Request, peer: Peer) -> Answer:
        """How often attempts ended badly, `by` outcome, signature, gpu or hour; those of some jobs
        (`refs`), or all."""
        by: FailuresBy = _by(request, FailuresBy, "signature")
        scope, limit = self._scope_of_named(request, peer), fields.limit(request.get("limit"))
        whose = None if peer.is_admin else _own(peer)
        rows, number = await self._looks.look(
            peer.uid, lambda db: failures(db, by, scope, whose=whose, limit=limit)
        )
        if by == "gpu":
            indices = {gpu["uuid"]: gpu["idx"] for gpu in known_gpus(self._store.database)}
            rows = [row | {"index": indices.get(row["key"])} for row in rows]
        return _table("errors", rows, number) | {"by": by, "since": scope.since}

    async def usage(self, request: Request, peer: Peer) -> Answer:
        """Who has had how much of the GPUs since then (`since`; a week unless said), `by` user, group
        or gpu, what they made of it, and at a `price` for a GPU and hour what that would have cost. Of
        the users also what fair share goes by: what of all that has not faded."""
        by: UsageBy = _by(request, UsageBy, "user")
        now, asked, price = self._clock.wall(), fields.moment(request, "since"), _price(request)
        since = now - USAGE_SINCE_S if asked is None else asked
        whose = self._whose_names(peer)
        limit = fields.limit(request.get("limit")) if by == "group" else MOST_USERS
        found = await self._looks.look(
            peer.uid,
            lambda db: accounts(db, by, since=since, now=now, whose=whose, limit=limit),
        )
        if by == "user":
            told = _table("users", self._users(found, now, price), 0)
        elif by == "group":
            told = _table("groups", [_group_view(one, price) for one in found.rows], found.number)
        else:
            told = _table("gpus", self._gpus(found, since, now, price), 0)
        return told | {
            "by": by,
            "since": since,
            "until": now,
            "price": None if price is None else str(price),
            "total": _had(found.total, price),
            "fair_share": self._config.fair_share,
            "half_life_s": self._config.fair_share_half_life,
        }

    def _users(self, found: Accounts, now: float, price: Decimal | None) -> list[Answer]:
        faded = self._store.shares.by_user(now, self._config.fair_share_half_life)
        had = {account.key: account for account in found.rows}
        running = {row["uid"]: row for row in self._store.shares.running()}
        users: dict[Any, Any] = self._store.shares.users()
        users |= {uid: row["user"] for uid, row in running.items()}
        users |= {uid: account.name for uid, account in had.items()}
        everything = sum(faded.values())
        views = [
            {
                "user": user,
                "uid": uid,
                "running": running[uid]["jobs"] if uid in running else 0,
                "gpus": running[uid]["gpus"] if uid in running else 0,
                "share_gpu_s": faded.get(uid, 0.0),
                "share_percent": 100 * faded.get(uid, 0.0) / everything if everything else 0.0,
                **_had(had.get(uid), price),
            }
            for uid, user in users.items()
        ]
        return sorted(views, key=lambda view: (-view["gpu_s"], view["user"]))

    def _gpus(
        self, found: Accounts, since: float, now: float, price: Decimal | None
    ) -> list[Answer]:
        """Those that had nobody, too. `seconds` is how long each of them could have been used."""
        had = {account.key: account for account in found.rows}
        return [
            {
                "gpu": gpu["uuid"],
                "index": gpu["idx"],
                "model": gpu["model"],
                "simulated": bool(gpu["simulated"]),
                "seconds": max(now - max(since, gpu["first_seen_at"]), 0.0),
                **_had(had.get(gpu["uuid"]), price),
            }
            for gpu in known_gpus(self._store.database)
            if gpu["uuid"] in had or gpu["last_seen_at"] >= since
        ]

    # ── who is told what ──

    def _scope(self, request: Request, peer: Peer) -> Scope:
        """What is hidden must not be guessed either: others' jobs have neither name nor tags then."""
        filters = fields.filters(request)
        by_words = filters["name"] is not None or filters["tag"] is not None
        only_own = bool(request.get("mine"))
        only_own |= by_words and not self._discretion(peer).sees_commands
        return Scope(
            since=filters["since"],
            uid=peer.uid if only_own else None,
            user=filters["user"],
            name=filters["name"],
            tag=filters["tag"],
            queue=filters["queue"],
        )

    def _scope_of_named(self, request: Request, peer: Peer) -> Scope:
        refs, scope = fields.named(request), self._scope(request, peer)
        if not refs:
            return scope
        ids = self._refs.resolve(refs, peer)
        self._refs.check_any(refs, ids, peer)
        return replace(scope, ids=ids)

    def _whose_names(self, peer: Peer) -> int | None:
        """The uid of whose jobs the caller is told names and groups; None: of all."""
        return None if self._discretion(peer).sees_commands else _own(peer)


def _own(peer: Peer) -> int:
    return peer.uid if peer.is_self(peer.uid) else NOBODY


def _table(name: str, rows: list[Answer], number: int) -> Answer:
    """`more` of them are not in this answer."""
    return {name: rows, "more": max(number - len(rows), 0)}


def _had(account: Account | None, price: Decimal | None) -> Answer:
    """`gpu_s` counts a shared GPU whole for each of those who share it, `leased_gpu_s` divides it;
    `simulated_gpu_s` of that were on simulated GPUs."""
    account = account or NOTHING
    return {
        "attempts": account.attempts,
        "gpu_s": account.held_s,
        "leased_gpu_s": account.leased_s,
        "busy_gpu_s": account.busy_s,
        "idle_gpu_s": account.idle_s,
        "unmeasured_gpu_s": account.unmeasured_s,
        "energy_j": account.energy_j,
        "simulated_gpu_s": account.simulated_s,
        "cost": None if price is None else float(cost(account.leased_s, price)),
    }


def _group_view(account: Account, price: Decimal | None) -> Answer:
    return {"group": _group(account.key), "name": account.name, **_had(account, price)}


def _group(key: Any) -> str | None:
    return None if key is None else f"g{key}"


# ── fields of requests ──


def _by(request: Request, known: Any, usual: str) -> Any:
    """One of the words of a Literal."""
    words: tuple[str, ...] = get_args(known)
    by = request.get("by") or usual
    if by not in words:
        raise UsageError(f"by: {quoted(by)} is none of {', '.join(words)}")
    return by


def _price(request: Request) -> Decimal | None:
    value = request.get("price")
    if value is None:
        return None
    try:
        return parse_price(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise UsageError(f"price: {error}") from None


def _outcomes(request: Request) -> list[str]:
    words: list[str] = fields.filters(request)["states"]
    if other := [word for word in words if word not in (*Outcome, "ended")]:
        ends = ", ".join(Outcome)
        raise UsageError(f"history has what ended: {quoted(other[0])} is none of {ends}")
    return [] if "ended" in words else words


def _place(request: Request) -> Place | None:
    value = request.get("after")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(f"after: {quoted(value)} is no cursor of a page before")
    at = fields.moment({"after": value[0]}, "after")
    job = fields.cursor({"after": value[1]}, "after")
    if at is None or job is None:
        raise UsageError(f"after: {quoted(value)} is no cursor of a page before")
    return Place(ended_at=at, job=job)


def _behind(rows: list[Row]) -> list[float | int] | None:
    """Behind the last one. The next page may be empty."""
    return [rows[-1]["ended_at"], rows[-1]["id"]] if rows else None
