"""What came of a group: of an array or a submission (g12, @), of a family of names, of a tag."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpuq.core.results.estimate import RunTimes, estimate
from gpuq.core.results.giving_up import format_on_failure
from gpuq.core.results.ranking import Goal, parse_goal, parse_order
from gpuq.core.units import LONGEST_QUOTED, quoted
from gpuq.daemon.callers.discretion import Discretion, Sight
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.clock import Clock
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.group_views import (
    behind,
    best_view,
    each_job,
    error_view,
    estimate_view,
    row_view,
    tally,
)
from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.reading import Readable
from gpuq.daemon.store.tables import Chosen, Table, of_group, of_name, of_tag
from gpuq.errors import NothingMatched, UsageError

MOST_ROWS = 2000  # on a page: some tens of milliseconds in a thread
PAGE_SIGNS = 2 * 2**20  # a page ends with the row that fills it: parameters may be long
TAG, NAME = "tag:", "name:"

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request, read. `limit` 0: no rows are wanted; `each`: a row for each job."""

    best: Goal | None
    order: Goal | None
    limit: int
    after: int | None
    each: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Which jobs they are, and what is known of them without looking at them. `sees`: what they run and
    report may be told. `reader`: errors are told of jobs of that user alone; None: of all."""

    name: str
    kind: str
    chosen: Chosen
    sight: Callable[[int], Sight]
    sees: bool
    reader: int | None
    submitted: int | None = None  # how many there were; None: nobody counted
    on_failure: str | None = None
    whose: str | None = None  # whose jobs were asked for; None: one's own


class Groups:
    def __init__(
        self,
        store: Store,
        refs: References,
        discretion: Callable[[Peer], Discretion],
        long_looks: LongLooks,
    ) -> None:
        self._store = store
        self._refs = refs
        self._discretion = discretion
        self._long_looks = long_looks
        self._clock = Clock()

    async def group(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """`group` is what became of all of them, `jobs` a page of the jobs in the order of their ids,
        behind `after`. With `sort` there are the first in that order alone, if they have such a metric
        (`sorted`). Behind a page only its rows are told."""
        asked = _read(request)
        group, now = self._find(request, peer), self._clock.wall()
        return await self._long_looks.look(peer.uid, lambda db: _answer(db, group, asked, now))

    def _find(self, request: Mapping[str, Any], peer: Peer) -> _Group:
        ref = request.get("ref")
        if not isinstance(ref, str) or not ref:
            raise UsageError(f"ref: {quoted(ref)} names no group: g12, @, tag:TAG, or a name")
        if ref.isascii() and (ref.isdecimal() or ref[0] == "@" or _is_group(ref)):
            return self._submission(ref, peer)
        if _is_span(ref):
            ref = ref[:LONGEST_QUOTED]
            raise UsageError(
                f"{ref} are jobs, which need not belong together: a group is g12, @, tag:TAG or a name "
                f"(name:{ref}). Those jobs: gpuq status {ref}"
            )
        return self._family(ref, request, peer)

    def _submission(self, ref: str, peer: Peer) -> _Group:
        spans = self._refs.spans([ref], peer)
        known = _is_group(ref)
        number = int(ref[1:]) if known else self._store.asked.group_of(spans[0].start)
        row = self._store.limited.group(number)
        spans = self._store.found.group(number)
        if row is None or not spans:
            raise NothingMatched(f"no group g{number}. See: gpuq status -a")
        uid, discretion = row["uid"], self._discretion(peer)
        return _Group(
            name=f"g{number}",
            kind="group",
            chosen=of_group(number, uid, spans),
            sight=discretion.sight,
            sees=discretion.sight(uid) >= Sight.COMMANDS,
            reader=None if discretion.sight(uid) is Sight.ALL else peer.uid,
            submitted=sum(map(len, spans)),
            on_failure=format_on_failure(row["stop_after"]),
        )

    def _family(self, ref: str, request: Mapping[str, Any], peer: Peer) -> _Group:
        """One's own jobs, unless those of another user, or everybody's, are asked for. What is hidden
        cannot be guessed either: others' jobs have neither name nor tag then."""
        discretion, user = self._discretion(peer), fields.filters(request)["user"]
        everybody = (bool(request.get("all")) or user is not None) and discretion.sees_commands
        kind, choose = ("tag", of_tag) if ref.startswith(TAG) else ("name", of_name)
        word = ref.removeprefix(TAG if kind == "tag" else NAME)
        return _Group(
            name=ref,
            kind=kind,
            chosen=choose(_text(word), uid=None if everybody else peer.uid, user=user),
            sight=discretion.sight,
            sees=True,  # or it could not have been asked for
            reader=None if peer.is_admin else peer.uid,
            whose=user or ("anybody" if everybody else None),
        )


