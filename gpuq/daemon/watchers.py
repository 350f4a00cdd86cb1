"""Who waits for jobs to start or to end, or for anything to be written down. What nobody waits for
costs nothing, and a million jobs that somebody waits for cost no more than their ranges."""

import asyncio
import time
from collections.abc import Callable, Sequence

BUSY_S = 0.05  # so long after a commit there may come another
REST, REST_WHILE_BUSY = 1, 20  # times as long as it took to tell

Watch = asyncio.Future[None]


class _Awaited:
    """How many more of some jobs have to come to a moment until that is enough."""

    __slots__ = ("future", "wanted")

    def __init__(self, wanted: int) -> None:
        self.future: Watch = asyncio.get_running_loop().create_future()
        self.wanted = wanted

    def count(self, jobs: int) -> None:
        self.wanted -= jobs
        if self.wanted <= 0 and not self.future.done():
            self.future.set_result(None)


class Watchers:
    """Futures by job and moment; the loop publishes, handlers wait."""

    def __init__(self) -> None:
        self._singles: dict[tuple[int, str], set[_Awaited]] = {}
        self._spans: dict[_Awaited, tuple[str, Sequence[range]]] = {}
        self._commit: Watch | None = None
        self._committed_at = 0.0  # CLOCK_MONOTONIC
        self.heed_commit: Callable[[], None] = lambda: None
        self.changes = 0  # commits and readings so far
        self._change: Watch | None = None

    def watch(self, jobs: Sequence[range], moment: str, wanted: int = 1) -> Watch:
        """A future that is done once `wanted` of the jobs were published as `started` or `ended`;
        cancel it to leave. One that is published twice counts twice: look again when it is done."""
        awaited = _Awaited(wanted)
        keys = [(span.start, moment) for span in jobs if len(span) == 1]
        spans = [span for span in jobs if len(span) > 1]
        for key in keys:
            self._singles.setdefault(key, set()).add(awaited)
        if spans:
            self._spans[awaited] = moment, spans
        awaited.future.add_done_callback(lambda done: self._forget(awaited, keys))
        return awaited.future

    def publish(self, job: int, moment: str, *, last: int | None = None) -> None:
        """The job has come to that moment, or all from there to `last`."""
        jobs = range(job, (last or job) + 1)
        for awaited, (awaited_moment, spans) in list(self._spans.items()):
            if awaited_moment == moment and (number := _shared(jobs, spans)):
                awaited.count(number)
        for one in jobs if len(jobs) < len(self._singles) else self._awaited_among(jobs, moment):
            for awaited in self._singles.pop((one, moment), set()):
                awaited.count(1)

    def _awaited_among(self, jobs: range, moment: str) -> list[int]:
        return [job for job, awaited in self._singles if awaited == moment and job in jobs]

    async def next_commit(self, timeout_s: float | None) -> None:
        """Until something has been written down, or the time is up; None: however long it takes."""
        if self._commit is None:
            self._commit = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._commit,), timeout=timeout_s)

    def publish_commit(self) -> None:
        self._committed_at = time.monotonic()
        self.publish_change()
        self.heed_commit()
        commit, self._commit = self._commit, None
        if commit is not None and not commit.done():
            commit.set_result(None)

    def rest_s(self, took_s: float) -> float:
        """How long those who only tell leave the loop alone after they have had it for so long: jobs
        are started meanwhile, and who asks something is answered."""
        is_busy = time.monotonic() - self._committed_at < BUSY_S
        return took_s * (REST_WHILE_BUSY if is_busy else REST)

    async def next_change(self, seen: int, timeout_s: float) -> None:
        """Until there were more `changes` than those, or the time is up."""
        if self.changes == seen:
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._change,), timeout=timeout_s)

    def publish_change(self) -> None:
        """Something was written down, or the GPUs were read."""
        self.changes += 1
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    def _forget(self, awaited: _Awaited, keys: Sequence[tuple[int, str]]) -> None:
        self._spans.pop(awaited, None)
        for key in keys:
            watching = self._singles.get(key)
            if watching is not None:
                watching.discard(awaited)
                if not watching:
                    del self._singles[key]


def _shared(jobs: range, spans: Sequence[range]) -> int:
    """How many of the jobs lie in those spans."""
    return sum(len(range(max(jobs.start, s.start), min(jobs.stop, s.stop))) for s in spans)
