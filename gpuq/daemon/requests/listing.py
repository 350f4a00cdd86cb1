"""The list of jobs, page by page: each alone, runs of such as are alike, or a group as one entry."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from gpuq.core.asked.common_name import common_name
from gpuq.core.asked.elements import read_elements
from gpuq.core.model import JobState, Outcome
from gpuq.core.scheduling.queue_order import considered_in_order
from gpuq.core.units import format_spans
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.found import element, separately, unfolded

# A page ends with the job that fills it: a command may have megabytes, and each is of an array of such.
PAGE_SIGNS = 2 * 2**20
READ_AT_ONCE = 50  # rows, each with its command

Answer = dict[str, Any]


class Listing:
    """`view` shows a row of one job to somebody."""

    def __init__(
        self,
        store: Store,
        refs: References,
        discretion: Callable[[Peer], Discretion],
        view: Callable[[Row, Peer], Answer],
    ) -> None:
        self._store = store
        self._refs = refs
        self._discretion = discretion
        self._view = view

    def page(self, request: Mapping[str, Any], peer: Peer) -> tuple[list[Answer], int | None]:
        """A page of views, and the cursor of the next one where there may be more.

        Active jobs come oldest first, since what runs and what is next is asked for; with ended
        ones among them the newest come first. With `active` there are none, though jobs are named
        that have ended. With `fold` a group of several jobs is one entry, with
        `runs` jobs that do not differ, from `id` to `last_id`. With `next` there are only those that
        may start, on one page, in the order in which they are considered. `places` gives each its
        place in that order.
        """
        refs = fields.named(request)
        limit, cursor = fields.limit(request.get("limit")), fields.cursor(request, "before")
        wanted = self._wanted(request, peer)
        if request.get("next"):
            views, after = self._next(wanted, peer, limit), None
        elif request.get("fold"):
            views, after = self._groups(wanted, peer, limit, cursor)
        elif request.get("runs"):
            views, after = self._runs(wanted, peer, limit, cursor)
        else:
            views, after = self._elements(wanted, peer, limit, cursor)
        if request.get("places"):
            views = self._with_places(views)
        is_part = request.get("active") or request.get("next")
        if refs and not views and cursor is None and not is_part:
            raise self._refs.no_such_job(refs, peer)
        return views, after

    def _wanted(self, request: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        """Which jobs, as the store is asked for them."""
        refs, filters = fields.named(request), fields.filters(request)
        everything = (bool(request.get("all")) or bool(refs)) and not request.get("active")
        # What is hidden must not be guessed either: others' jobs have neither name nor tags then.
        by_words = filters["name"] is not None or filters["tag"] is not None
        only_own = by_words and not self._discretion(peer).sees_commands
        # Who is going to change what is listed has only that listed which they may change.
        only_own |= bool(request.get("mine") or (request.get("changeable") and not peer.is_admin))
        return filters | {
            "ids": self._refs.resolve(refs, peer) if refs else None,
            "ended": everything or _wants_ended(filters["states"]),
            "uid": peer.uid if only_own else None,
        }

    def _elements(
        self, wanted: dict[str, Any], peer: Peer, limit: int, cursor: int | None
    ) -> tuple[list[Answer], int | None]:
        page = _Page(limit)
        for run in self._rows(wanted, limit, cursor):
            for row in unfolded([run], newest_first=wanted["ended"]):
                page.add(self._view(row, peer))
                if page.is_full:
                    return page.views, row["id"]
        return page.views, None

    def _rows(self, wanted: dict[str, Any], limit: int, cursor: int | None) -> Iterator[Row]:
        behind = "id" if wanted["ended"] else "last_id"
        number = min(limit, READ_AT_ONCE)
        while True:
            rows = self._store.found.jobs(limit=number, cursor=cursor, **wanted)
            yield from rows
            if len(rows) < number:
                return
            cursor = rows[-1][behind]

    def _next(self, wanted: dict[str, Any], peer: Peer, limit: int) -> list[Answer]:
        page, asked = _Page(limit), wanted | {"ended": False}
        within = wanted["ids"]
        pieces = iter(considered_in_order(self._store.counted.may_start()))
        while some := list(islice(pieces, READ_AT_ONCE)):
            spans = sorted(some, key=lambda span: span.start)
            asked["ids"] = spans if within is None else _shared(spans, within)
            rows = self._store.found.jobs(**asked) if asked["ids"] else []
            for piece in some:
                for row in (row for row in rows if row["id"] in piece):
                    for job in range(row["id"], row["last_id"] + 1):
                        page.add(self._view(element(row, job), peer))
                        if page.is_full:
                            return page.views
        return page.views

    def _with_places(self, views: list[Answer]) -> list[Answer]:
        """1 is considered first; None: it waits for something else than its turn."""
        ids, places, before = sorted(view["id"] for view in views), {}, 0
        for piece in considered_in_order(self._store.counted.may_start()):
            for job in ids[bisect_left(ids, piece.start) : bisect_left(ids, piece.stop)]:
                places[job] = before + job - piece.start + 1
            before += len(piece)
        return [view | {"queue_place": places.get(view["id"])} for view in views]

    def _runs(
        self, wanted: dict[str, Any], peer: Peer, limit: int, cursor: int | None
    ) -> tuple[list[Answer], int | None]:
        page, behind = _Page(limit), "id" if wanted["ended"] else "last_id"
        rows = self._rows(wanted, limit, cursor)
        for row in separately(rows, newest_first=wanted["ended"]):
            page.add(self._view(row, peer) | {"last_id": row["last_id"]})
            if page.is_full:
                return page.views, row[behind]
        return page.views, None

    def _groups(
        self, wanted: dict[str, Any], peer: Peer, limit: int, cursor: int | None
    ) -> tuple[list[Answer], int | None]:
        page = _Page(limit)
        while True:
            rows, cursor = self._store.grouped.entries(limit=1, cursor=cursor, **wanted)
            for row in rows:
                page.add(self._folded(row, peer))
            if cursor is None or page.is_full:
                return page.views, cursor

    def _folded(self, row: Row, peer: Peer) -> Answer:
        """A group as the most alive of its jobs, with what there is of the others."""
        group, grouped = row["group_id"], self._store.grouped
        counts = grouped.counts(group)
        number = sum(counts.values())
        chosen = grouped.representative(group, counts) if number > 1 else None
        if chosen is None:
            return self._view(row, peer)
        view = self._view(chosen, peer)
        names = grouped.names(group) or [chosen["name"]]
        return view | {
            # As they were written, with {i} for what differs.
            "name": common_name(names) if view["name"] else "",
            "jobs": format_spans(self._store.found.group(group)),
            "indices": _indices(chosen, number),
            "count": number,
            "counts": counts,
            "gpus": grouped.gpus_in_use(group),
        }


class _Page:
    def __init__(self, limit: int) -> None:
        self.views: list[Answer] = []
        self._limit = limit
        self._signs = 0  # of what may be long

    def add(self, view: Answer) -> None:
        self.views.append(view)
        self._signs += sum(map(len, (*view["command"], *view["parameters"].values())))
        self._signs += sum(len(name) + len(str(value)) for name, value in view["metrics"].items())

    @property
    def is_full(self) -> bool:
        return len(self.views) >= self._limit or self._signs >= PAGE_SIGNS


def _shared(ones: Sequence[range], others: Sequence[range]) -> list[range]:
    """What lies in both; each in order and its spans apart, so that one walk along both will do."""
    both, one, other = [], 0, 0
    while one < len(ones) and other < len(others):
        a, b = ones[one], others[other]
        if part := range(max(a.start, b.start), min(a.stop, b.stop)):
            both.append(part)
        one, other = (one + 1, other) if a.stop < b.stop else (one, other + 1)
    return both


def _indices(row: Row, number: int) -> str | None:
    """Those of the array that the group is; None where it is another thing."""
    if row["element"] is None:
        return None
    elements = read_elements(row["elements"])
    return elements.words if len(elements) == number else None


def _wants_ended(states: list[str]) -> bool:
    return any(state == JobState.ENDED or state in tuple(Outcome) for state in states)