def _is_group(ref: str) -> bool:
    return ref[0] == "g" and ref[1:].isdecimal()


def _is_span(ref: str) -> bool:
    return ref.isascii() and all(part.isdecimal() for part in ref.replace("-", ",").split(","))


def _text(word: str) -> str:
    if not word:
        raise UsageError("an empty word names no group: g12, @, tag:TAG, or a name")
    return fields.text("ref", word)


def _read(request: Mapping[str, Any]) -> _Asked:
    wants_rows = request.get("limit") != 0
    return _Asked(
        best=_goal(request, "best", parse_goal),
        order=_goal(request, "sort", parse_order),
        limit=_limit(request.get("limit")) if wants_rows else 0,
        after=fields.cursor(request, "after"),
        each=bool(request.get("each")),
    )


def _limit(value: Any) -> int:
    return min(value, MOST_ROWS) if isinstance(value, int) and value > 0 else MOST_ROWS


def _goal(request: Mapping[str, Any], field: str, parse: Callable[[str], Goal]) -> Goal | None:
    text = request.get(field)
    if text is None:
        return None
    try:
        return parse(fields.text(field, text))
    except ValueError as error:
        raise UsageError(f"--{field}: {error}") from None


# ── beside the loop ──


def _answer(db: Readable, group: _Group, asked: _Asked, now: float) -> Answer:
    table = Table(db, group.chosen)
    page = _page(table, group, asked)
    if asked.after is not None:
        return page
    return {"group": _summary(table, group, asked, now)} | page


def _summary(table: Table, group: _Group, asked: _Asked, now: float) -> Answer:
    told = tally(table.counts(), table.held())
    if not told["total"]:
        raise NothingMatched(_nothing(group))
    running_s = [_ran_s(row, now) for row in table.running()]
    ends = estimate(RunTimes.of(table.run_times()), running_s, told["unstarted"] - told["held"])
    return {
        "name": group.name,
        "kind": group.kind,
        **told,
        "simulated": table.on_simulated_gpus(),
        "forgotten": None if group.submitted is None else group.submitted - told["total"],
        "best": _best(table, group, asked.best),
        "reported": table.reported_names() if group.sees else [],
        "estimated_end": estimate_view(ends, now),
        "errors": [error_view(row) for row in table.errors(reader=group.reader)],
        "on_failure": group.on_failure,
        "why_cancelled": table.why_cancelled() if told["cancelled"] else None,
    }


def _nothing(group: _Group) -> str:
    if group.submitted is not None:
        return f"{group.name}: its jobs are forgotten (gpuq prune)"
    word = group.name.removeprefix(TAG).removeprefix(NAME)
    what = f"tag {quoted(word)}" if group.kind == "tag" else f"name {quoted(word)}"
    if group.whose is not None:
        return f"no job of {group.whose} has the {what}. See: gpuq status -a"
    return f"no job of yours has the {what}; others' are asked for by -u USER or --all"


def _ran_s(row: Row, now: float) -> float:
    return 0.0 if row["started_at"] is None else now - row["started_at"] - row["paused_s"]


def _best(table: Table, group: _Group, goal: Goal | None) -> Answer | None:
    if goal is None or not group.sees:
        return None
    rows = [row_view(row, group.sight(row["uid"])) for row in table.ranked(goal, 1)]
    return best_view(rows[0] if rows else None, goal)


def _page(table: Table, group: _Group, asked: _Asked) -> Answer:
    if not asked.limit:
        return {"jobs": [], "after": None, "sorted": False}
    if asked.order is not None and group.sees:  # an order tells of what it goes by
        found = table.ranked(asked.order, asked.limit)
        views = [row_view(row, group.sight(row["uid"])) for row in found]
        is_metric = bool(views) and asked.order.metric in views[0]["metrics"]
        return {"jobs": views, "after": None, "sorted": is_metric}
    return _next_rows(table, group, asked)


def _next_rows(table: Table, group: _Group, asked: _Asked) -> Answer:
    rows = table.page(asked.after, asked.limit)
    views: list[Answer] = []
    length, last = 0, asked.after
    for row in rows:
        left = asked.limit - len(views)
        # Only elements of an array are shown as a run.
        each = asked.each or row["element"] is None
        own = each_job(row, last, left, table.values_of) if each else [behind(row, last)]
        for one in own:
            views.append(row_view(one, group.sight(one["uid"])))
            last = one["last_id"]
            length += len(str(views[-1]["parameters"])) + len(str(views[-1]["metrics"]))
            if len(views) >= asked.limit or length >= PAGE_SIGNS:
                return {"jobs": views, "after": last, "sorted": False}
    return {"jobs": views, "after": None, "sorted": False}
