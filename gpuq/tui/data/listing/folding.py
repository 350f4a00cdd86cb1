"""Jobs of one group as one line: how many do what, and one that stands for them."""

from collections.abc import Iterable, Sequence

from gpuq.cli.fold_text import ACTIVE
from gpuq.core.asked.common_name import common_name
from gpuq.core.units import format_ranges, format_spans, merged
from gpuq.tui.data.listing.marks import span_of
from gpuq.tui.data.listing.orders import rank, word_of
from gpuq.tui.data.spans import Row

NAMES_COMPARED = 100


class Members:
    """The rows of one group: `shown` by their ids, and those that are hidden since they are done."""

    __slots__ = ("_first", "_folded", "_ids", "_together", "done", "shown")

    def __init__(self) -> None:
        self.shown: dict[int, Row] = {}
        self.done: dict[int, Row] = {}
        self._first: Row | None = None  # the one that stands for them
        self._folded: Row | None = None
        self._ids: list[int] | None = None
        self._together: Row | None = None  # what only those change that come and go

    def put(self, row: Row, *, is_done: bool) -> None:
        job, kept = row["id"], (self._ids, self._together)
        before = self.shown.get(job)
        if before is not None or job in self.done:
            self.remove(job)
        self._folded = None
        if is_done:
            self.done[job] = row
            return
        self.shown[job] = row
        if before is not None and all(before.get(name) == row.get(name) for name in _TOGETHER):
            self._ids, self._together = kept
        else:
            self._ids = self._together = None
        if self._first is None or _liveliness(row) < _liveliness(self._first):
            self._first = row if len(self.shown) == 1 or self._first is not None else None

    def remove(self, job: int) -> None:
        self._folded = None
        if self.done.pop(job, None) is None and self.shown.pop(job, None) is not None:
            self._ids = self._together = None
            if self._first is not None and self._first["id"] == job:
                self._first = None

    @property
    def is_empty(self) -> bool:
        return not self.shown and not self.done

    @property
    def first(self) -> Row:
        """The first of the most alive."""
        if self._first is None:
            self._first = min(self.shown.values(), key=_liveliness)
        return self._first

    @property
    def first_id(self) -> int:
        return next(iter(self.shown)) if len(self.shown) == 1 else self.ids[0]

    @property
    def ids(self) -> list[int]:
        """Of the rows that are shown, in order."""
        if self._ids is None:
            self._ids = sorted(self.shown)
        return self._ids

    def spans(self) -> list[range]:
        """In order and apart."""
        if len(self.shown) == 1:
            return [span_of(row) for row in self.shown.values()]
        return self._all_together()["spans"]  # type: ignore[no-any-return]

    def _all_together(self) -> Row:
        if self._together is None:
            self._together = _together([self.shown[job] for job in self.ids])
        return self._together

    def holding(self, job: int) -> Row | None:
        row = self.shown.get(job)
        if row is None:
            row = next((one for one in self.shown.values() if job in span_of(one)), None)
        return row

    def folded(self) -> Row:
        """As the daemon folds a group, but that `done` are counted which are in none of its `jobs`."""
        if self._folded is None:
            rows = self.shown.values()
            self._folded = {
                **self.first,
                **self._all_together(),
                "counts": _counts(rows),
                "done": _counts(self.done.values()),
                "gpus": sorted({gpu for row in rows if is_on_gpus(row) for gpu in row["gpus"]}),
            }
        return self._folded


_TOGETHER = ("last_id", "name", "array_index", "indices")


def _together(rows: Sequence[Row]) -> Row:
    spans = merged(map(span_of, rows))
    return {
        "name": common_name([row["name"] for row in rows[:NAMES_COMPARED]]),
        "spans": spans,
        "jobs": format_spans(spans),
        "indices": indices_of(rows),
        "count": sum(map(_size, rows)),
    }


def is_on_gpus(row: Row) -> bool:
    return row["state"] in ("starting", "running")


def run_folded(row: Row) -> Row:
    """A run of jobs that are alike, in the same shape."""
    return row | {
        "jobs": format_spans([span_of(row)]),
        "count": _size(row),
        "counts": _counts([row]),
        "done": {},
    }


def indices_of(rows: Iterable[Row]) -> str | None:
    """Those of an array; None where not all have one."""
    alone: list[int] = []
    words: list[str] = []
    for row in rows:
        if row.get("indices"):
            words += [] if not alone else [format_ranges(alone)]
            words.append(row["indices"])
            alone = []
        elif row["array_index"] is not None and _size(row) == 1:
            alone.append(row["array_index"])
        else:
            return None
    words += [] if not alone else [format_ranges(alone)]
    return _joined(words)


def _joined(words: list[str]) -> str:
    """ "0-3" of "0-1" and "2-3"."""
    joined: list[str] = []
    for word in words:
        ends = joined[-1].rpartition(",")[2].split("-") if joined else []
        starts = word.split("-")
        is_next = ends and ends[-1].isdecimal() and starts[0] == str(int(ends[-1]) + 1)
        if is_next and starts[-1].isdecimal():
            before = joined.pop().rpartition(",")
            joined.append(f"{before[0]}{before[1]}{ends[0]}-{starts[-1]}")
        else:
            joined.append(word)
    return ",".join(joined)


def _liveliness(row: Row) -> tuple[int, int]:
    return rank(row), row["id"]


def _size(row: Row) -> int:
    return int(row["last_id"]) - int(row["id"]) + 1


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    counts = dict.fromkeys(ACTIVE, 0)
    for row in rows:
        word = word_of(row)
        counts[word] = counts.get(word, 0) + _size(row)
    return counts
