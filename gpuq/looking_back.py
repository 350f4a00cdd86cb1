"""The part of the Client that asks for what has been. On the start-up path of every command."""

from __future__ import annotations

from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Unpack

    from gpuq.past import (
        Errors,
        ErrorsBy,
        HistoryFilters,
        JobSeries,
        PastFilters,
        PastJob,
        Stats,
        StatsBy,
        Usage,
        UsageBy,
    )
    from gpuq.typed import Refs

_OF_ALL = "mine user name tag queue since"
_FILTERS = {
    "jobs": f"{_OF_ALL} states all limit runs fold changeable",
    "history": f"{_OF_ALL} until states idle",
    "stats": _OF_ALL,
    "errors": _OF_ALL,
}


class LookingBack:
    call: Callable[..., dict[str, Any]]

    def history(
        self, refs: Refs = (), *, limit: int | None = None, **filters: Unpack[HistoryFilters]
    ) -> Iterator[PastJob]:
        """Jobs that have ended, the last one first, as `gpuq history --json` has them: as in `jobs`,
        with `held_idle` beside. Filters: since, until (s since the epoch), states (a list), idle=True,
        mine=True, user, name, tag, queue."""
        from gpuq.past import pages

        check_filters("history", filters)
        asked: dict[str, Any] = {"refs": names(refs), **filters}
        return (job for page in pages(self.call, asked, limit) for job in page)

    def stats(
        self, by: StatsBy = "state", refs: Refs = (), **filters: Unpack[PastFilters]
    ) -> Stats:
        """How jobs fared, as `gpuq stats --json` has it: waits and runs in s, memory in bytes. Filters:
        since, mine=True, user, name, tag, queue."""
        check_filters("stats", filters)
        return self._look_back("stats", by=by, refs=names(refs), **filters)  # type: ignore[no-any-return]

    def errors(
        self, by: ErrorsBy = "signature", refs: Refs = (), **filters: Unpack[PastFilters]
    ) -> Errors:
        """What went wrong and how often, as `gpuq errors --json` has it. Filters as in `stats`."""
        check_filters("errors", filters)
        return self._look_back("errors", by=by, refs=names(refs), **filters)  # type: ignore[no-any-return]

    def usage(
        self, by: UsageBy = "user", *, since: float | None = None, price: str | float | None = None
    ) -> Usage:
        """Who has had how much of the GPUs since then (s since the epoch; None: for a week), in s, as
        `gpuq usage --json` has it; with the `price` of a GPU for an hour, what that would have cost."""
        return self._look_back("usage", by=by, since=since, price=price)  # type: ignore[no-any-return]

    def series(self, ref: int | str, attempt: int | None = None) -> JobSeries:
        """How an attempt of a job (None: its last) went from its start on, while it runs or after: for
        each of the "quantities" that was measured its least, mean and most, and in up to 240 points
        [number, mean, max, count] what it was in the stretch of `width_s` that began number * width_s
        after the start. Quantities: gpu_memory_bytes (of that of its GPUs that had the most in use),
        gpu_utilization_percent (the mean of its GPUs), memory_bytes (of the machine, where gpuq watches
        --mem). `why` says why there is nothing. NothingMatched: no such job or attempt."""
        asked = {} if attempt is None else {"attempt": attempt}
        found: Any = self.call("series", ref=str(ref), **asked)
        return found  # type: ignore[no-any-return]

    def _look_back(self, do: str, **asked: Any) -> Any:
        from gpuq.past import ANSWER_S as LONG_ANSWER_S

        return self.call(do, answer_s=LONG_ANSWER_S, **asked)


def check_filters(method: str, filters: Mapping[str, Any]) -> None:
    """UsageError where one is not known, with the name that was meant: what is left out of a request
    would be taken for all jobs."""
    known = _FILTERS[method].split()
    for name in filters:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise UsageError(f"{method} has no filter {name!r}; {hint}")


def names(refs: Refs) -> list[str]:
    """One text is one reference, not a list of its signs."""
    return [str(refs)] if isinstance(refs, int | str) else [str(ref) for ref in refs]
