"""Who tells one client of the queue: a whole picture, page by page, and then what is otherwise in it.

He remembers what he told, as far as that is little: what runs, the GPUs, the starts that are expected.
Of all other rows the events say which have to be told again.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from gpuq.core.asked.elements import read_elements
from gpuq.core.decisions import Plan
from gpuq.core.events import jobs_of
from gpuq.core.model import JobState
from gpuq.core.units import merged, parse_ranges
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import views
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.found import separately

_IN_A_ROW = """
id name user group array_index parameters differs_in queue tags state substate outcome exit_code
signal error_signature attempt retries delayed_until gpu_count gpus gpus_simulated gpu_mem_bytes
cpu_fallback device time_limit_s paused_s grace_s priority submitted_at started_at ended_at reason
expected_start expected_start_is_guess command hidden idle contended_now progress metrics
"""
LONGEST_COMMAND = 400  # signs of it in a row

PAGE = 100  # rows that are made in one go, before others are served
MOST_ROWS = 20_000  # of what waits in one picture, the first; a run of jobs that are alike is one
MOST_FINISHED = 500  # of those that have ended, the newest
MOST_EVENTS, MOST_NEWS = 500, 500  # to be told in one go; beyond them a new picture costs less
COUNTED_EVERY_S = 1.0
RUNNING_EVERY_S = 1.0  # what jobs report of themselves is no event
FORESEEN_EVERY_S = 5.0
FORESEEN_NEWS_S = 20.0  # by how much an expected start has to move to be told again

Answer = dict[str, Any]
JobView = Callable[[Row, Peer], Answer]
Made = TypeVar("Made")


class Turns:
    """Of all who tell: one after the other, and all together a part of the time. Whoever asks something
    meanwhile, and the jobs that are to be started, wait for one of them and not for all. `rest_s` says
    how long to stay quiet after so long a turn."""

    def __init__(self, rest_s: Callable[[float], float]) -> None:
        self._lock = asyncio.Lock()
        self._rest_s = rest_s

    async def take(self, work: Callable[[], Made]) -> Made:
        async with self._lock:
            began = time.monotonic()
            made = work()
            await asyncio.sleep(self._rest_s(time.monotonic() - began))
            return made


class Teller:
    """`number` is that of the last event told. `picture` gives what is said beside the jobs: counts,
    GPUs, the drain."""

    def __init__(
        self,
        store: Store,
        world: World,
        job_view: JobView,
        picture: Callable[[Peer], Answer],
        peer: Peer,
        finished_since: float | None,
        turns: Turns,
    ) -> None:
        self.number = 0
        self._turns = turns
        self._store = store
        self._world = world
        self._job_view = job_view
        self._beside = picture
        self._peer = peer
        self._finished_since = finished_since
        self._finished: dict[str, int] = {}  # by outcome
        self._counted_at = 0.0
        self._told: Answer = {}  # what was told beside the jobs
        self._gpus: dict[str, Answer] = {}
        self._plan = Plan()
        self._running: dict[int, Answer] = {}
        self._looked_at = 0.0  # at the running ones
        self._is_behind = False  # something happened since
        self._foreseen: dict[int, float] = {}  # the expected starts that were told
        self._foreseen_at = 0.0

    # ── a picture ──

    async def picture(self) -> AsyncGenerator[Answer, None]:
        """Page by page, so that a screen shows the first while others are made and nobody waits for all
        of them. What happens meanwhile is told after the last."""
        self.number = self._store.told.last_event()
        self._forget()
        part = {"is_picture": True} | self._place()
        told, pages = part | {"first": True} | self._whatever_changed(), self._pages()
        rows = await self._turns.take(lambda: next(pages))
        while (page := await self._turns.take(lambda: next(pages, None))) is not None:
            yield told | {"jobs": rows, "more": True}
            told, rows = part, page
        yield told | {"jobs": rows, "more": False}

    def _pages(self) -> Iterator[list[Answer]]:
        """What runs, what waits, what has ended."""
        running = self._views(self._rows_that_run())
        self._running = {view["id"]: view for view in running}
        yield running
        cursor, found = None, 0
        while found < MOST_ROWS:
            queued = [JobState.QUEUED.value]
            rows = self._store.found.jobs(ended=False, states=queued, limit=PAGE, cursor=cursor)
            own = separately(rows)
            while page := list(islice(own, min(PAGE, MOST_ROWS - found))):
                yield self._views(page)
                found += len(page)
            if len(rows) < PAGE:
                break
            cursor = rows[-1]["last_id"]
        if self._finished_since is not None:
            ended = [JobState.ENDED.value]
            rows = self._store.found.jobs(
                states=ended, since=self._finished_since, limit=MOST_FINISHED
            )
            own = islice(separately(rows, newest_first=True), MOST_FINISHED)
            while page := list(islice(own, PAGE)):
                yield self._views(page)

    def _rows_that_run(self) -> list[Row]:
        states = [JobState.STARTING.value, JobState.RUNNING.value]
        return self._store.found.jobs(ended=False, states=states)

    # ── what came after ──

    def looks_again_in_s(self, longest_s: float) -> float:
        """Also without anything that happens: what was too early to be looked at is told then."""
        if not self._is_behind:
            return longest_s
        return max(self._looked_at + RUNNING_EVERY_S - time.monotonic(), 0.0)

    def can_go_on_from(self, number: int) -> bool:
        last, removed = self._store.told.last_event(), self._store.told.pruned_to()
        return removed <= number <= last and last - number <= MOST_EVENTS

    async def catch_up(self, since: int | None = None) -> Answer | None:
        """The news, from that number on, when it is our turn."""
        if since is None:
            return await self._turns.take(self.news)
        return await self._turns.take(lambda: self.resumed(since))

    def resumed(self, since: int) -> Answer | None:
        """What the plan said before was forgotten: whoever is `resumed` is told all of it anew, and of
        other rows it holds no more."""
        self.number = since
        self._forget()
        self._plan = Plan()
        news = self.news()
        return None if news is None else news | {"resumed": True}

    def news(self) -> Answer | None:
        """The rows that are otherwise than they were told, whole, and what of the rest is. Of the jobs
        of `looked_at` those are gone that are in none of the rows. None: there is too much of it, and
        a new picture is to be had page by page."""
        if not self.can_go_on_from(self.number):
            return None
        spans = self._spans_of_events()
        rows = self._whole_rows(spans, MOST_NEWS + 1)
        if len(rows) > MOST_NEWS:
            return None
        by_plan = self._of_the_plan()
        if by_plan is None:
            return None
        changed = {view["id"]: view for view in self._views(rows)}
        changed |= by_plan | self._of_those_that_run(changed) | self._foreseen_anew()
        news: Answer = self._place() | self._whatever_changed()
        if changed:
            news["jobs"] = [changed[job] for job in sorted(changed)]
        if spans:
            news["looked_at"] = [[span.start, span.stop - 1] for span in spans]
        return news

    def _place(self) -> Answer:
        return {"number": self.number, "mark": self._store.told.mark(self.number)}

    def _spans_of_events(self) -> list[range]:
        events, self.number = self._store.told.events(self.number, MOST_EVENTS + 1)
        return _jobs_of(events)

    def _forget(self) -> None:
        self._told, self._gpus, self._running = {}, {}, {}
        self._foreseen, self._plan = {}, self._world.plan

    def _whatever_changed(self) -> Answer:
        plan = self._world.plan
        beside = self._beside(self._peer)
        beside |= {"heads": dict(plan.heads), "standstill": plan.standstill}
        beside["finished"] = self._count_finished()
        gpus = {gpu["uuid"]: gpu for gpu in beside.pop("gpus")}
        beside["gpu_order"] = list(gpus)
        changed = {
            name: value for name, value in beside.items() if self._told.get(name, ()) != value
        }
        seen = [gpu for uuid, gpu in gpus.items() if self._gpus.get(uuid) != gpu]
        self._told, self._gpus = beside, gpus
        return changed | ({"gpus": seen} if seen else {})

    def _count_finished(self) -> dict[str, int]:
        """By outcome, those that ended since the moment that was asked for."""
        now = time.monotonic()
        if self._finished_since is not None and now - self._counted_at >= COUNTED_EVERY_S:
            self._counted_at = now
            self._finished = self._store.counted.ended_since(self._finished_since)
        return self._finished

    def _of_the_plan(self) -> dict[int, Answer] | None:
        """Those that wait for another reason than before; None: they are too many."""
        before, self._plan = self._plan, self._world.plan
        if before is self._plan:
            return {}
        old, new = before.reasons, self._plan.reasons
        others = {job for job in {*old, *new} if old.get(job) != new.get(job)}
        return self._look_at(others) if len(others) <= MOST_NEWS else None

    def _of_those_that_run(self, told: Mapping[int, Answer]) -> dict[int, Answer]:
        now = time.monotonic()
        self._is_behind = now - self._looked_at < RUNNING_EVERY_S
        if self._is_behind:
            self._running |= {job: told[job] for job in told.keys() & self._running.keys()}
            return {}
        self._looked_at = now
        seen = {view["id"]: view for view in self._views(self._rows_that_run())}
        before, self._running = self._running, seen
        return {job: view for job, view in seen.items() if before.get(job) != view}

    def _foreseen_anew(self) -> dict[int, Answer]:
        """A start that comes nearer as time goes by is no news; one that moves is."""
        now = time.monotonic()
        if now - self._foreseen_at < FORESEEN_EVERY_S or not self._foreseen:
            return {}
        self._foreseen_at, told = now, dict(self._foreseen)
        seen = self._look_at(told.keys())
        moved = {
            job: abs((view["expected_start"] or 0.0) - told[job])
            for job, view in seen.items()
            if job in told
        }
        for job, by_s in moved.items():
            if by_s < FORESEEN_NEWS_S:
                self._foreseen[job] = told[job]
        return {job: seen[job] for job, by_s in moved.items() if by_s >= FORESEEN_NEWS_S}

    def _look_at(self, jobs: Iterable[int]) -> dict[int, Answer]:
        spans = merged(range(job, job + 1) for job in jobs)
        rows = self._whole_rows(spans, MOST_NEWS)
        return {view["id"]: view for view in self._views(rows)}

    # ── rows ──

    def _whole_rows(self, spans: Sequence[range], most: int) -> list[Row]:
        return list(islice(separately(self._store.found.whole_rows(spans, most)), most))

    def _views(self, rows: Sequence[Row]) -> list[Answer]:
        return [self._view(row) for row in rows]

    def _view(self, row: Row) -> Answer:
        whole = self._job_view(row, self._peer)
        view = {name: whole[name] for name in _IN_A_ROW.split()}
        view |= {"last_id": row["last_id"], "command": _short(view["command"])}
        view["indices"] = _indices(row)
        if (waits := views.waits_in(row)) is not None:
            plan = self._world.plan
            is_told = plan.standstill is None and row["id"] in plan.reasons
            view |= {"waits_in": waits} | ({} if is_told else {"reason": None})
        if view["expected_start"] is not None:
            self._foreseen[row["id"]] = view["expected_start"]
        else:
            self._foreseen.pop(row["id"], None)
        return view


def _jobs_of(events: Sequence[Row]) -> list[range]:
    spans = []
    for event in events:
        detail = json.loads(event["detail"]) if event["detail"] else {}
        if event["job"] is not None:
            spans.append(jobs_of(event["job"], detail))
        elif event["kind"] == "pruned":
            spans += parse_ranges(detail["jobs"])
    return merged(spans)


def _indices(row: Row) -> str | None:
    """Those of a run of an array; None where it is no run, or of another thing."""
    number = row["last_id"] - row["id"] + 1
    if row["element"] is None or number == 1:
        return None
    return read_elements(row["elements"]).words_between(row["element"], row["element"] + number)


def _short(command: Sequence[str]) -> list[str]:
    left, words = LONGEST_COMMAND, []
    for word in command:
        if left <= 0:
            break
        words.append(word[:left])
        left -= len(word) + 1
    return words
