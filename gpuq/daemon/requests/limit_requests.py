"""Requests about limits and named queues. As all handlers these store wishes and touch no process."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpuq.config import Config
from gpuq.core.model import ActiveJob, Limit, LimitKind
from gpuq.core.policy import Queue
from gpuq.core.scheduling.limits import Key
from gpuq.core.scheduling.queues import is_open_to
from gpuq.core.scheduling.rate import format_rate
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.queue_rules import groups_in_queues
from gpuq.daemon.store import Store
from gpuq.daemon.store.limited import Most
from gpuq.errors import NothingMatched, NotPermitted, UsageError

LONGEST_NAME = 200
HIGHEST = 10**6

Answer = dict[str, Any]
Request = Mapping[str, Any]
InUse = Mapping[Key, tuple[int, int]]  # jobs and GPUs; a user by name


class LimitRequests:
    """`wake` is called when somebody may start who could not before."""

    def __init__(self, store: Store, config: Config, wake: Callable[[], None]) -> None:
        self._store = store
        self._config = config
        self._wake = wake

    # ── wished ──

    async def limit(self, request: Request, peer: Peer) -> Answer:
        """Sets or (`off`) lifts the limit of "user:NAME", "tag:NAME" or a group like "g12"."""
        kind, name = _subject(request.get("subject"))
        off = bool(request.get("off"))
        most: Most = {"max_running": None, "max_gpus": None} if off else _most(request)
        if kind is LimitKind.GROUP:
            self._limit_group(int(name), most, peer)
            note = None
        else:
            note = self._limit_others(kind, name, None if off else most, peer)
        self._wake()
        return {"subject": _subject_words(kind, name), "note": note, "off": off, **most}

    def _limit_group(self, group: int, most: Most, peer: Peer) -> None:
        row = self._store.limited.group(group)
        if row is None:
            raise NothingMatched(f"no group g{group}. See: gpuq status -a")
        if not peer.may_change(row["uid"]):
            raise NotPermitted(
                f"group g{group} is another user's; only its owner or an admin may limit it. "
                "Nothing was done."
            )
        lifts = set(most.values()) == {None}
        if lifts and row["max_running"] is None and row["max_gpus"] is None:
            raise NothingMatched(f"group g{group} has no limit of its own. See: gpuq limit")
        self._store.limited.limit_group(group, most, actor=peer.user, now=time.time())

    def _limit_others(
        self, kind: LimitKind, name: str, most: Most | None, peer: Peer
    ) -> str | None:
        peer.require_admin(f"limit a {kind}")
        now = time.time()
        if most is None:
            if not self._store.limited.lift(kind, name, actor=peer.user, now=now):
                raise NothingMatched(f"{kind} {name} has no limit of its own. See: gpuq limit")
            return None
        self._store.limited.limit(kind, name, most, actor=peer.user, now=now)
        if kind is LimitKind.USER and not self._store.limited.knows_user(name):
            return f"nobody called {name} has submitted anything yet"
        return None

    # ── seen ──

    async def limits(self, request: Request, peer: Peer) -> Answer:
        """All limits in force, those of the settings first, with what they hold just now."""
        rates = [(None, self._config.start_rate, self._config.origin("start_rate"))]
        origin = self._config.origin("queues")
        rates += [(queue.name, queue.start_rate, origin) for queue in self._config.queues]
        in_use = _in_use(self._store.current.active())
        return {
            "limits": [*self._of_settings(in_use), *self._of_people(in_use)],
            "start_rates": [
                {"queue": queue, "rate": format_rate(rate), "origin": origin}
                for queue, rate, origin in rates
                if rate is not None
            ],
        }

    def _of_settings(self, in_use: InUse) -> list[Answer]:
        policy, origin = self._config.policy(), self._config.origin
        views = []
        for column in ("max_running", "max_gpus"):
            setting = f"{column}_per_user"
            if (most := getattr(policy, setting)) is not None:
                everybody = Limit(kind=LimitKind.USER, name="*", **{column: most})
                views.append(_view(everybody, None, origin(setting)))
        for queue in policy.queues:
            limit = _limit_of(queue)
            if limit.max_running is not None or limit.max_gpus is not None:
                views.append(_view(limit, in_use, origin("queues")))
        return views

    def _of_people(self, in_use: InUse) -> list[Answer]:
        limited = self._store.limited
        return [
            _view(limit, in_use, None)
            for limit in (*limited.of_users_and_tags(), *limited.of_groups_in_use())
        ]

    async def queues(self, request: Request, peer: Peer) -> Answer:
        """The named queues, with how many of their jobs run and wait; and those of which jobs wait
        though they are not in the settings any more."""
        policy = self._config.policy()
        groups = await groups_in_queues(policy, peer)
        in_use, queued = (
            _in_use(self._store.current.active()),
            self._store.counted.queued_in_queues(),
        )
        views = [
            _queue_view(queue, peer.is_admin or is_open_to(queue, peer.user, groups))
            for queue in policy.queues
        ]
        known = {queue.name for queue in policy.queues}
        running = {name for kind, name in in_use if kind is LimitKind.QUEUE}
        gone = sorted((running | queued.keys()) - known - {""})
        views += [_queue_view(Queue(name=name), False) | {"gone": True} for name in gone]
        return {
            "queues": [
                view
                | _counts(in_use, LimitKind.QUEUE, view["name"])
                | {"queued": queued.get(view["name"], 0)}
                for view in views
            ]
        }


def _subject(value: Any) -> tuple[LimitKind, str]:
    """What is to be limited; UsageError says how it is written."""
    if isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_NAME:
        kind, _, name = value.partition(":")
        if kind in (LimitKind.USER, LimitKind.TAG) and name:
            return LimitKind(kind), name
        number = value.removeprefix("g")
        if value != number and number.isascii() and number.isdecimal() and len(number) <= 18:
            return LimitKind.GROUP, number
        if kind == LimitKind.QUEUE:
            raise UsageError(
                f"the limits of a queue stand in the settings: [queues.{name or 'NAME'}] in the file "
                "that gpuq config names. They count once it is saved"
            )
    raise UsageError(f"limit what? Write user:NAME, tag:NAME or a group like g12, not {value!r}")


def _subject_words(kind: LimitKind, name: str) -> str:
    return f"group g{name}" if kind is LimitKind.GROUP else f"{kind} {name}"


def _most(request: Request) -> Most:
    """What is to change, at least one of the two."""
    most: Most = {}
    for column in ("max_running", "max_gpus"):
        value = request.get(column)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HIGHEST:
            raise UsageError(f"{column}: {value!r} is not a whole number from 0 to {HIGHEST}")
        most[column] = value
    if not most:
        raise UsageError("limit it to what? Give --max-running N or --max-gpus N, or --off")
    return most


def _limit_of(queue: Queue) -> Limit:
    return Limit(
        kind=LimitKind.QUEUE,
        name=queue.name,
        max_running=queue.max_running,
        max_gpus=queue.max_gpus,
    )


def _in_use(active: Iterable[ActiveJob]) -> InUse:
    """How many jobs each user, queue, group and tag has running, and how many GPUs these hold."""
    jobs: Counter[Key] = Counter()
    gpus: Counter[Key] = Counter()
    for job in active:
        keys = [(LimitKind.USER, job.user), (LimitKind.GROUP, str(job.group))]
        keys += [(LimitKind.QUEUE, job.queue)] if job.queue else []
        for key in [*keys, *((LimitKind.TAG, tag) for tag in set(job.tags))]:
            jobs[key] += 1
            gpus[key] += job.request.gpus
    return {key: (jobs[key], gpus[key]) for key in jobs}


def _counts(in_use: InUse, kind: LimitKind, name: str) -> Answer:
    running, gpus = in_use.get((kind, name), (0, 0))
    return {"running": running, "gpus_in_use": gpus}


def _view(limit: Limit, in_use: InUse | None, origin: str | None) -> Answer:
    """`in_use` is None for what holds for each user alone."""
    nothing = {"running": None, "gpus_in_use": None}
    return {
        "kind": limit.kind.value,
        "name": f"g{limit.name}" if limit.kind is LimitKind.GROUP else limit.name,
        "max_running": limit.max_running,
        "max_gpus": limit.max_gpus,
        "actor": limit.actor,
        "origin": origin,
        **(nothing if in_use is None else _counts(in_use, limit.kind, limit.name)),
    }


def _queue_view(queue: Queue, may_submit: bool) -> Answer:
    return {
        "name": queue.name,
        "priority": queue.priority,
        "gpus": list(queue.gpus),
        "max_running": queue.max_running,
        "max_gpus": queue.max_gpus,
        "time_limit_s": queue.time_limit_s,
        "max_time_limit_s": queue.max_time_limit_s,
        "users": list(queue.users),
        "start_rate": None if queue.start_rate is None else format_rate(queue.start_rate),
        "may_submit": may_submit,
        "gone": False,
    }
