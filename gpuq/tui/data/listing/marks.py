"""Jobs that were marked, by their ids: lines may move, and come and go."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpuq.core.units import format_spans, merged
from gpuq.tui.data.spans import Row, Rows


class Marks:
    """`spans` are in order and apart."""

    def __init__(self) -> None:
        self.spans: list[range] = []

    def __len__(self) -> int:
        return sum(map(len, self.spans))

    def __str__(self) -> str:
        """ "184 190-196"."""
        return format_spans(self.spans).replace(",", " ")

    def add(self, spans: Iterable[range]) -> None:
        self.spans = merged([*self.spans, *spans])

    def remove(self, spans: Iterable[range]) -> None:
        for span in spans:
            self.spans = [part for own in self.spans for part in _outside(own, span) if part]

    def forget(self) -> None:
        self.spans = []

    def count_in(self, spans: Iterable[range]) -> int:
        """How many of these jobs are marked; the spans are apart."""
        number = 0
        for span in spans:
            at = bisect_right(self.spans, span.start, key=lambda own: own.stop)
            while at < len(self.spans) and self.spans[at].start < span.stop:
                number += len(_shared(self.spans[at], span))
                at += 1
        return number

    def rows(self, rows: Rows) -> Iterator[Row]:
        """What of the rows is marked: of a run no more than that."""
        for span in self.spans:
            for row in rows.within(span.start, span.stop - 1):
                first, last = max(row["id"], span.start), min(row["last_id"], span.stop - 1)
                is_whole = (first, last) == (row["id"], row["last_id"])
                yield row if is_whole else row | {"id": first, "last_id": last}

    def keep(self, rows: Rows) -> None:
        """Forgets those of jobs that are gone."""
        if self.spans:
            self.spans = merged(span_of(row) for row in self.rows(rows))


def span_of(row: Row) -> range:
    return range(row["id"], row["last_id"] + 1)


def _shared(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _outside(own: range, taken: range) -> tuple[range, range]:
    if not _shared(own, taken):
        return own, range(0)
    return range(own.start, taken.start), range(taken.stop, own.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a key is meant for: the marked jobs, or those of the line under the cursor. `rows` are what
    was told of them at that moment, of a run no more than is meant; `spans` their ids, in order and
    apart."""

    spans: tuple[range, ...] = ()
    rows: tuple[Row, ...] = ()
    is_marked: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.spans))

    @property
    def words(self) -> str:
        """ "184,190-196", as a command line has it."""
        return format_spans(self.spans)


def chosen_of(rows: Iterable[Row], *, is_marked: bool) -> Chosen:
    found = tuple(rows)
    return Chosen(spans=tuple(merged(map(span_of, found))), rows=found, is_marked=is_marked)
