"""Rows that stand for stretches of jobs, `id` to `last_id`, kept apart and in order."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


class Rows:
    """A row that is put takes the place of all that it overlaps; of a longer one the rest is kept."""

    def __init__(self) -> None:
        self._by_id: dict[int, Row] = {}
        self._ids: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Row]:
        return (self._by_id[job] for job in self._ids)

    def at(self, first: int) -> Row | None:
        """The row that begins with this job."""
        return self._by_id.get(first)

    def holding(self, job: int) -> Row | None:
        """The row that this job is in."""
        at = bisect_right(self._ids, job) - 1
        row = self._by_id[self._ids[at]] if at >= 0 else None
        return row if row is not None and job <= row["last_id"] else None

    @property
    def last_id(self) -> int:
        """Of the last job; 0: there is none."""
        return int(self._by_id[self._ids[-1]]["last_id"]) if self._ids else 0

    def within(self, first: int, last: int) -> Iterator[Row]:
        """The rows that have any of these jobs."""
        begin = max(bisect_right(self._ids, first) - 1, 0)
        for job in self._ids[begin : bisect_right(self._ids, last)]:
            row = self._by_id[job]
            if row["last_id"] >= first:
                yield row

    def copy(self) -> "Rows":
        other = Rows()
        other._by_id, other._ids = self._by_id.copy(), self._ids.copy()
        return other

    def since(self, before: "Rows") -> tuple[list[Row], list[Row]]:
        """The rows that are otherwise than before or new, and those before that are no more."""
        known, now = before._by_id, self._by_id
        changed = [row for job, row in now.items() if known.get(job) is not row]
        old = [known[row["id"]] for row in changed if row["id"] in known]
        if len(now) - len(changed) != len(known) - len(old):
            old += [row for job, row in known.items() if job not in now]
        return changed, old

    def put(self, row: Row) -> bool:
        """True: it took the place of one of the same stretch, so nothing else has moved."""
        before = self._by_id.get(row["id"])
        if before is not None and before["last_id"] == row["last_id"]:
            self._by_id[row["id"]] = row
            return True
        self.remove(row["id"], row["last_id"])
        self._add(row)
        return False

    def remove(self, first: int, last: int) -> bool:
        """Whether any of these jobs was there."""
        begin = bisect_left(self._ids, first)
        if begin and self._by_id[self._ids[begin - 1]]["last_id"] >= first:
            begin -= 1
        end = bisect_right(self._ids, last)
        overlapped = [self._by_id.pop(job) for job in self._ids[begin:end]]
        del self._ids[begin:end]
        for row in overlapped:
            if row["id"] < first:
                self._add(_part(row, row["id"], first - 1))
            if row["last_id"] > last:
                self._add(_part(row, last + 1, row["last_id"]))
        return bool(overlapped)

    def _add(self, row: Row) -> None:
        self._by_id[row["id"]] = row
        if not self._ids or row["id"] > self._ids[-1]:
            self._ids.append(row["id"])
        else:
            insort(self._ids, row["id"])


def _part(row: Row, first: int, last: int) -> Row:
    """What is left of a run of jobs, with the indices of the array that these have."""
    part = row | {"id": first, "last_id": last}
    if words := row.get("indices"):
        from gpuq.core.asked.elements import Elements  # the first picture does not wait for it

        whole = Elements(indices=tuple(map(_numbers, words.split(","))))
        kept = whole.words_between(first - row["id"], last - row["id"] + 1)
        part["array_index"] = int(kept.split(",")[0].split("-")[0])
        part["indices"] = kept if last > first else None
    return part


def _numbers(words: str) -> range:
    """ "4", "0-9" or "0-98:2"."""
    span, _, step = words.partition(":")
    first, _, last = span.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))
